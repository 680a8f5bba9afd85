"""What the training steps of the PyTorch peers share: how they run and how they are measured."""

import argparse
import contextlib
import gc
import os
import resource
import statistics
import time
from itertools import pairwise


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Device, precision and mode; the same for every model."""
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; 0: as PyTorch chooses")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="bfloat16: autocast over float32 weights",
    )
    parser.add_argument("--tf32", action="store_true", help="TF32 for float32 products on cuda")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="default",
        default="",
        choices=["default", "reduce-overhead", "max-autotune"],
        help="torch.compile in this mode; reduce-overhead runs CUDA graphs",
    )
    parser.add_argument(
        "--checkpoint", action="store_true", help="gradient checkpointing per block"
    )


def prepare(a: argparse.Namespace) -> None:
    import torch

    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    torch.backends.cuda.matmul.allow_tf32 = a.tf32
    torch.backends.cudnn.allow_tf32 = a.tf32


def peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compile_counters() -> dict:
    """What kept torch.compile from one graph, or from CUDA graphs, since the last reset."""
    from torch._dynamo.utils import counters

    return {
        "graph_breaks": sum(counters["graph_break"].values()),
        "cudagraph_skips": counters["inductor"].get("cudagraph_skips", 0),
    }


def measure(a: argparse.Namespace, loss_of, optimizer, batches: list) -> dict:
    """Times forward, backward and update; `loss_of(*batch)` is the model's loss.

    A step is the time between two CUDA events behind optimizer.step(), so the host may run ahead,
    as it does in real training; on the CPU it is the clock's time.
    """
    import torch

    cuda = a.device == "cuda"
    if a.compile:
        mode = None if a.compile == "default" else a.compile
        loss_of = torch.compile(loss_of, mode=mode, dynamic=False)
    cast = contextlib.nullcontext()
    if a.dtype == "bfloat16":
        cast = torch.autocast(a.device, dtype=torch.bfloat16)

    def train_step(index: int):
        optimizer.zero_grad(set_to_none=True)
        if a.compile in ("reduce-overhead", "max-autotune"):
            torch.compiler.cudagraph_mark_step_begin()
        with cast:
            loss = loss_of(*batches[index % len(batches)])
        loss.backward()
        optimizer.step()
        return loss.detach()

    rss_before, load = peak_rss_bytes(), os.getloadavg()[0]
    started = time.perf_counter()
    loss = train_step(0)
    if cuda:
        # What compiling took beside the step is not the step's; recording a graph comes later.
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for index in range(1, a.warmup):
        loss = train_step(index)
    if cuda:
        torch.cuda.synchronize()
    warmup_seconds = time.perf_counter() - started
    times = []
    if cuda:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(a.steps + 1)]
        marks[0].record()
        for index in range(a.steps):
            loss = train_step(a.warmup + index)
            marks[index + 1].record()
        torch.cuda.synchronize()
        times = [first.elapsed_time(second) for first, second in pairwise(marks)]
    else:
        for index in range(a.steps):
            start = time.perf_counter()
            loss = train_step(a.warmup + index)
            times.append(1e3 * (time.perf_counter() - start))

    median = statistics.median(times)
    result = {
        "peer": "pytorch",
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": a.dtype,
        "tf32": a.tf32 if cuda else None,
        "compile": a.compile or False,
        "checkpoint": a.checkpoint,
        "median_ms": round(median, 4),
        "min_ms": round(min(times), 4),
        "samples_per_s": round(1e3 * a.batch / median, 2),
        "loss": round(loss.item(), 5),
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_rss_before_steps_bytes": rss_before,
        "cuda_peak_allocated_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "cuda_peak_reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "warmup_s": round(warmup_seconds, 2),
        "load_average_before": round(load, 2),
    }
    return result | (compile_counters() if a.compile else {})


def count_parameters(model) -> dict:
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in trained),
        "trained_tensors": len(trained),
        "tensors": len(parameters),
    }
