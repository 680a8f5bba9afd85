#!/usr/bin/env python3
"""PyTorch's time for the op registry's large shapes, and the device's own ceilings.

  ops_pytorch.py --json peers.json
  ops_pytorch.py --json peers.json --lithe perf.json   # and a table of both

perf.json comes from `op_registry --mode perf --device cuda --case large --json perf.json`. Each
figure is the median of CUDA-event times of replayed CUDA graphs, so PyTorch's host overhead is not
in it. TF32 is off. "forward and backward" gives the gradients of all floating inputs.
"""
import argparse
import json
import statistics

import torch
import torch.nn.functional as F

SECONDS = 0.2  # of samples for each figure
SAMPLE = 4e-3  # seconds between two events at least
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def elapsed(replay, repeats):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3


def median_seconds(step):
    """Median seconds of one step, captured once and replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    elapsed(graph.replay, 1)
    repeats = max(1, min(200, int(SAMPLE / elapsed(graph.replay, 1))))
    samples = []
    while sum(samples) < SECONDS:
        samples.append(elapsed(graph.replay, repeats))
    return statistics.median(samples) / repeats


def normal(*shape, dtype):
    return torch.randn(*shape, device="cuda", dtype=dtype)


def forward_cases(dtype):
    """(op, case, inputs, function); names and shapes are those of perf_cases_large.cpp."""
    x = normal(25216, 768, dtype=dtype)
    layer = [x, normal(3072, 768, dtype=dtype), normal(3072, dtype=dtype)]
    square = [normal(4096, 4096, dtype=dtype) for _ in range(2)]
    heads = [normal(384, 197, 64, dtype=dtype) for _ in range(2)]
    scores = torch.empty(384, 197, 197, device="cuda", dtype=dtype)
    wide = [normal(8192, 3072, dtype=dtype) for _ in range(2)]
    return [
        ("linear", "large 25216x768x3072", layer, F.linear),
        ("linear", "large gelu 25216x768x3072", layer, lambda *v: F.gelu(F.linear(*v))),
        ("matmul", "large 4096x4096x4096", square, torch.matmul),
        (
            "matmul",
            "large scores 384x197x64x197",
            heads,
            lambda a, b: torch.baddbmm(scores, a, b.transpose(1, 2), beta=0, alpha=0.125),
        ),
        (
            "layer_norm",
            "large 25216x768",
            [x, normal(768, dtype=dtype), normal(768, dtype=dtype)],
            lambda v, gamma, beta: F.layer_norm(v, (768,), gamma, beta, 1e-12),
        ),
        (
            "softmax",
            "large 75648x197",
            [normal(32, 12, 197, 197, dtype=dtype)],
            lambda v: torch.softmax(v, -1),
        ),
        (
            "softmax",
            "large 24576x1024",
            [normal(24576, 1024, dtype=dtype)],
            lambda v: torch.softmax(v, -1),
        ),
        ("gelu", "large 8192x3072", wide[:1], F.gelu),
        ("add", "large 8192x3072", wide, torch.add),
        ("dropout", "large 8192x3072", wide[:1], lambda v: F.dropout(v, 0.1, True)),
    ]


def measure_ops(name, dtype, records):
    for op, case, inputs, function in forward_cases(dtype):
        with torch.no_grad():
            records.append(record(op, case, name, "forward", lambda: function(*inputs)))
        leaves = [v.detach().requires_grad_() for v in inputs]
        cotangent = torch.randn_like(function(*inputs))

        def both():
            torch.autograd.grad(function(*leaves), leaves, cotangent)

        records.append(record(op, case, name, "forward and backward", both))


def measure_adamw(name, dtype, records):
    weight = torch.nn.Parameter(normal(16777216, dtype=dtype))
    weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.AdamW(
        [weight], lr=1e-3, weight_decay=0.05, fused=True, capturable=True
    )
    entry = record("adamw", "large 16777216", name, "forward", optimizer.step)
    entry["note"] = f"moments in {name}; Lithe's are fp32"
    records.append(entry)


def record(op, case, dtype, step, function):
    seconds = median_seconds(function)
    print(f"{op:<12} {case:<30} {dtype} {step:<21} {seconds * 1e6:10.2f} us", flush=True)
    return {"op": op, "case": case, "dtype": dtype, "step": step, "seconds": seconds}


def ceilings():
    """Device-to-device copy, bytes read plus written, and the rate of a large product."""
    out = {}
    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    out["copy_gb_per_s"] = 2 * source.nbytes / median_seconds(lambda: target.copy_(source)) * 1e-9
    del source, target
    for name, dtype in DTYPES.items():
        a, b = (normal(8192, 8192, dtype=dtype) for _ in range(2))
        seconds = median_seconds(lambda: torch.matmul(a, b))
        out[f"matmul_{name}_tflop_per_s"] = 2 * 8192**3 / seconds * 1e-12
    return out


def print_table(lithe, peers, limits):
    known = {(r["op"], r["case"], r["dtype"], r["step"]): r["seconds"] for r in peers}
    copy = limits["copy_gb_per_s"]
    print(
        "\n| op | case | dtype | step | Lithe µs | PyTorch µs | ratio "
        f"| Lithe GB/s (of {copy:.0f}) | Lithe TFLOP/s |\n|---|---|---|---|---|---|---|---|---|"
    )
    for r in lithe:
        peer = known.get((r["op"], r["case"], r["dtype"], r["step"]))
        if peer is None:
            continue
        print(
            f"| {r['op']} | {r['case']} | {r['dtype']} | {r['step']} | {r['seconds'] * 1e6:.1f} "
            f"| {peer * 1e6:.1f} | {peer / r['seconds']:.2f} | {r['gb_per_s']:.0f} "
            f"| {r['gflop_per_s'] * 1e-3:.1f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", required=True, help="where the figures go")
    parser.add_argument("--lithe", help="op_registry's figures, for a table of both")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    limits = ceilings()
    print(json.dumps(limits))
    records = []
    for name, dtype in DTYPES.items():
        measure_ops(name, dtype, records)
        measure_adamw(name, dtype, records)
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "ceilings": limits,
        "records": records,
    }
    with open(options.json, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
    if options.lithe:
        with open(options.lithe, encoding="utf-8") as source:
            print_table(json.load(source)["records"], records, limits)


if __name__ == "__main__":
    main()
