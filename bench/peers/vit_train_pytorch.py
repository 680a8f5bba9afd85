#!/usr/bin/env python3
"""Training step of a ViT classifier in plain PyTorch, as a peer for Lithe's benchmarks.

Measures forward, backward and AdamW on synthetic data and prints one JSON line. Example:

    python vit_train_pytorch.py --image 28 --patch 4 --channels 1 --hidden 96 --layers 4 --heads 4 \
        --intermediate 384 --labels 10 --batch 128 --steps 30 --warmup 5 --threads 2

train_pytorch.py runs many such cases in one process.
"""

import argparse
import json
import os
import subprocess
import sys

import train_step_pytorch as train_step


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("image", 224),
        ("patch", 16),
        ("channels", 3),
        ("hidden", 768),
        ("layers", 12),
        ("heads", 12),
        ("intermediate", 3072),
        ("labels", 1000),
        ("batch", 8),
        ("steps", 20),
        ("warmup", 5),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--freeze_blocks", type=int, default=0, help="freeze the embeddings and the first N blocks"
    )
    parser.add_argument(
        "--attention",
        choices=["auto", "sdpa", "eager"],
        default="auto",
        help="auto: time both in processes of their own, keep the faster",
    )
    train_step.add_run_arguments(parser)
    a = parser.parse_args(arguments)
    if a.image % a.patch or a.hidden % a.heads:
        parser.error("--image must be a multiple of --patch, and --hidden of --heads")
    if a.steps < 1 or not 0 <= a.freeze_blocks <= a.layers:
        parser.error("--steps must be at least 1, --freeze_blocks between 0 and --layers")
    return a


def tokens(a: argparse.Namespace) -> int:
    return (a.image // a.patch) ** 2 + 1


def step_flops(a: argparse.Namespace) -> int:
    """Matrix products of one step: forward, plus the gradients that are really computed."""
    count = tokens(a)
    linear = 2 * a.batch * count * (4 * a.hidden**2 + 2 * a.hidden * a.intermediate)
    attention = 2 * 2 * a.batch * count**2 * a.hidden
    trained = a.layers - a.freeze_blocks
    patches = 2 * a.batch * (count - 1) * a.channels * a.patch**2 * a.hidden
    head = 2 * a.batch * a.hidden * a.labels
    blocks = (linear + attention) * (a.layers + 2 * trained)
    # The pixels need no gradient, so the trained patch projection costs twice its forward.
    return blocks + patches * (1 if a.freeze_blocks else 2) + 3 * head


def faster_attention() -> dict[str, float]:
    """Fastest step in ms with each attention; processes of their own keep our peak clean.

    The fastest, not the median: other load on the machine must not choose.
    """
    times = {}
    for attention in ("sdpa", "eager"):
        command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:]]
        command += ["--attention", attention, "--steps", "8", "--warmup", "2"]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if result.returncode == 0:
            times[attention] = json.loads(result.stdout.splitlines()[-1])["min_ms"]
    if not times:
        raise SystemExit("neither attention ran; see the errors above")
    return times


def build_model(a: argparse.Namespace, attention: str):
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.checkpoint import checkpoint

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(a.hidden, 3 * a.hidden)
            self.out = nn.Linear(a.hidden, a.hidden)

        def forward(self, x):
            batch, count, hidden = x.shape
            qkv = self.qkv(x).view(batch, count, 3, a.heads, hidden // a.heads)
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            if attention == "sdpa":
                y = F.scaled_dot_product_attention(query, key, value)
            else:
                query = query * (hidden // a.heads) ** -0.5
                y = (query @ key.transpose(-2, -1)).softmax(dim=-1) @ value
            return self.out(y.transpose(1, 2).reshape(batch, count, hidden))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(a.hidden, eps=1e-12)
            self.attention = Attention()
            self.norm2 = nn.LayerNorm(a.hidden, eps=1e-12)
            self.mlp = nn.Sequential(
                nn.Linear(a.hidden, a.intermediate), nn.GELU(), nn.Linear(a.intermediate, a.hidden)
            )

        def forward(self, x):
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class VisionTransformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(a.channels, a.hidden, a.patch, stride=a.patch)
            self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, a.hidden))
            self.position = nn.Parameter(0.02 * torch.randn(1, tokens(a), a.hidden))
            self.blocks = nn.ModuleList(Block() for _ in range(a.layers))
            self.norm = nn.LayerNorm(a.hidden, eps=1e-12)
            self.head = nn.Linear(a.hidden, a.labels)

        def forward(self, pixels):
            x = self.patches(pixels).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False) if a.checkpoint else block(x)
            return self.head(self.norm(x[:, 0]))

    model = VisionTransformer()
    if a.freeze_blocks:
        frozen = [*model.patches.parameters(), model.cls_token, model.position]
        frozen += [p for block in model.blocks[: a.freeze_blocks] for p in block.parameters()]
        for parameter in frozen:
            parameter.requires_grad_(False)
    return model.to(a.device)


def build_optimizer(model):
    import torch

    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = {"cls_token", "position"}
    groups = [
        {"params": [p for n, p in trained if p.ndim >= 2 and n not in plain], "weight_decay": 0.05},
        {"params": [p for n, p in trained if p.ndim < 2 or n in plain], "weight_decay": 0.0},
    ]
    try:
        return torch.optim.AdamW(groups, lr=1e-3, fused=True), True
    except RuntimeError:
        return torch.optim.AdamW(groups, lr=1e-3), False


def measure(a: argparse.Namespace, attention: str = "") -> dict:
    import torch
    import torch.nn.functional as F

    attention = attention or a.attention
    train_step.prepare(a)
    model = build_model(a, attention).train()
    optimizer, fused = build_optimizer(model)
    # Several batches, so that no step finds its input in the cache from the one before.
    data = [
        (
            torch.randn(a.batch, a.channels, a.image, a.image).to(a.device),
            torch.randint(a.labels, (a.batch,)).to(a.device),
        )
        for _ in range(4)
    ]

    def loss_of(pixels, labels):
        return F.cross_entropy(model(pixels), labels)

    result = train_step.measure(a, loss_of, optimizer, data)
    result |= {
        "attention": attention,
        "fused_adamw": fused,
        "gflop_per_step": round(step_flops(a) / 1e9, 4),
        "gflop_per_s": round(step_flops(a) / result["median_ms"] / 1e6, 2),
    }
    return result | train_step.count_parameters(model) | {"arguments": vars(a)}


def main() -> None:
    arguments = parse_arguments()
    attention, probes = arguments.attention, None
    if attention == "auto":
        probes = faster_attention()
        attention = min(probes, key=probes.get)
    result = measure(arguments, attention)
    if probes:
        result["attention_probe_ms"] = probes
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
