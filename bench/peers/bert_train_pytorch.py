#!/usr/bin/env python3
"""Training step of transformers' BERT in PyTorch, as a peer for Lithe's benchmarks.

Measures forward, backward and AdamW on synthetic data and prints one JSON line. Example:

    python bert_train_pytorch.py --hidden 384 --layers 6 --heads 12 --intermediate 1536 --batch 32 \
        --tokens 128 --threads 2

train_pytorch.py runs many such cases in one process.
"""

import argparse
import fnmatch
import json

import train_step_pytorch as train_step


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
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
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--head", choices=["cls", "qa"], default="cls", help="classes of a text, or a span in it"
    )
    parser.add_argument(
        "--freeze_blocks", type=int, default=0, help="freeze the embeddings and the first N blocks"
    )
    parser.add_argument(
        "--frozen", default="", help="comma-separated parameters to freeze as well; * and ? allowed"
    )
    parser.add_argument("--head_only", action="store_true", help="freeze all but the head")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--no_mask", action="store_true", help="give no attention mask")
    train_step.add_run_arguments(parser)
    return parser.parse_args(arguments)


def build_model(a: argparse.Namespace):
    from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification

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
    head = BertForQuestionAnswering if a.head == "qa" else BertForSequenceClassification
    model = head(config).to(a.device).train()
    if a.checkpoint:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    prefixes = ["bert.embeddings."] + [f"bert.encoder.layer.{i}." for i in range(a.freeze_blocks)]
    extra = list(filter(None, a.frozen.split(","))) + (["bert.*"] if a.head_only else [])
    for name, parameter in model.named_parameters():
        chosen = any(fnmatch.fnmatchcase(name, pattern) for pattern in extra)
        if chosen or (a.freeze_blocks and name.startswith(tuple(prefixes))):
            parameter.requires_grad_(False)
    return model


def build_optimizer(model):
    import torch

    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = ("bias", "LayerNorm.weight")
    groups = [
        {
            "params": [p for n, p in trained if n.endswith(plain) == is_plain],
            "weight_decay": 0.0 if is_plain else 0.01,
        }
        for is_plain in (False, True)
    ]
    return torch.optim.AdamW(groups, lr=1e-4, fused=True)


def make_batches(a: argparse.Namespace) -> list:
    """Token ids with labels, or with the positions of the span's ends."""
    import torch

    limits = (a.labels,) if a.head == "cls" else (a.tokens, a.tokens)
    return [
        (
            torch.randint(a.vocabulary, (a.batch, a.tokens)).to(a.device),
            *(torch.randint(limit, (a.batch,)).to(a.device) for limit in limits),
        )
        for _ in range(4)
    ]


def measure(a: argparse.Namespace) -> dict:
    import torch
    import transformers

    train_step.prepare(a)
    model = build_model(a)
    mask = torch.ones(a.batch, a.tokens, dtype=torch.int64, device=a.device)
    mask = None if a.no_mask else mask
    names = ("labels",) if a.head == "cls" else ("start_positions", "end_positions")

    def loss_of(ids, *targets):
        labels = dict(zip(names, targets, strict=True))
        return model(input_ids=ids, attention_mask=mask, **labels).loss

    result = train_step.measure(a, loss_of, build_optimizer(model), make_batches(a))
    about = {"transformers": transformers.__version__, "attention": a.attention}
    return result | about | train_step.count_parameters(model) | {"arguments": vars(a)}


if __name__ == "__main__":
    print(json.dumps(measure(parse_arguments())), flush=True)
