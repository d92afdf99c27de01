"""Statistics, comparison of outputs, targets, and what is read from other programs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from graphlet_bench import http_load, kernels, stats, targets
from graphlet_bench.models import ModelError


def test_a_spread_is_the_median_and_the_extremes() -> None:
    assert stats.spread([3.0, 1.0, 2.0, 9.0]).as_json() == {"median": 2.5, "low": 1, "high": 9}
    assert stats.spread([4.0]).as_json() == {"median": 4, "low": 4, "high": 4}


def test_ratios_are_taken_within_each_round() -> None:
    # The machine is three times slower in the second round: the ratio stays two.
    found = stats.ratios([10.0, 30.0, 10.0], [20.0, 60.0, 21.0])
    assert found is not None
    assert found.as_json() == {"median": 2.0, "low": 2.0, "high": 2.1}
    # A peer that fell behind has fewer rounds.
    assert stats.ratios([10.0, 30.0], [20.0]) == stats.Spread(2.0, 2.0, 2.0)
    assert stats.ratios([], [20.0]) is None


def test_logits_and_probabilities_of_one_model_compare_equal() -> None:
    logits = [1.0, 3.0, -2.0]
    found = stats.compare(stats.softmax(logits), logits)
    assert found.right
    assert found.max_difference < 1e-12


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ([0.1, 0.2, 0.7], "another label"),
        ([0.7, 0.1, 0.2], "probabilities differ by more than rounding"),
        ([0.8, 0.2], "another length"),
        ([math.nan, 0.1, 0.1], "not numbers"),
        ([], "nothing"),
    ],
)
def test_a_wrong_output_is_not_right(output: list[float], why: str) -> None:
    assert not stats.compare(output, [0.8, 0.1, 0.1]).right, why


def test_rounding_is_no_mistake() -> None:
    found = stats.compare([0.8001, 0.0999, 0.1], [0.8, 0.1, 0.1])
    assert found.right
    assert found.max_difference == pytest.approx(1e-4)


def results(**times: float) -> dict[str, Any]:
    """Results of MobileNetV2 with these rows, each so many times as slow as ours."""
    spread = {"median": 20.0, "low": 19.0, "high": 21.0}
    rows = [
        {
            "key": key.replace("_", "-"),
            "reason": None,
            "median_ms": spread,
            "times_ours": {"median": ratio, "low": ratio, "high": ratio},
            "output": {"right": True, "max_difference": 1e-6, "same_label": True},
        }
        for key, ratio in times.items()
    ]
    sizes = {"activations": 7_000_000, "params": 14_000_000}
    return {"models": [{"name": "mobilenet_v2", "title": "M", "rows": rows, "sizes": sizes}]}


def judged(value: dict[str, Any], part: str) -> dict[str, Any]:
    found = [target for target in targets.judge(value) if part in target["target"]]
    assert len(found) == 1, found
    return found[0]


def test_a_target_is_reached_missed_or_not_measured() -> None:
    value = results(litert_chromium=1.31, tract_wasmtime=2.1, onnxruntime=0.4)
    assert judged(value, "MobileNetV2: faster than LiteRT.js")["reached"] is True
    assert judged(value, "MobileNetV2: faster than tract")["reached"] is False
    slower = judged(value, "MobileNetV2: slower than onnxruntime")
    assert (slower["value"], slower["reached"]) == (2.5, True)
    absent = judged(value, "ResNet50: faster than LiteRT.js")
    assert (absent["value"], absent["reached"]) == (None, None)


def test_a_row_with_a_wrong_output_reaches_nothing() -> None:
    value = results(litert_chromium=9.0)
    value["models"][0]["rows"][0]["output"]["right"] = False
    assert judged(value, "MobileNetV2: faster than LiteRT.js")["reached"] is None


def test_memory_targets_follow_the_models_activations() -> None:
    value = results(graphlet=1.0)
    value["http"] = {"model": "mobilenet_v2", "further_instance_kb": 10_000, "scaling": 0.97}
    memory = judged(value, "memory of a further instance")
    assert (memory["bound"], memory["value"], memory["reached"]) == (11.0, 10.24, True)
    assert judged(value, "on all cores")["reached"] is True
    assert judged(value, "memory of a further process")["reached"] is None


def test_a_cold_start_is_counted_beyond_one_inference() -> None:
    value = results(graphlet=1.0)
    value["models"][0]["rows"][0]["cold_ms"] = {"median": 50.0, "low": 50.0, "high": 50.0}
    start = judged(value, "MobileNetV2: process start")
    assert (start["value"], start["reached"]) == (30.0, False)


def oha(**fields: Any) -> dict[str, Any]:
    return {
        "summary": {"total": 8.0, "requestsPerSec": 41.5, "average": 0.0243},
        "latencyPercentiles": {"p50": 0.0241, "p99": 0.0317},
        "statusCodeDistribution": {"200": 330},
        "errorDistribution": {"aborted due to deadline": 2},
    } | fields


def test_a_load_report_keeps_rate_and_waits_in_milliseconds() -> None:
    assert http_load.figures(oha()) == {
        "requests_per_second": 41.25,
        "mean_ms": 24.3,
        "p50_ms": 24.1,
        "p99_ms": 31.7,
        "answers": 330,
    }


def test_the_graphs_time_is_read_from_the_servers_metrics() -> None:
    metrics = """# TYPE graphlet_inference_seconds histogram
