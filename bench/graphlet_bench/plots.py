"""Which plots are drawn of a run's results."""

from __future__ import annotations

from typing import Any

from graphlet_bench import svg
from graphlet_bench.svg import Bar, Series

Results = dict[str, Any]


def draw(results: Results) -> dict[str, str]:
    """SVG documents by file name."""
    found: dict[str, str] = {}
    for model in results["models"]:
        if model.get("reason"):
            continue
        name, title = model["name"], model["title"]
        bars = _bars(model, lambda row: row["median_ms"])
        axis = "milliseconds per picture, one thread (less is better)"
        found[f"latency-{name}.svg"] = svg.bars(f"{title}: one inference", axis, bars)
        if any("cold_ms" in row for row in model["rows"]):
            bars = _bars(model, lambda row: row.get("cold_ms"))
            axis = "milliseconds from process start to first label (less is better)"
            found[f"start-{name}.svg"] = svg.bars(f"{title}: start", axis, bars)
        if any("memory_kb" in row for row in model["rows"]):
            bars = _bars(model, _memory)
            axis = "megabytes, greatest proportional size (PSS) of the process (less is better)"
            found[f"memory-{name}.svg"] = svg.bars(f"{title}: memory", axis, bars)
    steps = (results.get("http") or {}).get("steps")
    if steps:
        found["throughput.svg"] = _throughput(results["http"], steps)
    return found


def _bars(model: Results, of: Any) -> list[Bar]:
    """Ours first, then the others from the fastest to the slowest, then those without a figure."""
    bars = []
    for row in model["rows"]:
        spread = None if row["reason"] else of(row)
        if spread is None:
            bars.append(Bar(row["label"], row["kind"], None, note=_short(row["reason"])))
            continue
        right = row.get("output", {"right": True})["right"]
        kind = row["kind"] if right else "wrong"
        note = "" if right else " (wrong output)"
        label = row["label"] + (" (native)" if row["kind"] == "native" else "")
        bars.append(Bar(label, kind, spread["median"], spread.get("low"), spread.get("high"), note))
    return sorted(bars, key=lambda bar: (bar.value is None, bar.kind != "ours", bar.value or 0))


def _memory(row: Results) -> dict[str, float] | None:
    memory = row.get("memory_kb")
    return {"median": memory["pss"] * 1.024e-3} if memory else None


def _short(reason: str | None) -> str:
    text = f"not measured: {reason}" if reason else "not measured"
    return text if len(text) <= 70 else text[:69] + "…"


def _throughput(http: Results, steps: list[Results]) -> str:
    points = [(float(s["instances"]), float(s["requests_per_second"])) for s in steps]
    one = points[0][1]
    ideal = [(n, n * one) for n, _ in points]
    given = [
        Series("as many times one", "native", ideal, dashed=True),
        Series("graphlet run", "ours", points),
    ]
    return svg.lines(f"{http['model']} over HTTP", "instances", "requests a second", given)
