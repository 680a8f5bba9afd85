#!/usr/bin/env python3
"""Training step of transformers' BERT classifier in PyTorch, as a peer for Lithe's benchmarks.

Measures forward, backward and AdamW on synthetic data and prints one JSON line. Example:

    python bert_train_pytorch.py --hidden 384 --layers 6 --heads 12 --intermediate 1536 --batch 32 \
        --tokens 128 --threads 2
"""

import argparse
import contextlib
import fnmatch
import json
import os
import resource
import statistics
import time


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("hidden", 768),
        ("layers", 12),
        ("heads", 12),
        ("intermediate", 3072),
        ("vocabulary", 30522),
        ("labels", 2),
        ("batch", 32),
        ("tokens", 128),
        ("steps", 10),
        ("warmup", 3),
        ("threads", 2),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--freeze_blocks", type=int, default=0, help="freeze the embeddings and the first N blocks"
    )
    parser.add_argument(
        "--frozen", default="", help="comma-separated parameters to freeze as well; * and ? allowed"
    )
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="bfloat16: autocast over float32 weights",
    )
    parser.add_argument("--tf32", action="store_true", help="TF32 for float32 products on cuda")
    return parser.parse_args()


def peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    a = parse_arguments()
    import torch
    import transformers
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    config = BertConfig(
        hidden_size=a.hidden,
        num_hidden_layers=a.layers,
        num_attention_heads=a.heads,
        intermediate_size=a.intermediate,
        vocab_size=a.vocabulary,
        num_labels=a.labels,
        hidden_dropout_prob=a.dropout,
        attention_probs_dropout_prob=a.dropout,
        attn_implementation=a.attention,
    )
    torch.backends.cuda.matmul.allow_tf32 = a.tf32
    torch.backends.cudnn.allow_tf32 = a.tf32
    model = BertForSequenceClassification(config).to(a.device).train()
    prefixes = tuple(["bert.embeddings."] + [f"bert.encoder.layer.{i}." for i in range(a.freeze_blocks)])
    extra = list(filter(None, a.frozen.split(",")))
    for name, parameter in model.named_parameters():
        chosen = any(fnmatch.fnmatchcase(name, pattern) for pattern in extra)
        if chosen or (a.freeze_blocks and name.startswith(prefixes)):
            parameter.requires_grad_(False)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = ("bias", "LayerNorm.weight")
    groups = [
        {
            "params": [p for n, p in trained if n.endswith(plain) == is_plain],
            "weight_decay": 0.0 if is_plain else 0.01,
        }
        for is_plain in (False, True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    data = [
        (
            torch.randint(a.vocabulary, (a.batch, a.tokens)).to(a.device),
            torch.randint(a.labels, (a.batch,)).to(a.device),
        )
        for _ in range(4)
    ]
    mask = torch.ones(a.batch, a.tokens, dtype=torch.int64, device=a.device)
    cuda = a.device == "cuda"
    cast = (
        torch.autocast(a.device, dtype=torch.bfloat16)
        if a.dtype == "bfloat16"
        else contextlib.nullcontext()
    )
    before, load = peak_rss_bytes(), os.getloadavg()[0]
    times = []
    for step in range(a.warmup + a.steps):
        ids, labels = data[step % len(data)]
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with cast:
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        if step >= a.warmup:
            times.append(1e3 * (time.perf_counter() - start))
    median = statistics.median(times)
    print(
        json.dumps(
            {
                "peer": "pytorch",
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "threads": torch.get_num_threads(),
                "attention": a.attention,
                "device": torch.cuda.get_device_name() if cuda else "cpu",
                "dtype": a.dtype,
                "median_ms": round(median, 2),
                "min_ms": round(min(times), 2),
                "samples_per_s": round(1e3 * a.batch / median, 2),
                "peak_rss_bytes": peak_rss_bytes(),
                "peak_rss_before_steps_bytes": before,
                "cuda_peak_allocated_bytes": torch.cuda.max_memory_allocated() if cuda else None,
                "load_average_before": round(load, 2),
                "parameters": sum(p.numel() for p in model.parameters()),
                "trained_parameters": sum(p.numel() for _, p in trained),
                "trained_tensors": len(trained),
                "tensors": len(list(model.parameters())),
                "arguments": vars(a),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