graphlet_inference_seconds_bucket{model="m",phase="infer",le="0.1"} 3
graphlet_inference_seconds_sum{model="m",version="1.0.0",phase="decode"} 0.5
graphlet_inference_seconds_sum{model="m",version="1.0.0",phase="infer"} 0.0625
graphlet_inference_seconds_count{model="m",version="1.0.0",phase="infer"} 3
"""
    assert http_load.graph_in(metrics) == (0.0625, 3)
    with pytest.raises(ModelError):
        http_load.graph_in("graphlet_up 1\n")


@pytest.mark.parametrize(
    "fields",
    [
        {"statusCodeDistribution": {"200": 3, "503": 1}},
        {"statusCodeDistribution": {}},
        {"errorDistribution": {"connection refused": 1}},
    ],
)
def test_a_load_with_other_answers_than_200_gives_no_figures(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        http_load.figures(oha(**fields))


def test_memory_of_further_instances_is_a_mean_over_them() -> None:
    steps = [{"instances": n, "pss_kb": 30_000 + 9_000 * n} for n in (1, 2, 4)]
    assert http_load.further(steps) == 9_000
    assert http_load.further(steps[:1]) is None


def test_the_closing_line_of_each_class_of_kernels_is_read() -> None:
    printed = """1x1 16->96 112x112                          0.982 ms   19.6 G/s  0.71
1x1 all                                     9.402 ms   20.6 G/s  0.75

depthwise stride 2 all                      1.100 ms    8.6 G/s  0.31

slower than benches/ratios.json by more than 15 %:
  1x1 16->96 112x112: 0.500 instead of 0.710
"""
    assert kernels.parse(printed) == {"1x1": 0.75, "depthwise stride 2": 0.31}
    assert kernels.parse("skipped: no toolchain here\n") == {}


def test_instances_are_read_from_the_hosts_log() -> None:
    log = "\n".join(
        [
            '{"level":"DEBUG","fields":{"message":"Instance begun","instance_us":830}}',
            "a line that is no JSON",
            '{"level":"DEBUG","message":"Instance begun","instance_us":1200}',
            '{"level":"INFO","fields":{"message":"Ready"}}',
        ]
    )
    assert http_load.begun_ms(log) == [0.83, 1.2]
    found = {"http": {"model": "mobilenet_v2", "instance_ms": {"median": 0.83}}}
    judged = [t for t in targets.judge(found) if "a further instance, made" in t["target"]]
    assert [(t["value"], t["reached"]) for t in judged] == [(0.83, True)]
