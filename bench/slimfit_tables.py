#!/usr/bin/env python3
"""SlimFit's memory tables, planned: no weights, no data, no device.

    python bench/slimfit_tables.py > tables.md

Saved activations (the most of their class at any time in the step) of BERT-base and ViT-B/16 with the
original's formats, with Lithe's, and without codecs, beside what the paper's formulas give.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
H, LAYERS, HEADS = 768, 12, 12
# (model, batch, tokens, image, rates)
ROWS = (
    ("bert", 32, 128, 0, (0.80, 0.85, 0.90, 0.95)),
    ("bert", 32, 384, 0, (0.80, 0.95)),
    ("bert", 128, 128, 0, (0.80, 0.95)),
    ("bert", 128, 384, 0, (0.80, 0.85, 0.90, 0.95)),
    ("vit", 32, 197, 224, (0.75, 0.90)),
    ("vit", 128, 197, 224, (0.75, 0.90, 0.95)),
    ("vit", 128, 577, 384, (0.75, 0.90, 0.95)),
)
# How the columns are planned; fp32 unless bf16.
BASE = ("model.attention=unfused", "train.fuse=false", "freeze=off")
MASKS = 'codec.edges=["dropout_mask:bytes"]'
COLUMNS = {
    "exact": (*BASE,),
    "original": ("codecs=slimfit_original",),
    "slimfit": ("codecs=slimfit",),
    "slimfit bf16": ("codecs=slimfit", "train.compute=bf16"),
    "flash": ("codecs=none", "freeze=off"),
    "flash bf16": ("codecs=none", "freeze=off", "train.compute=bf16"),
}


def units(model: str, rate: float) -> int:
    t = 102 if model == "bert" else 100
    return t - int(rate * t)


def formula(model: str, batch: int, tokens: int, rate: float) -> dict[str, float]:
    """GB of saved activations by the formulas of SlimFit's memory model (fp32, H hidden, h heads)."""
    bert = model == "bert"
    k = units(model, rate)
    rows = batch * tokens
    floor = (9.6 if bert else 6.6) * H + HEADS * tokens + 8
    outside = 1.8 * H + 4 if bert else 4 * H + 8
    exact = (66 * H + 9 * HEADS * tokens if bert else 64 * H + 4 * HEADS * tokens) + 16
    exact_outside = 9 * H + 8 if bert else 8 * H + 8
    return {
        "exact": 1e-9 * rows * (LAYERS * exact + exact_outside),
        "original": 1e-9 * rows * (LAYERS * floor + outside + 4 * H * k),
    }


def planned(model: str, batch: int, image: int, tokens: int, keys: tuple[str, ...], train: str) -> dict:
    recipe = "configs/bench/bert_base_cls.yaml" if model == "bert" else "configs/bench/vit_b16.yaml"
    shape = [f"train.batch_size={batch}"]
    shape += [f"data.max_length={tokens}"] if model == "bert" else [f"model.vit.image_size={image}"]
    command = [train, str(ROOT / recipe), "--dry-run", "--json", "--device", "cuda", *shape, *keys]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", default=str(ROOT / "build/bin/train"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    work = []
    for model, batch, tokens, image, rates in ROWS:
        for rate in rates:
            for name, keys in COLUMNS.items():
                if name == "exact" and model == "bert":
                    keys = (*keys, MASKS)  # eager frameworks keep them
                frozen = () if "freeze=off" in keys else ("freeze.schedule=ils", f"freeze.fraction={rate}")
                work.append(((model, batch, tokens, rate), name, (model, batch, image, tokens, (*keys, *frozen))))
    # Columns without freezing are the same at every rate.
    known = {}
    with ThreadPoolExecutor(a.jobs) as pool:
        keys = sorted({w[2] for w in work})
        for key, result in zip(keys, pool.map(lambda w: planned(*w, a.train), keys)):
            known[key] = result
    rows = {}
    for row, name, key in work:
        rows.setdefault(row, {})[name] = known[key]
    print("Saved activations, GB (1e9 bytes); F: share of units frozen, k: units trained.\n")
    print("| model | B | T | F | k | exact: formula | planned | original: formula | planned | slimfit | slimfit bf16 "
          "| fused attention | the same, bf16 |")
    print("|---" * 13 + "|")
    report = []
    for (model, batch, tokens, rate), columns in rows.items():
        saved = {n: r["memory_most"]["saved_activations"] / 1e9 for n, r in columns.items()}
        f = formula(model, batch, tokens, rate)
        print(
            f"| {model} | {batch} | {tokens} | {rate:.2f} | {units(model, rate)} | {f['exact']:.3f} | "
            f"{saved['exact']:.3f} | {f['original']:.3f} | {saved['original']:.3f} | {saved['slimfit']:.3f} | "
            f"{saved['slimfit bf16']:.3f} | {saved['flash']:.3f} | {saved['flash bf16']:.3f} |"
        )
        report.append({"model": model, "batch": batch, "tokens": tokens, "fraction": rate, "formula": f, "saved": saved,
                       "peak": {n: r["predicted_peak_bytes"] / 1e9 for n, r in columns.items()}})
    print("\nPredicted peak of the whole step (weights, state, activations, workspace; without context), GB.\n")
    print("| model | B | T | F | exact | original | slimfit | slimfit bf16 | fused attention | the same, bf16 |")
    print("|---" * 10 + "|")
    for r in report:
        p = r["peak"]
        print(
            f"| {r['model']} | {r['batch']} | {r['tokens']} | {r['fraction']:.2f} | "
            + " | ".join(f"{p[n]:.2f}" for n in COLUMNS) + " |"
        )
    if a.json:
        a.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
