"""What a benchmark leaves: a table to read, and an MLflow run with the same as JSON and PNG."""

from __future__ import annotations

import io
import json
import platform
from contextlib import suppress
from typing import Any

from matplotlib.figure import Figure

from pipeline.config import Config
from pipeline.tracking import runs, store

NOTES = "tests/benchmark/README.md"
"""What was tried to reach the limits."""


def table(ratios: dict[str, dict[str, Any]]) -> str:
    """Return the ratios as a table in Markdown."""
    lines = ["| ours / peer | median | min–max | must reach | aim | |", "|---|---|---|---|---|---|"]
    for name, r in ratios.items():
        limit, aim = (f"≤ {r[key]}" if r[key] else "–" for key in ("limit", "aim"))
        missed = f"missed by {r['value'] / (r['limit'] or 1) - 1:.1%}; tried: {NOTES}"
        verdict = "" if r["met"] is None else "met" if r["met"] else missed
        lines.append(f"| {name} | {r['value']:.2f} | {r['min']:.2f}–{r['max']:.2f} | {limit} | {aim} | {verdict} |")
    return "\n".join(lines)


def draw_ratios(ratios: dict[str, dict[str, Any]]) -> Figure:
    """Draw each ratio with its range as a share of its limit: what is left of the line is met."""
    shown = {name: r for name, r in ratios.items() if r["limit"]}
    figure = Figure(figsize=(9, 1.5 + 0.45 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, r in enumerate(shown.values()):
        low, value, high = (r[key] / r["limit"] for key in ("min", "value", "max"))
        axes.barh(place, value, color="tab:green" if r["met"] else "tab:red", alpha=0.6)
        axes.plot([low, high], [place, place], color="black")
    axes.axvline(1, color="grey", linestyle=":")
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set(xlabel="ours / peer, as a share of what must be reached (line: least to greatest of the turns)")
    return figure


def processor() -> str:
    """Return the name of this machine's processor."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def keep(config: Config, name: str, summary: dict[str, Any], figure: Figure) -> str:
    """Log the summary and a figure as an MLflow run of the configuration's experiment; return its id."""
    uri = store.tracking_uri(config)
    store.open_store(config, uri)()
    client, run_id = store.connect(uri), runs.start_run(config, uri)
    client.update_run(run_id, name=name)
    for ratio, r in summary.get("ratios", {}).items():
        client.log_metric(run_id, _metric(ratio), r["value"])
    client.log_text(run_id, json.dumps(summary, indent=1), f"{name}.json")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    runs.log_bytes(uri, run_id, image.getvalue(), f"{name}.png")
    client.set_terminated(run_id)
    return run_id


def _metric(ratio: str) -> str:
    """Return a ratio's name as MLflow takes it."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in ratio)
