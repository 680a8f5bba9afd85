#!/usr/bin/env python3
"""Fine-tunes one checkpoint on GLUE tasks with Lithe and with PyTorch and compares their metrics.

Both sides get the same files, weights and hyper-parameters; order, dropout and the new head are drawn
from each side's own generator. Several runs share the machine, each pinned to processors of its own.
A result is appended to --results (JSON lines) as soon as its run ends, and what is there is not run
again, so the work may be cut off and taken up; a run of Lithe that --limit ends saves a checkpoint in
--work and goes on from there. Then it writes --json and prints a Markdown table.

    python bench/glue.py --model models/minilm --data data/glue --seeds 1-3 --results runs/glue.jsonl

--data holds GLUE's folders CoLA, MRPC, RTE, STS-B and SST-2. --runs table only reads --results.
"""

import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# task: (folder, metrics, the main one first)
TASKS = {
    "cola": ("CoLA", ["matthews"]),
    "mrpc": ("MRPC", ["accuracy", "f1"]),
    "rte": ("RTE", ["accuracy"]),
    "stsb": ("STS-B", ["pearson", "spearman"]),
    "sst2": ("SST-2", ["accuracy"]),
}
SIDES = ("lithe", "pytorch")


def parse_seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of the checkpoint")
    parser.add_argument("--data", type=Path, help="folder that holds the tasks' folders")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, one a run; appended to")
    parser.add_argument("--json", type=Path, help="also write runs and table as one JSON file")
    parser.add_argument("--runs", choices=["both", "lithe", "pytorch", "table"], default="both")
    parser.add_argument("--tasks", default="sst2,mrpc,rte,stsb,cola", help="in this order")
    parser.add_argument("--seeds", type=parse_seeds, default=[1, 2, 3], help="for example 1-3")
    parser.add_argument("--sst2_seeds", type=parse_seeds, default=[1])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--sst2_epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--steps", type=int, default=0, help="stop each run early, for a try")
    parser.add_argument("--threads", type=int, default=2, help="processors of one run of Lithe")
    parser.add_argument("--sst2_threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; 0: as processors allow")
    parser.add_argument("--limit", type=float, default=0, help="stop all runs after so many seconds")
    parser.add_argument("--train", type=Path, default=ROOT / "build/bin/train")
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs/quickstart/bert_sst2.yaml")
    parser.add_argument("--pytorch_device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--pytorch_threads", type=int, default=2, help="processors of one run of PyTorch")
    parser.add_argument("--pytorch_jobs", type=int, default=2, help="runs of PyTorch at a time, at most")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/glue", help="folder of the runs")
    a = parser.parse_args()
    if a.runs != "table" and (a.model is None or a.data is None):
        parser.error("--model and --data are needed to run")
    return a


