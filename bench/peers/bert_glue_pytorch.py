#!/usr/bin/env python3
"""Fine-tunes a BERT checkpoint on a GLUE task in PyTorch and transformers, as a peer for Lithe's runs.

The same hyper-parameters as the recipe configs/quickstart/bert_sst2.yaml: AdamW, linear schedule
with warm-up, dropout as in the checkpoint, batches padded to their longest row, and the metric on
the dev set after the last epoch. fp32 throughout, without TF32. Prints one JSON line. Example:

    python bert_glue_pytorch.py --model MINILM --data glue/RTE --task rte --group_by_length --seed 1
"""

import argparse
import json
import math
import time
from pathlib import Path

# task: (first column, second column, label column, label names or None for a number)
TASKS = {
    "cola": (3, None, 1, ["0", "1"]),
    "sst2": ("sentence", None, "label", ["0", "1"]),
    "mrpc": ("#1 String", "#2 String", "Quality", ["0", "1"]),
    "rte": ("sentence1", "sentence2", "label", ["entailment", "not_entailment"]),
    "stsb": ("sentence1", "sentence2", "score", None),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the checkpoint")
    parser.add_argument("--data", required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--warmup_ratio", type=float, default=0.06)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--group_by_length", action="store_true", help="batches of similar length, as data.group_by_length"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, default=0, help="stop early, for a try")
    return parser.parse_args()


def read_task(path: Path, task: str):
    first, second, label, names = TASKS[task]
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
    if isinstance(first, str):
        header, rows = rows[0], rows[1:]
        first, label = header.index(first), header.index(label)
        second = header.index(second) if second else None
    texts = [row[first] for row in rows]
    pairs = [row[second] for row in rows] if second is not None else None
    labels = [names.index(row[label]) if names else float(row[label]) for row in rows]
    return texts, pairs, labels


def epoch_order(lengths, batch, grouped, generator):
    """A random order; grouped: runs of 50 batches sorted by length, then the full batches shuffled."""
    import torch

    order = torch.randperm(len(lengths), generator=generator).tolist()
    if not grouped:
        return order
    full = len(order) // batch
    rest = order[full * batch :]
    run = 50 * batch
    ordered = []
    for begin in range(0, full * batch, run):
        ordered += sorted(order[begin : min(begin + run, full * batch)], key=lengths.__getitem__)
    batches = torch.randperm(full, generator=generator).tolist()
    return [i for b in batches for i in ordered[b * batch : (b + 1) * batch]] + rest


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    out = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for i in order[start : end + 1]:
            out[i] = (start + end) / 2
        start = end + 1
    return out


def pearson(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y))
    return top / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def metrics(task, outputs, labels):
    if task == "stsb":
        return {"pearson": pearson(outputs, labels), "spearman": pearson(ranks(outputs), ranks(labels))}
    tp = sum(p == 1 and y == 1 for p, y in zip(outputs, labels))
    tn = sum(p == 0 and y == 0 for p, y in zip(outputs, labels))
    fp = sum(p == 1 and y == 0 for p, y in zip(outputs, labels))
    fn = sum(p == 0 and y == 1 for p, y in zip(outputs, labels))
    bottom = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": (tp + tn) / len(labels),
        "f1": 2 * tp / max(1, 2 * tp + fp + fn),
        "matthews": (tp * tn - fp * fn) / bottom if bottom else 0.0,
    }


def main() -> None:
    a = parse_arguments()
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    regression = TASKS[a.task][3] is None
    model = AutoModelForSequenceClassification.from_pretrained(
        a.model, num_labels=1 if regression else 2, dtype=torch.float32
    ).to(a.device)
    data = {}
    for split in ("train", "dev"):
        texts, pairs, labels = read_task(Path(a.data) / f"{split}.tsv", a.task)
        encoded = tokenizer(texts, pairs, truncation=True, max_length=a.max_length, padding=False)
        data[split] = (encoded, labels)

    def batch(split, indices):
        encoded, labels = data[split]
        fields = {
            k: [encoded[k][i] for i in indices]
            for k in ("input_ids", "token_type_ids", "attention_mask")
        }
        inputs = tokenizer.pad(fields, return_tensors="pt")
        kind = torch.float32 if regression else torch.int64
        return (
            {k: v.to(a.device) for k, v in inputs.items()},
            torch.tensor([labels[i] for i in indices], dtype=kind, device=a.device),
        )

    plain = ("bias", "LayerNorm.weight")
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if n.endswith(plain) == is_plain],
            "weight_decay": 0.0 if is_plain else a.weight_decay,
        }
        for is_plain in (False, True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=a.lr)
    size = len(data["train"][1])
    lengths = [len(ids) for ids in data["train"][0]["input_ids"]]
    per_epoch = -(-size // a.batch)
    total = a.epochs * per_epoch
    warmup = int(a.warmup_ratio * total)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: s / max(1, warmup) if s < warmup else max(0.0, (total - s) / max(1, total - warmup)),
    )
    generator = torch.Generator().manual_seed(a.seed)
    start, done, loss = time.perf_counter(), 0, None
    for _ in range(a.epochs):
        model.train()
        order = epoch_order(lengths, a.batch, a.group_by_length, generator)
        for begin in range(0, size, a.batch):
            inputs, labels = batch("train", order[begin : begin + a.batch])
            loss = model(**inputs, labels=labels).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
            if done == a.steps:
                break
        if done == a.steps:
            break
    seconds = time.perf_counter() - start
    model.eval()
    outputs = []
    with torch.no_grad():
        count = len(data["dev"][1])
        for begin in range(0, count, 64):
            inputs, _ = batch("dev", range(begin, min(begin + 64, count)))
            logits = model(**inputs).logits
            outputs += (logits[:, 0] if regression else logits.argmax(-1)).tolist()
    result = {
        "peer": "pytorch",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name() if a.device == "cuda" else "cpu",
        "task": a.task,
        "seed": a.seed,
        "rows": [len(data[s][1]) for s in ("train", "dev")],
        "mean_tokens": [
            round(sum(map(len, data[s][0]["input_ids"])) / len(data[s][1]), 1) for s in ("train", "dev")
        ],
        "metrics": metrics(a.task, outputs, data["dev"][1]),
        "train_loss": float(loss),
        "steps": done,
        "train_s": round(seconds, 2),
        "arguments": {k: v for k, v in vars(a).items() if k not in ("model", "data")},
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
