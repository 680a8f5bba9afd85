#!/usr/bin/env python3
"""Memory and time of SlimFit's steps in real runs of `train`, with made-up data and random weights.

    python bench/slimfit_steps.py --device cuda --out build/bench

Each case is a run of --steps steps: units are chosen, graphs planned and launched as in any run. Writes
OUT/slimfit_steps.json and OUT/slimfit_steps.md: planned and measured peak, bytes by class, median step, and
the time over that of the case named beside it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Case:
    name: str
    recipe: str
    overrides: tuple[str, ...]
    over: tuple[str, ...] = ()  # the cases that its time is compared with


def ils(fraction: float, *more: str) -> tuple[str, ...]:
    return ("freeze.schedule=ils", f"freeze.fraction={fraction}", "freeze.lag=1", *more)


def timed(model: str, recipe: str, shape: tuple[str, ...]) -> list[Case]:
    """Full fine-tuning, SlimFit at 0.95, and what each codec costs there."""
    base = (*shape, "train.compute=bf16")
    full = f"{model}, full"
    plain = f"{model}, ILS 0.95"
    codec = {
        "slimfit": ("codecs=slimfit",),
        "its int8 alone": (
            'codec.edges=["attention:int8/64", "attention_output:derive", "activation_output:int8/64"]',
        ),
        "its 4 bits alone": ('codec.edges=["gelu_input:q2.1", "frozen_norm_input:int4/64"]',),
        "all int8": ('codec.edges=["any:int8/64"]',),
        "all int4": ('codec.edges=["any:int4/64"]',),
        "codec recompute": ('codec.edges=["any:recompute"]',),
        "codec offload": ('codec.edges=["any:offload"]',),
        "8-bit state": ("optimizer.adamw.state=int8",),
    }
    cases = [
        Case(full, recipe, base),
        Case(f"{model}, full, recompute", recipe, (*base, "recompute=on"), (full,)),
        Case(plain, recipe, (*base, *ils(0.95)), (full,)),
        Case(f"{plain}, recompute", recipe, (*base, *ils(0.95, "recompute=on")), (plain,)),
    ]
    for name, keys in codec.items():
        cases.append(Case(f"{plain}, {name}", recipe, (*base, *ils(0.95, *keys)), (plain, full)))
    return cases


BERT = "configs/bench/bert_base_cls.yaml"
QA = "configs/bench/bert_base_qa.yaml"
VIT = "configs/bench/vit_b16.yaml"
QA_128 = ("train.batch_size=128", "data.synthetic_size=1280", "model.bert.vocab_size=30522")
VIT_384 = ("train.batch_size=128", "model.vit.image_size=384", "data.synthetic_size=512", "data.threads=8")
MEMORY = [
    Case(f"{name}, {dtype}, {codecs}", recipe, (*shape, *keys, f"train.compute={dtype}", f"codecs={codecs}"))
    for name, recipe, shape, keys in (
        ("SQuAD B128 T384 F=0.80", QA, QA_128, ils(0.8)),
        ("ViT-384 B128 F=0.95", VIT, VIT_384, ils(0.95)),
        ("GLUE B32 T128 F=0.95", BERT, (), ils(0.95)),
    )
    for dtype in ("fp32", "bf16")
    for codecs in ("slimfit",)
]
CASES = [
    *timed("QA 32x384", QA, ("train.batch_size=32", "data.synthetic_size=320")),
    *timed("ViT-B/16 128", VIT, ("data.threads=8",)),  # one thread makes images too slowly
    *MEMORY,
]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--build", type=Path, default=ROOT / "build/bin")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cases", default="", help="only names that contain one of these, with |; a $ is the end of a name")
    parser.add_argument("--limit", type=float, default=600, help="start no run after so many seconds")
    return parser.parse_args()


def run(case: Case, a: argparse.Namespace, folder: Path) -> dict:
    steps = max(8, a.steps // 4) if case in MEMORY else a.steps
    command = [str(a.build / "train"), str(ROOT / case.recipe), "--out", str(folder), "--overwrite"]
    command += ["--device", a.device, *case.overrides, f"train.steps={steps}", "checkpoint.final=false"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        return {"error": (done.stderr.strip() or done.stdout[-300:])[-600:]}
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "step_ms": summary["times"]["step_ms_median"],
        "predicted_peak_bytes": summary["predicted_peak_bytes"],
        "measured_peak_bytes": summary["measured_peak_bytes"],
        "memory": summary["memory"],
        "device": summary["device"],
    }


def table(results: dict[str, dict]) -> str:
    head = ["run", "step", "over", "planned peak", "measured", "saved activations", "state", "temporaries"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case in CASES:
        r = results.get(case.name, {"error": "not run"})
        if "error" in r:
            lines.append(f"| {case.name} | {r['error'][:120]} |" + " |" * (len(head) - 2))
            continue
        bases = {name: results.get(name, {}).get("step_ms") for name in case.over}
        over = ", ".join(f"{r['step_ms'] / ms:.3f} x {name}" for name, ms in bases.items() if ms)
        m = {k: v / 1e9 for k, v in r["memory"].items()}
        lines.append(
            f"| {case.name} | {r['step_ms']:.2f} ms | {over} | {r['predicted_peak_bytes'] / 1e9:.3f} GB | "
            f"{r['measured_peak_bytes'] / 1e9:.3f} GB | {m['saved_activations']:.3f} | "
            f"{m['weights'] + m['optimizer'] + m['gradients']:.3f} | {m['temporaries'] + m['workspace']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    a = arguments()
    began = time.monotonic()
    wanted = [p for p in a.cases.split("|") if p]
    results = {}
    work = Path(tempfile.mkdtemp(prefix="slimfit_steps_"))
    try:
        for case in CASES:
            if wanted and not any(p in f"{case.name}$" for p in wanted):
                continue
            if time.monotonic() - began > a.limit:
                results[case.name] = {"error": "not run: the time was up"}
                continue
            results[case.name] = run(case, a, work / "run")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "slimfit_steps.json").write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    (a.out / "slimfit_steps.md").write_text(text)
    print(text)
    return 1 if any("error" in r for r in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
