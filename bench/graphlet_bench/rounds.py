"""Measures every peer on one model: rounds in which all of them run, one after the other."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from graphlet_bench import stats
from graphlet_bench.models import Model
from graphlet_bench.peers import Job, Peer
from graphlet_bench.process import PeerError, Placement
from graphlet_bench.setup import Tools

# A process whose memory is sampled works for so long at least.
MEMORY_MS = 700


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int
    runs: int
    #: processes per peer whose start is timed; 0 leaves that out
    cold: int
    memory: bool


@dataclass
class Row:
    """What is known of one peer on one model."""

    peer: Peer
    reason: str | None = None
    #: milliseconds of one inference, one list per process
    spawns: list[list[float]] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)
    cold_ms: list[float] = field(default_factory=list)
    #: the same with one core for everything; of ours only
    cold_one_core_ms: list[float] = field(default_factory=list)
    rss_kb: int = 0
    pss_kb: int = 0
    comparison: stats.Comparison | None = None
    #: what failed beside the times, which stand
    notes: list[str] = field(default_factory=list)

    @property
    def medians(self) -> list[float]:
        """One figure per process."""
        return [statistics.median(times) for times in self.spawns]


def begin(model: Model, peers: Sequence[Peer], tools: Tools) -> list[Row]:
    """Rows in the order of ``peers``, those with their reasons that cannot run this model."""
    return [Row(peer, peer.reason(tools, model)) for peer in peers]


def measure(
    model: Model,
    rows: Sequence[Row],
    placement: Placement,
    settings: Settings,
    say: Callable[[str], None],
    within: Callable[[], bool] = lambda: True,
) -> None:
    """Fills the rows; when ``within`` says no more, peers are left out.

    Whatever ends this, what was measured until then is in the rows, compared.
    """
    try:
        _measure(model, rows, placement, settings, say, within)
    finally:
        for row in rows:
            if row.reason is None and not row.spawns:
                row.reason = "stopped before its turn"
        _compare(model, rows)


def _measure(
    model: Model,
    rows: Sequence[Row],
    placement: Placement,
    settings: Settings,
    say: Callable[[str], None],
    within: Callable[[], bool],
) -> None:
    for turn in range(settings.rounds):
        for row in rows:
            if row.reason is not None:
                continue
            if row.peer.key not in ("graphlet", "onnxruntime") and not within():
                row.reason = None if row.spawns else "left out: no time left"
                continue
            job = Job(model, settings.runs, 2, f"out-{row.peer.key}.f32")
            say(f"{model.title}: round {turn + 1} of {settings.rounds}: {row.peer.label}")
            _attempt(row, partial(_time, row, job, placement))
    for _ in range(settings.cold):
        for row in rows:
            if row.reason is None:
                job = Job(model, 0, 0, "out-cold.f32")
                say(f"{model.title}: start to first label: {row.peer.label}")
                _attempt(row, partial(_start, row, job, placement), "start to first label")
    for row in rows if settings.memory else ():
        if row.reason is None:
            job = Job(model, _for_samples(row), 2, "out-memory.f32")
            say(f"{model.title}: memory: {row.peer.label}")
            _attempt(row, partial(_memory, row, job), "memory")


def _attempt(row: Row, work: Callable[[], None], beside: str | None = None) -> None:
    """A failure is the row's reason; of what is measured ``beside`` the times, a note."""
    try:
        work()
    except PeerError as error:
        if beside is None:
            row.reason = str(error)
        else:
            row.notes.append(f"{beside}: {error}")


def _time(row: Row, job: Job, placement: Placement) -> None:
    done = row.peer.spawn(job, placement).events[-1]
    if done.get("event") != "done" or not done["ms"]:
        raise PeerError("it ended without figures")
    row.spawns.append([float(ms) for ms in done["ms"]])
    if "phases" in done:
        row.phases.append(done["phases"])


def _start(row: Row, job: Job, placement: Placement) -> None:
    """As a user would start it, on whatever cores there are: runtimes start with many threads."""
    row.cold_ms.append(row.peer.spawn(job, None).first_ms)
    if row.peer.key == "graphlet":
        row.cold_one_core_ms.append(row.peer.spawn(job, placement).first_ms)


def _memory(row: Row, job: Job) -> None:
    spawned = row.peer.spawn(job, None, sample=True)
    row.rss_kb, row.pss_kb = spawned.rss_kb, spawned.pss_kb


def _for_samples(row: Row) -> int:
    """So many pictures that the process is seen at work, however short its work is."""
    return max(5, min(20_000, round(MEMORY_MS / statistics.median(row.medians))))


def _compare(model: Model, rows: Sequence[Row]) -> None:
    """Every output beside onnxruntime's; without that one, beside ours."""
    outputs = {row.peer.key: _floats(model.folder / f"out-{row.peer.key}.f32") for row in rows}
    done = [row.peer.key for row in rows if row.reason is None]
    reference = outputs.get("onnxruntime" if "onnxruntime" in done else "graphlet")
    for row in rows:
        output = outputs[row.peer.key]
        if row.reason is None and output and reference:
            row.comparison = stats.compare(output, reference)


def _floats(path: Path) -> list[float]:
    found = array("f")
    try:
        found.frombytes(path.read_bytes())
    except (OSError, ValueError):
        return []
    return found.tolist()


def as_json(model: Model, rows: Sequence[Row]) -> dict[str, Any]:
    """All figures of a model, raw and summed up."""
    ours = next(row for row in rows if row.peer.key == "graphlet")
    return {
        "name": model.name,
        "title": model.title,
        "picture": model.picture.name,
        "shape": model.shape,
        "sizes": model.sizes,
        "graph": model.graph is not None,
        "input_difference": model.input_difference,
        "rows": [_row(model, row, ours) for row in rows],
    }


def _row(model: Model, row: Row, ours: Row) -> dict[str, Any]:
    peer = row.peer
    found: dict[str, Any] = {
        "key": peer.key,
        "label": peer.label,
        "kind": peer.kind,
        "version": peer.version,
        "reason": row.reason,
        "spawns_ms": row.spawns,
        "notes": row.notes,
    }
    if row.reason is not None or not row.spawns:
        return found
    found["median_ms"] = stats.spread(row.medians).as_json()
    found["best_ms"] = round(min(map(min, row.spawns)), 4)
    ratio = stats.ratios(ours.medians, row.medians) if ours.reason is None else None
    found["times_ours"] = ratio.as_json() if ratio else None
    if row.phases:
        names = row.phases[0]
        found["phases_ms"] = {
            name: round(statistics.median(p[name] for p in row.phases), 4) for name in names
        }
    if row.cold_ms:
        found["cold_ms"] = stats.spread(row.cold_ms).as_json()
    if row.cold_one_core_ms:
        found["cold_one_core_ms"] = stats.spread(row.cold_one_core_ms).as_json()
    if row.pss_kb:
        found["memory_kb"] = {"rss": row.rss_kb, "pss": row.pss_kb}
    file = peer.model_file(model)
    found["bytes"] = {
        "model": file.stat().st_size if file.exists() else None,
        "runtime": sum(path.stat().st_size for path in peer.runtime_files if path.exists()) or None,
    }
    if row.comparison is not None:
        found["output"] = {
            "max_difference": float(f"{row.comparison.max_difference:.3g}"),
            "same_label": row.comparison.same_label,
            "right": row.comparison.right,
        }
    return found
