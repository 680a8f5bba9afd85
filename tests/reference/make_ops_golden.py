#!/usr/bin/env python3
"""Golden values of single ops in float64: inputs, outputs, output gradients and input gradients.

Writes ops.safetensors with `<case>.in.<i>`, `<case>.out.<i>`, `<case>.dout.<i>`, `<case>.din.<i>`.
`din.<i>` exists for the inputs that have a gradient. Images are stored as NHWC and convolution
weights as OHWI, whatever layout computes them. The metadata lists every case with its op, its
attributes and the names of its inputs.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

SEED = 5

generator = torch.Generator().manual_seed(SEED)
tensors: dict[str, torch.Tensor] = {}
cases: dict[str, dict] = {}


def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def to_nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def to_nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def add(case: str, op: str, function, inputs: dict[str, torch.Tensor], **attributes) -> None:
    leaves = [value.clone().requires_grad_(value.is_floating_point()) for value in inputs.values()]
    output = function(*leaves)
    # Not all ones: a gradient that ignores what comes from above must show.
    dout = random(*output.shape)
    output.backward(dout)
    for i, leaf in enumerate(leaves):
        tensors[f"{case}.in.{i}"] = leaf.detach().contiguous()
        if leaf.grad is not None:
            tensors[f"{case}.din.{i}"] = leaf.grad.contiguous()
    tensors[f"{case}.out.0"] = output.detach().contiguous()
    tensors[f"{case}.dout.0"] = dout.contiguous()
    cases[case] = {"op": op, "inputs": list(inputs), "attributes": attributes}


def add_conv2d(
    case, batch, height, width, channels, filters, kernel, stride, padding, groups
) -> None:
    def function(x, weight, bias):
        out = F.conv2d(to_nchw(x), to_nchw(weight), bias, stride, padding, groups=groups)
        return to_nhwc(out)

    add(
        case,
        "conv2d",
        function,
        {
            "input": random(batch, height, width, channels),
            "weight": random(filters, kernel[0], kernel[1], channels // groups, scale=0.5),
            "bias": random(filters),
        },
        stride=stride,
        padding=padding,
        groups=groups,
    )


def add_images() -> None:
    add_conv2d("conv2d", 2, 7, 5, 4, 6, (3, 3), 2, 1, 2)
    add_conv2d("conv2d_rectangular", 1, 6, 9, 3, 5, (3, 2), 1, 0, 1)
    add_conv2d("conv2d_depthwise", 2, 5, 4, 3, 3, (3, 3), 1, 1, 3)
    add_conv2d("conv2d_pointwise", 2, 3, 4, 5, 3, (1, 1), 1, 0, 1)
    add_conv2d("conv2d_patches", 2, 8, 12, 3, 5, (4, 4), 4, 0, 1)

    for case, kernel, stride, padding, count_include_pad in (
        ("avg_pool2d", 2, 2, 0, True),
        ("avg_pool2d_padding_counted", 3, 2, 1, True),
        ("avg_pool2d_padding_not_counted", 3, 2, 1, False),
    ):
        add(
            case,
            "avg_pool2d",
            lambda x, k=kernel, s=stride, p=padding, c=count_include_pad: to_nhwc(
                F.avg_pool2d(to_nchw(x), k, s, p, count_include_pad=c)
            ),
            {"input": random(2, 7, 5, 3)},
            kernel=kernel,
            stride=stride,
            padding=padding,
            count_include_pad=count_include_pad,
        )
    # Shifted below zero: padding that counts as zero would win the maximum.
    add(
        "max_pool2d",
        "max_pool2d",
        lambda x: to_nhwc(F.max_pool2d(to_nchw(x), 3, 2, 1)),
        {"input": random(2, 7, 6, 3) - 3},
        kernel=3,
        stride=2,
        padding=1,
    )
    add(
        "group_norm",
        "group_norm",
        lambda x, weight, bias: to_nhwc(F.group_norm(to_nchw(x), 2, weight, bias, 1e-5)),
        {"input": random(2, 3, 5, 6) + 0.5, "weight": random(6), "bias": random(6)},
        groups=2,
        eps=1e-5,
    )
    add(
        "upsample_nearest2x",
        "upsample_nearest",
        lambda x: to_nhwc(F.interpolate(to_nchw(x), scale_factor=2, mode="nearest")),
        {"input": random(2, 3, 4, 3)},
        scale=2,
    )
    add(
        "pixel_unshuffle",
        "pixel_unshuffle",
        lambda x: to_nhwc(F.pixel_unshuffle(to_nchw(x), 2)),
        {"input": random(2, 4, 6, 3)},
        factor=2,
        channel_order="c * r * r + dy * r + dx",
    )


def add_rows() -> None:
    for case, shape, eps in (
        ("layer_norm", (3, 4, 7), 1e-5),
        ("layer_norm_tiny_eps", (5, 32), 1e-12),
    ):
        add(
            case,
            "layer_norm",
            lambda x, weight, bias, e=eps: F.layer_norm(x, x.shape[-1:], weight, bias, e),
            {"input": random(*shape) + 0.5, "weight": random(shape[-1]), "bias": random(shape[-1])},
            eps=eps,
        )
    add(
        "rms_norm",
        "rms_norm",
        lambda x, weight: F.rms_norm(x, x.shape[-1:], weight, 1e-6),
        {"input": random(3, 4, 7) + 0.5, "weight": random(7)},
        eps=1e-6,
    )
    for case, op, function, attributes in (
        ("gelu_erf", "gelu", lambda x: F.gelu(x), {"approximate": "none"}),
        ("gelu_tanh", "gelu", lambda x: F.gelu(x, approximate="tanh"), {"approximate": "tanh"}),
        ("silu", "silu", F.silu, {}),
    ):
        # Far tails and an exact zero beside ordinary values.
        values = torch.cat(
            [random(29, scale=2.0), torch.tensor([0.0, -12.0, 12.0, -40.0, 40.0, 1e-9])]
        )
        add(case, op, function, {"input": values.double().reshape(5, 7)}, **attributes)
    add(
        "softmax",
        "softmax",
        lambda x: F.softmax(x, dim=-1),
        # The shift overflows exp unless the row's maximum is taken off first.
        {
            "input": random(3, 4, 9, scale=2.0)
            + torch.tensor([0.0, 800.0, -800.0]).double()[:, None, None]
        },
        dim=-1,
    )


def add_losses() -> None:
    labels = torch.tensor([2, -100, 0, 4, 4, -100, 1])
    for reduction in ("mean", "sum"):
        add(
            f"cross_entropy_{reduction}",
            "cross_entropy",
            lambda logits, target, r=reduction: F.cross_entropy(
                logits, target, ignore_index=-100, reduction=r
            ),
            {"logits": random(7, 5, scale=2.0), "labels": labels},
            ignore_index=-100,
            reduction=reduction,
        )
    add(
        "mse",
        "mse",
        F.mse_loss,
        {"input": random(3, 5), "target": random(3, 5)},
        reduction="mean",
    )
    add(
        "embedding",
        "embedding",
        lambda ids, table: F.embedding(ids, table),
        {"ids": torch.tensor([[3, 0, 3, 8], [3, 5, 0, 5]]), "table": random(9, 6)},
    )


def attention(query, key, value, keep=None, causal=False):
    """query [B,T,N,D], key and value [B,S,K,D], keep [B,S] of bool -> [B,T,N,D]."""
    heads, kv_heads = query.shape[2], key.shape[2]
    # Query head n reads key/value head n / (N / K).
    key, value = (x.repeat_interleave(heads // kv_heads, dim=2) for x in (key, value))
    mask = None if keep is None else keep[:, None, None, :]
    if keep is not None and causal:
        mask = mask & torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).tril()
        causal = False
    out = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (query, key, value)), attn_mask=mask, is_causal=causal
    )
    return out.transpose(1, 2)


def add_attention() -> None:
    def qkv(tokens=6, keys=6, heads=4, kv_heads=4, dim=5):
        return {
            "query": random(2, tokens, heads, dim),
            "key": random(2, keys, kv_heads, dim),
            "value": random(2, keys, kv_heads, dim),
        }

    scale = 5**-0.5
    # One row ends early, the other has a hole: a mask is more than a length.
    keep = torch.tensor(
        [[True, True, True, True, False, False], [True, True, False, True, True, True]]
    )
    add("attention", "attention", attention, qkv(), scale=scale, causal=False)
    add("attention_cross", "attention", attention, qkv(tokens=3, keys=7), scale=scale, causal=False)
    add(
        "attention_causal",
        "attention",
        lambda q, k, v: attention(q, k, v, causal=True),
        qkv(),
        scale=scale,
        causal=True,
    )
    add(
        "attention_causal_grouped",
        "attention",
        lambda q, k, v: attention(q, k, v, causal=True),
        qkv(kv_heads=2),
        scale=scale,
        causal=True,
    )
    add(
        "attention_padding",
        "attention",
        attention,
        qkv() | {"keep": keep},
        scale=scale,
        causal=False,
    )
    add(
        "attention_causal_grouped_padding",
        "attention",
        lambda q, k, v, m: attention(q, k, v, m, causal=True),
        qkv(kv_heads=2) | {"keep": keep},
        scale=scale,
        causal=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    add_images()
    add_rows()
    add_losses()
    add_attention()
    for name, value in tensors.items():
        assert not value.is_floating_point() or value.isfinite().all(), name

    description = {"cases": cases, "seed": SEED, "versions": {"torch": torch.__version__}}
    target = out / "ops.safetensors"
    save_file(tensors, target, metadata={"golden": json.dumps(description, sort_keys=True)})
    print(f"{target}: {len(cases)} cases, {len(tensors)} tensors, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
