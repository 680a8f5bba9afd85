#!/usr/bin/env python3
"""Times training steps in Lithe and in PyTorch, one after the other, on the same cases.

    python3 bench/steps.py --device cuda --out build/bench --limit 290

Writes OUT/steps.json and OUT/steps.md. Needs Python alone; PyTorch is measured where --python has
it. Cases are in step_cases.py.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import step_cases
import steps_table

ROOT = Path(__file__).resolve().parent.parent
# Dense TFLOP/s by precision and GB/s, from the vendor's data sheets.
PEAKS = {
    "H100 80GB HBM3": {"bf16": 990, "tf32": 495, "fp32": 67, "gbs": 3350},
    "H200": {"bf16": 990, "tf32": 495, "fp32": 67, "gbs": 4800},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda[:N]; auto: a GPU if there is one"
    )
    parser.add_argument("--set", choices=list(step_cases.CASES), help="default: that of the device")
    parser.add_argument("--cases", default="all", help="comma-separated names; * and ? allowed")
    parser.add_argument("--modes", default="all", help="comma-separated modes of the peers")
    parser.add_argument("--out", default="build/bench", help="folder for steps.json and steps.md")
    parser.add_argument("--lithe", default="build/bin/bench_step", help="the program to time")
    parser.add_argument("--python", default=sys.executable, help="the Python that has PyTorch")
    parser.add_argument("--no-peers", action="store_true", help="time Lithe alone")
    parser.add_argument("--limit", type=float, default=600, help="seconds for everything")
    parser.add_argument(
        "--lithe-limit", type=float, default=40, help="seconds for one case of Lithe"
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each side")
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads; 0: as each side chooses"
    )
    parser.add_argument("--trace", default="", help="comma-separated cases to write a trace of")
    parser.add_argument("--peak-bf16", type=float, help="TFLOP/s of the device")
    parser.add_argument("--peak-tf32", type=float)
    parser.add_argument("--peak-fp32", type=float)
    parser.add_argument("--peak-gbs", type=float, help="GB/s of its memory")
    return parser.parse_args()


def output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def gpu_index(device: str) -> str:
    return device.partition(":")[2] or "0"


def describe_machine(device: str) -> dict:
    about = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": device,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "commit": output_of("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
    }
    if device != "cpu":
        # What is in use before the first step tells whether another program shares the card.
        fields = ("name", "driver_version", "memory.total", "memory.used", "utilization.gpu")
        query = output_of(
            "nvidia-smi", "-i", gpu_index(device), f"--query-gpu={','.join(fields)}",
            "--format=csv,noheader",
        )  # fmt: skip
        names = ("gpu", "driver", "memory", "memory_used_before", "utilization_before")
        about |= dict(zip(names, (x.strip() for x in query.split(",")), strict=False))
        nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
        about["cuda"] = output_of(nvcc, "--version").partition("release ")[2].partition(",")[0]
    return about


def find_peaks(a: argparse.Namespace, gpu: str) -> dict:
    known = next((dict(rates) for name, rates in PEAKS.items() if name in gpu), {})
    for key in ("bf16", "tf32", "fp32", "gbs"):
        given = getattr(a, f"peak_{key}")
        if given:
            known[key] = given
    return known


class Bench:
    def __init__(self, a: argparse.Namespace):
        self.a = a
        self.started = time.monotonic()
        gpu = output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        self.device = a.device if a.device != "auto" else ("cuda" if gpu else "cpu")
        self.set = a.set or ("cpu" if self.device == "cpu" else "gpu")
        patterns = ["*"] if a.cases == "all" else a.cases.split(",")
        self.cases = [
            c
            for c in step_cases.CASES[self.set]
            if any(fnmatch.fnmatchcase(c.name, p) for p in patterns)
        ]
        if not self.cases:
            raise SystemExit(f"steps.py: no case of '{self.set}' matches {a.cases}")
        self.out = Path(a.out)
        self.out.mkdir(parents=True, exist_ok=True)
        machine = describe_machine(self.device)
        self.peaks = find_peaks(a, machine.get("gpu", ""))
        self.report = {"machine": machine, "peaks": self.peaks, "set": self.set, "steps": a.steps}
        self.report["cases"] = [
            {"case": c.name, "precision": c.precision, "lithe": {"error": "not run"}, "peers": []}
            for c in self.cases
        ]

    def left(self) -> float:
        return self.a.limit - (time.monotonic() - self.started)

    def environment(self) -> dict:
        threads = {"OMP_NUM_THREADS": str(self.a.threads)} if self.a.threads else {}
        return os.environ | threads

    def run(self, command: list[str], limit: float, *, keep: bool) -> tuple[str, str]:
        """Its output where that is kept, and what went wrong."""
        limit = min(limit, self.left())
        if limit < 2:
            return "", "not run: the time is up"
        # Without a pipe: a compiler's workers may outlive the peers and would hold it open.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} if keep else {"stdout": 2}
        try:
            process = subprocess.Popen(
                command,
                text=True,
                cwd=ROOT,
                env=self.environment(),
                start_new_session=True,
                **pipes,
            )
        except OSError as e:
            return "", str(e)
        try:
            text, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return "", f"cut off after {limit:.0f} s"
        finally:
            # Whatever it started must not run beside the next one.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        sys.stderr.write(errors or "")
        if process.returncode == 0:
            return text or "", ""
        reason = (errors or "").strip().rpartition("\n")[2][:300]
        return text or "", f"exit code {process.returncode}{': ' if reason else ''}{reason}"

    def time_lithe(self, case: step_cases.Case) -> dict:
        program = str(Path(self.a.lithe).resolve())
        command = [program, "--device", self.device, "--steps", str(self.a.steps), "--table"]
        if case.precision in self.peaks:
            command += ["--peak-tflops", str(self.peaks[case.precision])]
        if "gbs" in self.peaks:
            command += ["--peak-gbs", str(self.peaks["gbs"])]
        if any(fnmatch.fnmatchcase(case.name, p) for p in filter(None, self.a.trace.split(","))):
            name = case.name.replace(" ", "_")
            command += ["--trace", str((self.out / f"trace_{name}.json").resolve())]
        text, error = self.run(command + case.lithe_arguments(), self.a.lithe_limit, keep=True)
        table, _, last = text.rstrip().rpartition("\n")
        if not error:
            try:
                return json.loads(last) | {"table": table}
            except json.JSONDecodeError:
                error = f"printed no JSON but '{last[:100]}'"
        return {"error": error}

    def time_peers(self) -> None:
        path = self.out / "steps_peers.json"
        path.unlink(missing_ok=True)
        command = [self.a.python, str(ROOT / "bench/peers/train_pytorch.py"), "--set", self.set]
        command += ["--device", "cpu" if self.device == "cpu" else "cuda", "--json"]
        command += [str(path.resolve()), "--cases", ",".join(c.name for c in self.cases)]
        command += ["--modes", self.a.modes, "--steps", str(self.a.steps)]
        command += ["--threads", str(self.a.threads), "--limit", f"{max(self.left() - 10, 1):.0f}"]
        _, error = self.run(command, self.left() - 3, keep=False)
        if error:
            self.report["peers_error"] = error
        if not path.exists():
            self.report.setdefault("peers_error", "wrote no results")
            return
        peers = json.loads(path.read_text())
        path.unlink()
        self.report["machine"] |= {"torch": peers["torch"], "torch_cuda": peers["cuda"]}
        by_name = {entry["case"]: entry for entry in self.report["cases"]}
        for run in peers["runs"]:
            by_name[run.pop("case")]["peers"].append(run)

    def add_rates(self) -> None:
        """TFLOP/s of both sides by the FLOPs that Lithe's step counts, without recomputation."""
        for entry in self.report["cases"]:
            lithe = entry["lithe"]
            flops = lithe.get("gflop_per_step")
            peak = self.peaks.get(entry["precision"])
            if not flops:
                continue
            for side in (lithe, *entry["peers"]):
                if "median_ms" in side:
                    side["tflop_per_s"] = flops / side["median_ms"]
                    if peak:
                        side["share_of_peak"] = side["tflop_per_s"] / peak
            if peak:
                lithe["floor_ms_by_flops"] = flops / peak
            if "gbs" in self.peaks and "gbyte_per_step" in lithe:
                lithe["floor_ms_by_bytes"] = 1e3 * lithe["gbyte_per_step"] / self.peaks["gbs"]

    def write(self) -> None:
        self.add_rates()
        self.report["seconds"] = round(time.monotonic() - self.started, 1)
        (self.out / "steps.json").write_text(json.dumps(self.report, indent=1) + "\n")
        (self.out / "steps.md").write_text(steps_table.markdown(self.report))

    def main(self) -> int:
        for case, entry in zip(self.cases, self.report["cases"], strict=True):
            entry["lithe"] = self.time_lithe(case)
            told = entry["lithe"].get("error") or f"{entry['lithe']['median_ms']:.2f} ms"
            print(f"{case.name}, Lithe: {told}", file=sys.stderr, flush=True)
            self.write()
        has_torch = not self.a.no_peers and self.has_torch()
        if has_torch:
            self.time_peers()
            # Once more, to see whether the machine stayed what it was.
            first = self.report["cases"][0]
            if "median_ms" in first["lithe"]:
                again = self.time_lithe(self.cases[0])
                first["lithe"]["median_ms_after_the_peers"] = again.get("median_ms")
        self.write()
        print(steps_table.summary(self.report))
        print(f"wrote {self.out}/steps.json and {self.out}/steps.md")
        failed = [e["case"] for e in self.report["cases"] if "error" in e["lithe"]]
        if failed:
            print(f"steps.py: no time of Lithe for: {', '.join(failed)}", file=sys.stderr)
        return 1 if failed else 0

    def has_torch(self) -> bool:
        probe = "from importlib.util import find_spec as f; print(f('torch') and f('transformers'))"
        found = output_of(self.a.python, "-c", probe).startswith("ModuleSpec")
        if not found:
            self.report["peers_error"] = "the peers need torch and transformers; give --python"
        return found


if __name__ == "__main__":
    sys.exit(Bench(parse_arguments()).main())