class Job:
    """One fine-tuning run of one side."""

    def __init__(self, a: argparse.Namespace, side: str, task: str, seed: int):
        self.side, self.task, self.seed = side, task, seed
        self.epochs = a.sst2_epochs if task == "sst2" else a.epochs
        self.lr = a.lr
        self.folder = a.work / f"{side}_{task}_{seed}"
        if side == "lithe":
            self.threads = a.sst2_threads if task == "sst2" else a.threads
            self.command = [
                str(a.train),
                str(a.recipe),
                "--out",
                str(self.folder),
                "--device",
                "cpu",
                f"model.path={a.model}",
                f"data.path={a.data / TASKS[task][0]}",
                f"data.task={task}",
                "data.group_by_length=true",
                f"seed={seed}",
                f"train.epochs={self.epochs}",
                f"train.steps={a.steps}",
                f"optimizer.lr={a.lr}",
                "eval.every_steps=1000000",
                "checkpoint.every_steps=0",
                "checkpoint.final=false",
            ]
        else:
            self.threads = a.pytorch_threads
            self.command = [
                a.python,
                str(ROOT / "bench/peers/bert_glue_pytorch.py"),
                f"--model={a.model}",
                f"--data={a.data / TASKS[task][0]}",
                f"--task={task}",
                "--group_by_length",
                f"--seed={seed}",
                f"--epochs={self.epochs}",
                f"--steps={a.steps}",
                f"--lr={a.lr}",
                f"--threads={self.threads}",
                f"--device={a.pytorch_device}",
            ]

    def key(self):
        return (self.side, self.task, self.seed, self.epochs, self.lr)

    def start(self, processors: list[int]) -> None:
        self.resumed = self.side == "lithe" and any(self.folder.glob("checkpoints/step-*"))
        if self.resumed:
            self.command.append("--resume")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was killed
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.processors = processors
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.threads))
        self.log = self.folder.with_suffix(".txt")
        with open(self.log, "ab" if self.resumed else "wb") as log:
            # The child inherits the affinity of the moment.
            mine = os.sched_getaffinity(0)
            os.sched_setaffinity(0, processors)
            try:
                self.process = subprocess.Popen(
                    self.command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
                )
            finally:
                os.sched_setaffinity(0, mine)
        self.began = time.monotonic()

    def result(self) -> dict:
        """What the finished run left; raises when something is missing."""
        out = {"side": self.side, "task": self.task, "seed": self.seed, "epochs": self.epochs}
        out |= {"lr": self.lr, "threads": self.threads}
        text = self.log.read_text(errors="replace")
        if self.side == "pytorch":
            line = json.loads([x for x in text.splitlines() if x.startswith("{")][-1])
            out |= {k: line[k] for k in ("metrics", "rows", "mean_tokens", "steps", "train_s", "device")}
            out |= {k: line[k] for k in ("train_loss", "torch", "transformers")}
        else:
            summary = json.loads((self.folder / "summary.json").read_text())
            if summary["status"] != "finished":
                raise ValueError(f"the run is {summary['status']}")
            log = (self.folder / "log.txt").read_text()
            # A resumed run logs them again.
            data = re.findall(r"data: (\d+) rows of \w+, ([\d.]+) tokens on average", log)[-2:]
            metrics = summary["metrics"]
            names = [n for n in ("accuracy", "f1", "matthews", "pearson", "spearman") if n in metrics]
            out["metrics"] = {n: metrics[n] for n in names}
            out["rows"] = [int(rows) for rows, _ in data]
            out["mean_tokens"] = [float(tokens) for _, tokens in data]
            out["steps"] = int(metrics["steps"])
            out["train_s"] = round(summary["times"]["total_s"] - summary["times"]["eval_s"], 2)
            out["device"] = summary["device"]
            out["train_loss"] = metrics["loss"]
            out["resumed"] = self.resumed  # then train_s is that of the last part
            out["predicted_peak_bytes"] = summary["predicted_peak_bytes"]
            out["measured_peak_bytes"] = summary["measured_peak_bytes"]
        out["wall_s"] = round(time.monotonic() - self.began, 1)
        return out


def read_results(path: Path) -> list[dict]:
    if not path.exists():
        return []
    out = []
    for line in path.read_text().splitlines():
        try:
            out.append(json.loads(line))
        except ValueError:
            pass  # cut off while it was written
    return out


def key_of(result: dict):
    return tuple(result[k] for k in ("side", "task", "seed", "epochs", "lr"))


def wanted_jobs(a: argparse.Namespace) -> list[Job]:
    sides = SIDES if a.runs == "both" else (a.runs,)
    done = {key_of(r) for r in read_results(a.results)}
    jobs = []
    tasks = a.tasks.split(",")
    for seed in sorted(set(a.seeds) | set(a.sst2_seeds)):
        for task in tasks:
            if seed in (a.sst2_seeds if task == "sst2" else a.seeds):
                jobs += [Job(a, side, task, seed) for side in sides]
    return [job for job in jobs if job.key() not in done]


