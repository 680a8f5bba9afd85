"""The Markdown of steps.py's results."""


def table(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(map(cell, line)) + " |\n" for line in lines)


def cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def number(value, digits: int = 1, scale: float = 1) -> str:
    return "–" if value is None else f"{value * scale:.{digits}f}"


def percent(value) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def gib(value) -> str:
    return number(value, 2, 2**-30)


def fastest(peers: list[dict]) -> dict:
    timed = [p for p in peers if "median_ms" in p]
    return min(timed, key=lambda p: p["median_ms"]) if timed else {}


def summary(report: dict) -> str:
    """A row a case: Lithe beside the fastest mode of the peers."""
    rows = []
    for entry in report["cases"]:
        lithe, peer = entry["lithe"], fastest(entry["peers"])
        ratio = None
        if peer and "median_ms" in lithe:
            ratio = peer["median_ms"] / lithe["median_ms"]
        rows.append([
            entry["case"],
            lithe.get("error") or number(lithe["median_ms"], 2),
            f"{number(peer['median_ms'], 2)} ({peer['mode']})" if peer else "–",
            number(ratio, 2),
            number(lithe.get("samples_per_s"), 0),
            number(lithe.get("tflop_per_s"), 1 if (lithe.get("tflop_per_s") or 0) >= 10 else 3),
            percent(lithe.get("share_of_peak")),
            number(lithe.get("floor_ms_by_flops"), 2),
            number(lithe.get("floor_ms_by_bytes"), 2),
            gib(lithe.get("planned_peak_bytes")),
            gib(peer.get("cuda_peak_allocated_bytes")),
        ])  # fmt: skip
    heading = ["step", "Lithe ms", "fastest PyTorch ms", "ratio", "Lithe samples/s"]
    heading += ["Lithe TFLOP/s", "of the peak", "floor ms, FLOPs", "floor ms, bytes"]
    heading += ["Lithe planned GiB", "PyTorch GiB"]
    return table(heading, rows)


def peer_rows(report: dict) -> str:
    rows = []
    for entry in report["cases"]:
        for p in entry["peers"]:
            notes = [f"{p['graph_breaks']} graph breaks"] if p.get("graph_breaks") else []
            notes += ["no CUDA graph"] if p.get("cudagraph_skips") else []
            rows.append([
                entry["case"],
                p["mode"],
                number(p.get("median_ms"), 2),
                number(p.get("min_ms"), 2),
                number(p.get("samples_per_s"), 0),
                number(p.get("tflop_per_s")),
                percent(p.get("share_of_peak")),
                gib(p.get("cuda_peak_allocated_bytes")),
                gib(p.get("cuda_peak_reserved_bytes")),
                p.get("error", ", ".join(notes)),
            ])  # fmt: skip
    heading = ["step", "mode", "ms", "fastest ms", "samples/s", "TFLOP/s", "of the peak"]
    return table([*heading, "allocated GiB", "reserved GiB", "note"], rows)


def markdown(report: dict) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items() if value)
    text = f"# Training steps\n\n{machine}\n\n"
    if report["peaks"]:
        rates = report["peaks"]
        known = [f"{k} {rates[k]:g} TFLOP/s" for k in ("bf16", "tf32", "fp32") if k in rates]
        known += [f"{rates['gbs']:g} GB/s"] if "gbs" in rates else []
        text += f"The device's peak, by its data sheet or as given: {', '.join(known)}.\n\n"
    text += (
        f"Medians of {report['steps']} steps after warm-up, forward, backward and update. TFLOP/s "
        "count the products of Lithe's step for both sides, no recomputation. The floor by bytes "
        "reads and writes every operand of every op of Lithe's step once. GiB are without the "
        "device's context.\n\n"
    )
    text += summary(report) + "\n"
    if "peers_error" in report:
        text += f"PyTorch: {report['peers_error']}.\n\n"
    if any(entry["peers"] for entry in report["cases"]):
        text += "## PyTorch, all modes\n\n" + peer_rows(report) + "\n"
    text += "## Lithe's time by op\n"
    for entry in report["cases"]:
        if "table" in entry["lithe"]:
            text += f"\n{entry['case']}:\n\n```\n{entry['lithe']['table'].rstrip()}\n```\n"
    return text
