"""The table and the plots of a run."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from graphlet_bench import plots, report, svg, targets

SVG = "{http://www.w3.org/2000/svg}"


def row(key: str, kind: str, **fields: Any) -> dict[str, Any]:
    spread = {"median": 20.0, "low": 19.5, "high": 24.0}
    return {
        "key": key,
        "label": key,
        "kind": kind,
        "version": "1.2",
        "reason": None,
        "spawns_ms": [[20.0]],
        "median_ms": spread,
        "times_ours": {"median": 1.5, "low": 1.4, "high": 1.6},
        "cold_ms": {"median": 80.0, "low": 70.0, "high": 90.0},
        "memory_kb": {"rss": 50_000, "pss": 40_000},
        "bytes": {"model": 14_000_000, "runtime": None},
        "output": {"right": True, "max_difference": 1e-6, "same_label": True},
    } | fields


@pytest.fixture
def results() -> dict[str, Any]:
    wrong = {"right": False, "max_difference": 0.3, "same_label": False}
    rows = [
        row("graphlet", "ours", phases_ms={"decode": 1.0, "infer": 20.0, "total": 21.5}),
        row("a & b <c>", "wasm", output=wrong),
        row("absent", "native", reason="no node here | apt-get install nodejs"),
    ]
    found: dict[str, Any] = {
        "date": "2026-01-01 00:00 UTC",
        "load_after": 0.2,
        "machine": {
            "processor": "P",
            "cores": 4,
            "flags": ["fma"],
            "memory_gb": 24,
            "system": "Linux",
            "load_before": 0.1,
            "commit": "abc",
            "changed_files": 0,
            "node": "v20",
            "chromium": None,
        },
        "settings": {"rounds": 3, "runs": 20, "placement": "pinned to core 3", "quick": False},
        "models": [
            {
                "name": "mobilenet_v2",
                "title": "MobileNetV2",
                "picture": "cat.png",
                "sizes": {"activations": 7_000_000},
                "rows": rows,
            },
            {"name": "resnet50", "title": "ResNet50", "rows": [], "reason": "no models here"},
        ],
        "http": {
            "model": "mobilenet_v2",
            "picture": "cat.png",
            "seconds": 8,
            "steps": [
                {
                    "instances": n,
                    "requests_per_second": 40.0 * n,
                    "p50_ms": 24.0,
                    "p99_ms": 30.0,
                    "pss_kb": 40_000,
                    "rss_kb": 50_000,
                }
                for n in (1, 2)
            ],
        },
    }
    found["targets"] = targets.judge(found)
    return found


def test_every_line_of_a_table_has_as_many_cells(results: dict[str, Any]) -> None:
    text = report.markdown(results)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for block in tables:
        # An escaped bar is part of a cell.
        cells = {line.replace("\\|", "").count("|") for line in block.splitlines()}
        assert len(cells) == 1, block


def test_an_absent_peer_shows_its_reason_and_a_wrong_output_is_called_wrong(
    results: dict[str, Any],
) -> None:
    text = report.markdown(results)
    assert "not measured: no node here" in text
    assert "**WRONG** (0.3)" in text
    assert "Not measured: no models here." in text
    assert "| **graphlet 1.2** | 20.00 | 19.50-24.00 | 1.50 | 80 | 41 | 51 | 14.0 |" in text


def test_every_plot_is_well_formed_and_shows_its_labels(results: dict[str, Any]) -> None:
    drawn = plots.draw(results)
    assert set(drawn) == {
        "latency-mobilenet_v2.svg",
        "memory-mobilenet_v2.svg",
        "start-mobilenet_v2.svg",
        "throughput.svg",
    }
    for name, text in drawn.items():
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg", name
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for rect in root.iter(f"{SVG}rect"):
            right = float(rect.attrib["x"]) + float(rect.attrib["width"])
            assert 0 <= right <= width, name
        for label in root.iter(f"{SVG}text"):
            assert 0 <= float(label.attrib["y"]) <= height, label.text
    shown = [t.text for t in ElementTree.fromstring(drawn["latency-mobilenet_v2.svg"]).iter()]
    assert "a & b <c>" in shown
    assert "20.0 (wrong output)" in shown
    assert any(text and text.startswith("not measured: no node") for text in shown)


@pytest.mark.parametrize(
    ("top", "step"), [(0.3, 0.1), (9, 2), (10, 2), (24, 5), (330, 100), (1100, 500), (0, 2e-10)]
)
def test_axes_have_round_steps(top: float, step: float) -> None:
    assert svg.nice_step(top) == pytest.approx(step)


@pytest.mark.parametrize(("value", "shown"), [(0.123, "0.12"), (17.64, "17.6"), (207.4, "207")])
def test_figures_have_the_digits_that_matter(value: float, shown: str) -> None:
    assert svg.number(value) == shown
