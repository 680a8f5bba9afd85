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
from dataclasses import dataclass
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


def ils(fraction: float, codecs: str = "slimfit", schedule: str = "ils") -> tuple[str, ...]:
    return (f"freeze.schedule={schedule}", f"freeze.fraction={fraction}", f"codecs={codecs}")


@dataclass(frozen=True)
class Method:
    name: str
    lr: str
    overrides: tuple[str, ...]


def methods(kind: str, layers: int, lr: str, ils_lr: list[str]) -> list[Method]:
    """Two thirds of the blocks are static in static freezing. Scheduled freezing comes once with each rate."""
    frozen = 2 * layers // 3
    lora = (
        "adapter.kind=lora",
        "adapter.rank=8",
        "adapter.alpha=16",
        "adapter.target=[query, key, value, attention.output.dense]",
    )
    static = (f"freeze.layers=0-{frozen - 1}", f'freeze.patterns=["{EMBEDDINGS[kind]}"]')
    biases = (f'freeze.all_but=["*.bias", "{HEADS[kind]}"]',)
    scheduled = {
        "ILS 0.80": ils(0.8),
        "ILS 0.90": ils(0.9),
        "ILS 0.95": ils(0.95),
        "ILS 0.90, no codecs": ils(0.9, "none"),
        "ILS 0.90, original codecs": ils(0.9, "slimfit_original"),
        "ILS 0.90, legacy momentum": (*ils(0.9), "freeze.legacy_momentum=true"),
        "ILS 0.90, head in every step": (*ils(0.9), f'freeze.always=["{HEADS[kind]}"]'),
        "random 0.90": ils(0.9, schedule="random"),
    }
    return [
        Method("full", lr, ()),
        Method("LoRA, rank 8, attention", "1e-3", lora),
        Method("biases and head", "1e-3", biases),
        Method(f"static, {frozen} of {layers} blocks", lr, static),
        *(Method(name, rate, keys) for rate in ils_lr for name, keys in scheduled.items()),
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["text", "image"])
    parser.add_argument("--model", type=Path, help="text: Hugging Face folder of a BERT")
    parser.add_argument("--data", type=Path, required=True, help="GLUE's or Fashion-MNIST's folder")
    parser.add_argument("--tasks", default=",".join(TASKS), help="text: which, in this order")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--lr", default="1e-4", help="of full and static fine-tuning (LoRA, biases: 1e-3)")
    parser.add_argument("--ils_lr", default="1e-4", help="of scheduled freezing: one or several, with commas")
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
                self.done[key_of(run)] = run
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
                "checkpoint.final=false",
            ]
        folder, _, epochs = TASKS[task]
        return "configs/quickstart/bert_sst2.yaml", [
            f"model.path={a.model}",
            f"data.path={a.data / folder}",
            f"data.task={task}",
            f"train.epochs={a.epochs or epochs}",
            "eval.every_steps=1000000",
            "checkpoint.every_steps=0",
            "checkpoint.final=false",
        ]

    def overrides(self, task: str, method: Method) -> tuple[str, list[str]]:
        recipe, shared = self.base(task)
        return recipe, [*shared, f"optimizer.lr={method.lr}", *method.overrides]

    def keep(self, task: str, method: Method, seed: int, summary: dict, figures: dict) -> None:
        run = {"task": task, "method": method.name, "lr": method.lr, "seed": seed, **figures}
        run |= {k: summary[k] for k in ("predicted_peak_bytes", "measured_peak_bytes", "memory", "device")}
        self.done[key_of(run)] = run
        with open(self.a.results, "a") as file:
            file.write(json.dumps(run) + "\n")

    def run(self, task: str, method: Method, seed: int) -> None:
        if (task, method.name, method.lr, seed) in self.done:
            return
        if self.a.limit and time.monotonic() - self.began > self.a.limit:
            return
        recipe, keys = self.overrides(task, method)
        name = f"{task}_{method.name}_{method.lr}_{seed}".replace(" ", "_").replace(",", "").replace("/", "-")
        try:
            summary = self.train(self.a.work / name, [*keys, f"seed={seed}"], recipe)
        except (RuntimeError, OSError, json.JSONDecodeError) as error:
            print(f"{task}, {method.name}, seed {seed}: {error}", file=sys.stderr, flush=True)
            return
        shutil.rmtree(self.a.work / name, ignore_errors=True)
        metric = "accuracy" if self.a.kind == "image" else TASKS[task][1]
        figures = {
            "metric": metric,
            "score": 100 * summary["metrics"][metric],
            "seconds": summary["times"]["total_s"],
        }
        self.keep(task, method, seed, summary, figures)

    def time_alone(self, task: str, method: Method) -> None:
        """One short run with the device to itself, for the step's time; no rate changes it."""
        if any(r["method"] == method.name and r["seed"] == 0 for r in self.done.values()):
            return
        recipe, keys = self.overrides(task, method)
        more = ["train.steps=60", "eval.every_steps=-1", "data.padding=fixed", "data.max_length=128"]
        more = more if self.a.kind == "text" else more[:2]
        summary = self.train(self.a.work / "timed", [*keys, *more], recipe)
        self.keep(task, method, 0, summary, {"step_ms": summary["times"]["step_ms_median"]})


