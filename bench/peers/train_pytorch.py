#!/usr/bin/env python3
"""Training steps of several models in PyTorch, in several modes, in one process.

    python train_pytorch.py --device cuda --cases all --json peers.json --limit 240

The file is written after every case; one that fails is recorded with its error, and what the time
limit cuts off with that. Cases and modes are those of ../step_cases.py; all cases run in the first
of their modes before any runs in the next.
"""

import argparse
import contextlib
import fnmatch
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import step_cases


class OutOfTime(BaseException):
    """Not an Exception: compilers catch those and report them as their own failures."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--set", choices=list(step_cases.CASES), help="default: that of the device")
    parser.add_argument("--cases", default="all", help="comma-separated names; * and ? allowed")
    parser.add_argument(
        "--modes", default="all", help="comma-separated, of those that a case names"
    )
    parser.add_argument("--json", required=True, help="written after every case")
    parser.add_argument("--limit", type=float, default=240, help="seconds for everything")
    parser.add_argument("--case_limit", type=float, default=90, help="seconds for one case")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; 0: as PyTorch chooses")
    return parser.parse_args()


def chosen_runs(a: argparse.Namespace) -> list[tuple[step_cases.Case, str]]:
    cases = step_cases.CASES[a.set or ("gpu" if a.device == "cuda" else "cpu")]
    patterns = ["*"] if a.cases == "all" else a.cases.split(",")
    cases = [c for c in cases if any(fnmatch.fnmatchcase(c.name, p) for p in patterns)]
    modes = list(step_cases.MODES) if a.modes == "all" else a.modes.split(",")
    unknown = set(modes) - set(step_cases.MODES)
    if unknown or not cases:
        raise SystemExit(f"no such mode: {unknown}" if unknown else f"no case matches {a.cases}")
    if a.device == "cpu":
        modes = [mode for mode in modes if mode not in step_cases.NEEDS_CUDA]
    runs = [
        (round_, case, case.modes[round_])
        for round_ in range(max(len(c.modes) for c in cases))
        for case in cases
        if round_ < len(case.modes) and case.modes[round_] in modes
    ]
    return [(case, mode) for _, case, mode in runs]


@contextlib.contextmanager
def time_limit(seconds: float):
    def stop(*_):
        raise OutOfTime

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def forget_last(device: str) -> None:
    """What the case before left must neither be reused nor count for the next one's memory."""
    import torch

    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def run_case(a: argparse.Namespace, case: step_cases.Case, mode: str, seconds: float) -> dict:
    module = importlib.import_module(f"{case.model}_train_pytorch")
    arguments = ["--device", a.device, "--steps", a.steps, "--warmup", a.warmup]
    arguments += ["--threads", a.threads, *case.peer_arguments(mode)]
    try:
        with time_limit(seconds):
            forget_last(a.device)
            return module.measure(module.parse_arguments([str(x) for x in arguments]))
    except OutOfTime:
        return {"error": f"cut off after {seconds:.0f} s"}
    except Exception as e:  # a failing case must not take the others with it
        traceback.print_exc()
        return {"error": f"{type(e).__name__}: {str(e).strip()[:300]}"}


def write(path: str, report: dict) -> None:
    partial = f"{path}.partial"
    Path(partial).write_text(json.dumps(report, indent=1) + "\n")
    os.replace(partial, path)


def main() -> None:
    a = parse_arguments()
    started = time.monotonic()
    runs = chosen_runs(a)
    import torch

    report = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "import_s": round(time.monotonic() - started, 1),
        "runs": [],
    }
    for case, mode in runs:
        left = a.limit - (time.monotonic() - started)
        begun = time.monotonic()
        result = {"error": "not run: the time is up"}
        if left > 1:
            result = run_case(a, case, mode, min(left, a.case_limit))
        seconds = round(time.monotonic() - begun, 1)
        report["runs"].append({"case": case.name, "mode": mode, **result, "seconds": seconds})
        write(a.json, report)
        told = result.get("error") or f"{result['median_ms']:.2f} ms"
        print(f"{case.name}, {mode}: {told} ({seconds} s)", flush=True)
    # Compile workers and CUDA graphs may hold up a normal exit; everything is written.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
