"""Rounds: what fails is a row's reason or a note, and what was measured is kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphlet_bench import __main__ as bench
from graphlet_bench import report, rounds
from graphlet_bench.models import Graph, Model
from graphlet_bench.peers import Job, Peer, _classified
from graphlet_bench.process import Placement
from graphlet_bench.rounds import Row, Settings

SCORES = "[0.1, 0.7, 0.2]"


def peer(key: str, code: str) -> Peer:
    """A peer that writes its output and then does as ``code`` says; it knows ``runs``."""

    def command(job: Job) -> list[str]:
        write = f"import array; out = array.array('f', {SCORES})"
        write += f"; out.tofile(open({job.output!r}, 'wb')); runs = {job.runs}"
        return [sys.executable, "-c", f"{write}\n{code}"]

    kind = "ours" if key == "graphlet" else "wasm"
    return Peer(key, key, kind, "1", (), command, lambda model: model.folder / "model.onnx")


DONE = 'print(\'{"event": "done", "ms": [%s]}\')'
OURS = 'print(\'{"milliseconds": {"infer": 2.0, "total": 3.0}}\')'


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model("mobilenet_v2", tmp_path, "model.onnx", tmp_path, graph=Graph([1, 3, 4, 4], 1000))


def measured(model: Model, peers: list[Peer], settings: Settings) -> list[Row]:
    rows = [Row(peer) for peer in peers]
    rounds.measure(model, rows, Placement.find(), settings, lambda text: None)
    return rows


def test_each_peer_has_a_row_with_figures_or_a_reason(model: Model) -> None:
    fails = "import sys; sys.exit('Error: no such thing')"
    peers = [peer("graphlet", OURS), peer("slow", DONE % "4.0, 5.0, 6.0"), peer("broken", fails)]
    rows = measured(model, peers, Settings(2, 3, cold=0, memory=False))
    found = {row["key"]: row for row in rounds.as_json(model, rows)["rows"]}
    assert found["graphlet"]["median_ms"]["median"] == 2.0
    assert found["slow"]["times_ours"]["median"] == 2.5
    assert found["slow"]["output"]["right"]
    assert found["broken"]["reason"] == "exit code 1: Error: no such thing"
    assert "median_ms" not in found["broken"]


def test_a_start_that_fails_leaves_the_times_and_a_note(model: Model) -> None:
    # Starts are asked for with no timed pictures.
    code = f"assert runs, 'TypeError: nothing to run'\n{DONE % '4.0'}"
    settings = Settings(1, 3, cold=1, memory=False)
    rows = measured(model, [peer("graphlet", OURS), peer("fickle", code)], settings)
    found = rounds.as_json(model, rows)["rows"][1]
    assert found["median_ms"]["median"] == 4.0
    assert "cold_ms" not in found
    assert len(found["notes"]) == 1
    assert "start to first label: exit code 1" in found["notes"][0]


def test_rows_that_are_there_when_it_is_stopped_stay(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = peer("stopped", OURS)
    spawn = Peer.spawn

    def stop(self: Peer, *arguments: Any, **named: Any) -> Any:
        if self is stopped:
            raise KeyboardInterrupt
        return spawn(self, *arguments, **named)

    monkeypatch.setattr(Peer, "spawn", stop)
    rows = [Row(peer) for peer in (peer("graphlet", OURS), stopped)]
    settings = Settings(3, 3, cold=1, memory=True)
    with pytest.raises(KeyboardInterrupt):
        rounds.measure(model, rows, Placement.find(), settings, lambda text: None)
    entry = rounds.as_json(model, rows)
    machine = {"processor": "P", "cores": 1, "flags": [], "memory_gb": 1, "system": "Linux"}
    machine |= {"load_before": 0, "commit": None, "changed_files": 0, "node": None}
    settled = {"rounds": 3, "runs": 3, "placement": "pinned", "quick": False}
    results = {"date": "now", "machine": machine | {"chromium": None}, "settings": settled}
    bench.keep(results | {"models": [entry]}, tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "results.json").read_text())
    first, second = kept["models"][0]["rows"]
    assert first["median_ms"]["median"] == 2.0
    assert second["reason"] == "stopped before its turn"
    assert "stopped before its turn" in (tmp_path / "kept" / "results.md").read_text()


def test_a_graph_tells_its_size_and_that_it_is_not_served(model: Model) -> None:
    (model.folder / "model.onnx").write_bytes(b"0" * 2_000_000)
    rows = measured(model, [peer("graphlet", OURS)], Settings(1, 1, cold=0, memory=False))
    entry = rounds.as_json(model, rows)
    assert entry["sizes"] == {"memory": 1000}
    lines = list(report._model(entry | {"rounds": 1, "runs": 5}, {"rounds": 3}))
    assert "Processes of each: 1; pictures in each: 5." in lines
    assert any("its module of 2 MB is larger than what is signed" in line for line in lines)


def test_what_a_graph_prints_is_the_time_of_its_run() -> None:
    told = {"outputs": [], "milliseconds": {"load": 30.0, "run": 2.5}, "memory_bytes": 1}
    assert _classified(told) == {"event": "done", "ms": [2.5]}
    assert np.isclose(_classified({"milliseconds": {"infer": 2.0}})["ms"][0], 2.0)