def run_jobs(a: argparse.Namespace) -> int:
    waiting, running, failures = wanted_jobs(a), [], 0
    free = sorted(os.sched_getaffinity(0))
    start = time.monotonic()
    a.results.parent.mkdir(parents=True, exist_ok=True)
    while waiting or running:
        for job in list(waiting):
            if a.jobs and len(running) >= a.jobs:
                break
            peers = sum(r.side == "pytorch" for r in running)
            if job.side == "pytorch" and peers >= a.pytorch_jobs:
                continue
            if job.threads > len(free) and running:
                continue
            take = free[: job.threads]
            free = free[job.threads :]
            waiting.remove(job)
            job.start(take)
            running.append(job)
        time.sleep(0.2)
        if a.limit and time.monotonic() - start > a.limit:
            print(f"glue: time is up with {len(running)} runs under way", flush=True)
            for job in running:
                job.process.terminate()  # Lithe saves a checkpoint
            for job in running:
                try:
                    job.process.wait(20)
                except subprocess.TimeoutExpired:
                    job.process.kill()
                    job.process.wait()
            break
        for job in list(running):
            code = job.process.poll()
            if code is None:
                continue
            running.remove(job)
            free = sorted(free + job.processors)
            name = f"{job.side} {job.task} seed {job.seed}"
            try:
                if code != 0:
                    raise ValueError(f"exit code {code}")
                result = job.result()
            except (ValueError, KeyError, IndexError, OSError) as e:
                failures += 1
                tail = "\n".join(job.log.read_text(errors="replace").splitlines()[-5:])
                print(f"glue: {name} FAILED: {e}\n{tail}", flush=True)
                continue
            with open(a.results, "a") as results:
                results.write(json.dumps(result) + "\n")
            values = ", ".join(f"{k} {v:.4f}" for k, v in result["metrics"].items())
            print(f"glue: {name}: {values}; {result['steps']} steps, {result['wall_s']} s", flush=True)
    return failures


def compare(results: list[dict]) -> list[dict]:
    """One row a task and metric, where both sides have runs."""
    rows = []
    for task, (_, metrics) in TASKS.items():
        epochs = sorted({r["epochs"] for r in results if r["task"] == task})
        for count in epochs:
            runs = [r for r in results if r["task"] == task and r["epochs"] == count]
            by_side = {side: [r for r in runs if r["side"] == side] for side in SIDES}
            if not all(by_side.values()):
                continue
            # Only as many of each as the other has, so that a cut-off side does not choose its seeds.
            seeds = set.intersection(*({r["seed"] for r in by_side[s]} for s in SIDES))
            same = {(tuple(r["rows"]), r["steps"], tuple(r["mean_tokens"])) for r in runs}
            for metric in metrics:
                row = {"task": task, "metric": metric, "epochs": count, "seeds": sorted(seeds)}
                row["same_rows_steps_and_tokens"] = len(same) == 1
                for side in SIDES:
                    values = {r["seed"]: 100 * r["metrics"][metric] for r in by_side[side]}
                    chosen = [values[s] for s in sorted(seeds)]
                    row[side] = {"values": [round(v, 3) for v in chosen]}
                    row[side]["mean"] = statistics.mean(chosen) if chosen else math.nan
                    row[side]["deviation"] = statistics.stdev(chosen) if len(chosen) > 1 else None
                row["difference"] = row["lithe"]["mean"] - row["pytorch"]["mean"]
                deviations = [row[s]["deviation"] for s in SIDES]
                row["standard_error"] = (
                    math.sqrt(sum(d * d for d in deviations) / len(seeds))
                    if seeds and None not in deviations
                    else None
                )
                if seeds:
                    rows.append(row)
    return rows


def markdown(rows: list[dict]) -> str:
    def side(values: dict) -> str:
        numbers = values["values"]
        return f"{values['mean']:.2f} ({min(numbers):.2f} to {max(numbers):.2f})"

    out = [
        "| task | metric | epochs | seeds | Lithe: mean (lowest to highest) | PyTorch | difference of means "
        "| its standard error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        error = "" if r["standard_error"] is None else f"{r['standard_error']:.2f}"
        out.append(
            f"| {r['task']} | {r['metric']} | {r['epochs']} | {len(r['seeds'])} | {side(r['lithe'])} "
            f"| {side(r['pytorch'])} | {r['difference']:+.2f} | {error} |"
        )
    return "\n".join(out)


def main() -> int:
    a = parse_arguments()
    failures = 0 if a.runs == "table" else run_jobs(a)
    results = read_results(a.results)
    rows = compare(results)
    print(markdown(rows), flush=True)
    for row in rows:
        if not row["same_rows_steps_and_tokens"]:
            print(f"glue: {row['task']}: the sides differ in rows, steps or tokens", flush=True)
    if a.json:
        a.json.write_text(json.dumps({"table": rows, "runs": results}, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
