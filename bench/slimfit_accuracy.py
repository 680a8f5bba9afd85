#!/usr/bin/env python3
"""Fine-tunes one start with several methods and seeds and compares what comes out: full fine-tuning, LoRA,
biases only, static freezing, SlimFit's inter-layer scheduler at three rates with and without codecs, and a
random schedule.

    python bench/slimfit_accuracy.py text  --model models/minilm --data data/glue --device cuda --jobs 8
    python bench/slimfit_accuracy.py image --data data/fashion-mnist --device cuda --jobs 8

text: a pretrained BERT on GLUE tasks. image: a small ViT that Lithe first trains on one half of Fashion-MNIST's
training images (--pretrain_epochs) and then fine-tunes on the other half; evaluated on the test images.
Accuracy runs share the device; before them each method's step is timed alone. Each result is appended to
--results as soon as its run ends, and what is there is not run again. Ends with a Markdown table (--table), mean
and standard deviation over the seeds, and --json.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# task: (folder of GLUE, main metric, epochs)
TASKS = {
    "rte": ("RTE", "accuracy", 3),
    "mrpc": ("MRPC", "accuracy", 3),
    "cola": ("CoLA", "matthews", 3),
    "sst2": ("SST-2", "accuracy", 1),
}
HEADS = {"text": "classifier.*", "image": "classifier.*"}
EMBEDDINGS = {"text": "bert.embeddings.*", "image": "vit.embeddings.*"}


def ils(fraction: float, codecs: str = "slimfit", schedule: str = "ils") -> list[str]:
    return [f"freeze.schedule={schedule}", f"freeze.fraction={fraction}", f"codecs={codecs}"]


def methods(kind: str, layers: int) -> dict[str, list[str]]:
    """Overrides of each method. Two thirds of the blocks are static in static freezing."""
    frozen = 2 * layers // 3
    return {
        "full": [],
        "LoRA, rank 8, attention": [
            "adapter.kind=lora",
            "adapter.rank=8",
            "adapter.alpha=16",
            "adapter.target=[query, key, value, attention.output.dense]",
            "optimizer.lr=1e-3",
        ],
        "biases and head": [
            f'freeze.all_but=["*.bias", "{HEADS[kind]}"]',
            "optimizer.lr=1e-3",
        ],
        f"static, {frozen} of {layers} blocks": [
            f"freeze.layers=0-{frozen - 1}",
            f'freeze.patterns=["{EMBEDDINGS[kind]}"]',
        ],
        "ILS 0.80": ils(0.8),
        "ILS 0.90": ils(0.9),
        "ILS 0.95": ils(0.95),
        "ILS 0.90, no codecs": ils(0.9, "none"),
        "ILS 0.90, original codecs": ils(0.9, "slimfit_original"),
        "random 0.90": ils(0.9, "slimfit", "random"),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["text", "image"])
    parser.add_argument("--model", type=Path, help="text: Hugging Face folder of a BERT")
    parser.add_argument("--data", type=Path, required=True, help="GLUE's or Fashion-MNIST's folder")
    parser.add_argument("--tasks", default=",".join(TASKS), help="text: which, in this order")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--lr", default="1e-4", help="of all methods but LoRA and biases (1e-3)")
    parser.add_argument("--epochs", type=int, default=0, help="0: the task's own, 3 for images")
    parser.add_argument("--pretrain_epochs", type=int, default=10)
    parser.add_argument("--methods", default="", help="only those that contain one of these, with |")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="accuracy runs at a time")
    parser.add_argument("--limit", type=float, default=0, help="start no run after so many seconds")
    parser.add_argument("--no_times", action="store_true", help="do not time each method alone")
    parser.add_argument("--build", type=Path, default=ROOT / "build/bin")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/slimfit_accuracy")
    parser.add_argument("--results", type=Path, help="default: WORK/KIND.jsonl")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="default: print only")
    a = parser.parse_args()
    if a.kind == "text" and a.model is None:
        parser.error("text needs --model")
    a.results = a.results or a.work / f"{a.kind}.jsonl"
    return a


def idx_half(source: Path, target: Path, half: int) -> None:
    """Every second item of an IDX file, from item `half` on."""
    with gzip.open(source, "rb") as file:
        data = file.read()
    rank = data[3]
    sizes = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    item = len(data[4 + 4 * rank :]) // sizes[0]
    body = data[4 + 4 * rank :]
    kept = b"".join(body[i * item : (i + 1) * item] for i in range(half, sizes[0], 2))
    head = data[:4] + struct.pack(f">{rank}I", len(range(half, sizes[0], 2)), *sizes[1:])
    with gzip.open(target, "wb", compresslevel=1) as file:
        file.write(head + kept)


def halves(data: Path, work: Path) -> list[Path]:
    out = []
    for half in (0, 1):
        folder = work / f"half{half}"
        out.append(folder)
        if (folder / "done").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
            idx_half(data / name, folder / name, half)
        for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
            shutil.copy(data / name, folder / name)
        (folder / "done").touch()
    return out


class Experiments:
    def __init__(self, a: argparse.Namespace):
        self.a = a
        self.began = time.monotonic()
        self.done = {}
        if a.results.exists():
            for line in a.results.read_text().splitlines():
                run = json.loads(line)
                self.done[run["task"], run["method"], run["seed"]] = run
        a.results.parent.mkdir(parents=True, exist_ok=True)

    def train(self, out: Path, overrides: list[str], recipe: str) -> dict:
        command = [str(self.a.build / "train"), str(ROOT / recipe), "--out", str(out), "--overwrite"]
        command += ["--device", self.a.device, *overrides]
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out.with_suffix(".txt"), "wb") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT).returncode
        if code != 0:
            tail = out.with_suffix(".txt").read_text(errors="replace")[-600:]
            raise RuntimeError(f"{' '.join(command)} ended with {code}: {tail}")
        return json.loads((out / "summary.json").read_text())

    def base(self, task: str) -> tuple[str, list[str]]:
        """Recipe and overrides that all methods share."""
        a = self.a
        if a.kind == "image":
            return "configs/quickstart/vit_fashion_mnist.yaml", [
                f"data.path={a.work / 'half1'}",
                f"model.path={a.work / 'pretrained/model'}",
                "model.weights=pretrained",
                f"train.epochs={a.epochs or 3}",
                f"optimizer.lr={a.lr}",
                "checkpoint.final=false",
            ]
        folder, _, epochs = TASKS[task]
        return "configs/quickstart/bert_sst2.yaml", [
            f"model.path={a.model}",
            f"data.path={a.data / folder}",
            f"data.task={task}",
            f"train.epochs={a.epochs or epochs}",
            f"optimizer.lr={a.lr}",
            "eval.every_steps=1000000",
            "checkpoint.every_steps=0",
            "checkpoint.final=false",
        ]

    def run(self, task: str, method: str, overrides: list[str], seed: int) -> None:
        if (task, method, seed) in self.done:
            return
        if self.a.limit and time.monotonic() - self.began > self.a.limit:
            return
        recipe, shared = self.base(task)
        name = f"{task}_{method}_{seed}".replace(" ", "_").replace(",", "").replace("/", "-")
        try:
            summary = self.train(self.a.work / name, [*shared, *overrides, f"seed={seed}"], recipe)
        except (RuntimeError, OSError, json.JSONDecodeError) as error:
            print(f"{task}, {method}, seed {seed}: {error}", file=sys.stderr, flush=True)
            return
        shutil.rmtree(self.a.work / name, ignore_errors=True)
        metric = "accuracy" if self.a.kind == "image" else TASKS[task][1]
        run = {
            "task": task,
            "method": method,
            "seed": seed,
            "metric": metric,
            "score": 100 * summary["metrics"][metric],
            "predicted_peak_bytes": summary["predicted_peak_bytes"],
            "measured_peak_bytes": summary["measured_peak_bytes"],
            "memory": summary["memory"],
            "seconds": summary["times"]["total_s"],
            "device": summary["device"],
        }
        self.done[task, method, seed] = run
        with open(self.a.results, "a") as file:
            file.write(json.dumps(run) + "\n")

    def time_alone(self, task: str, method: str, overrides: list[str]) -> None:
        """One short run with the device to itself, for the step's time."""
        key = (task, method, 0)
        if key in self.done:
            return
        recipe, shared = self.base(task)
        more = ["train.steps=60", "eval.every_steps=-1", "data.padding=fixed", "data.max_length=128"]
        more = more if self.a.kind == "text" else more[:2]
        summary = self.train(self.a.work / "timed", [*shared, *overrides, *more], recipe)
        run = {
            "task": task,
            "method": method,
            "seed": 0,
            "step_ms": summary["times"]["step_ms_median"],
            "measured_peak_bytes": summary["measured_peak_bytes"],
            "predicted_peak_bytes": summary["predicted_peak_bytes"],
            "memory": summary["memory"],
            "device": summary["device"],
        }
        self.done[key] = run
        with open(self.a.results, "a") as file:
            file.write(json.dumps(run) + "\n")