def key_of(run: dict) -> tuple[str, str, str, int]:
    return run["task"], run["method"], run["lr"], run["seed"]


def table(done: dict, tasks: list[str], chosen: list[Method]) -> str:
    lines = ["| method | lr | " + " | ".join(tasks) + " | step, alone | saved activations | peak |"]
    lines.append("|---" * (len(tasks) + 5) + "|")
    runs = list(done.values())
    for method in chosen:
        cells = [method.lr]
        for task in tasks:
            wanted = (task, method.name, method.lr)
            scores = [r["score"] for r in runs if key_of(r)[:3] == wanted and r["seed"] > 0]
            if not scores:
                cells.append("not run")
                continue
            spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
            cells.append(f"{statistics.mean(scores):.2f}{spread} ({len(scores)})")
        # Its memory is alike in every run of a method; its time counts only alone.
        own = sorted((r for r in runs if r["method"] == method.name), key=lambda r: r["seed"])
        if own:
            cells.append(f"{own[0]['step_ms']:.2f} ms" if "step_ms" in own[0] else "not run")
            cells.append(f"{own[0]['memory']['saved_activations'] / 2**20:.1f} MiB")
            cells.append(f"{own[0]['measured_peak_bytes'] / 2**20:.1f} MiB")
        else:
            cells += ["not run"] * 3
        lines.append(f"| {method.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    a = arguments()
    tasks = ["fashion-mnist"] if a.kind == "image" else a.tasks.split(",")
    unknown = [t for t in tasks if a.kind == "text" and t not in TASKS]
    if unknown:
        raise SystemExit(f"unknown tasks {unknown}; known are {', '.join(TASKS)}")
    layers = 4 if a.kind == "image" else json.loads((a.model / "config.json").read_text())["num_hidden_layers"]
    chosen = methods(a.kind, layers, a.lr, a.ils_lr.split(","))
    if a.methods:
        chosen = [m for m in chosen if any(p in m.name for p in a.methods.split("|"))]
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
        for method in chosen:
            e.time_alone(tasks[0], method)
    # Seeds outside: cut off, all methods have had the same ones.
    work = [(t, m, s) for s in map(int, a.seeds.split(",")) for t in tasks for m in chosen]
    with ThreadPoolExecutor(a.jobs) as pool:
        list(pool.map(lambda item: e.run(*item), work))
    text = table(e.done, tasks, chosen)
    print(text)
    if a.table:
        a.table.write_text(text)
    if a.json:
        a.json.write_text(json.dumps({"runs": list(e.done.values())}, indent=1) + "\n")
    missing = [(t, m.name, m.lr, s) for t, m, s in work if (t, m.name, m.lr, s) not in e.done]
    if missing:
        print(f"{len(missing)} of {len(work)} runs are missing: {missing[:5]}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main())