def table(done: dict, tasks: list[str], names: list[str]) -> str:
    lines = ["| method | " + " | ".join(tasks) + " | step, alone | saved activations | peak |"]
    lines.append("|---" * (len(tasks) + 4) + "|")
    for name in names:
        cells = []
        for task in tasks:
            scores = [r["score"] for (t, m, s), r in done.items() if (t, m) == (task, name) and s > 0]
            if not scores:
                cells.append("not run")
                continue
            spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
            cells.append(f"{statistics.mean(scores):.2f}{spread} ({len(scores)})")
        timed = next((r for (_, m, s), r in done.items() if m == name and s == 0), None)
        if timed:
            saved = timed["memory"]["saved_activations"] / 2**20
            cells.append(f"{timed['step_ms']:.2f} ms")
            cells.append(f"{saved:.1f} MiB")
            cells.append(f"{timed['measured_peak_bytes'] / 2**20:.1f} MiB")
        else:
            cells += ["not run"] * 3
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    a = arguments()
    tasks = ["fashion-mnist"] if a.kind == "image" else a.tasks.split(",")
    unknown = [t for t in tasks if a.kind == "text" and t not in TASKS]
    if unknown:
        raise SystemExit(f"unknown tasks {unknown}; known are {', '.join(TASKS)}")
    layers = 4 if a.kind == "image" else json.loads((a.model / "config.json").read_text())["num_hidden_layers"]
    chosen = methods(a.kind, layers)
    if a.methods:
        chosen = {k: v for k, v in chosen.items() if any(p in k for p in a.methods.split("|"))}
    e = Experiments(a)
    a.work.mkdir(parents=True, exist_ok=True)
    if a.kind == "image":
        first, _ = halves(a.data, a.work)
        if not (a.work / "pretrained/model/config.json").exists():
            summary = e.train(
                a.work / "pretrained",
                [f"data.path={first}", f"train.epochs={a.pretrain_epochs}", "seed=1"],
                "configs/quickstart/vit_fashion_mnist.yaml",
            )
            print(f"start: {100 * summary['metrics']['accuracy']:.2f} % after {a.pretrain_epochs} epochs")
    if not a.no_times:
        for name, overrides in chosen.items():
            e.time_alone(tasks[0], name, overrides)
    # Seeds outside: cut off, all methods have had the same ones.
    work = [(t, n, o, s) for s in map(int, a.seeds.split(",")) for t in tasks for n, o in chosen.items()]
    with ThreadPoolExecutor(a.jobs) as pool:
        list(pool.map(lambda item: e.run(*item), work))
    text = table(e.done, tasks, list(chosen))
    print(text)
    if a.table:
        a.table.write_text(text)
    if a.json:
        a.json.write_text(json.dumps({"runs": list(e.done.values())}, indent=1) + "\n")
    missing = [w[:2] + (w[3],) for w in work if (w[0], w[1], w[3]) not in e.done]
    if missing:
        print(f"{len(missing)} of {len(work)} runs are missing: {missing[:5]}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main())
