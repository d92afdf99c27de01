"""The project's targets for speed and memory, and which of them a run's figures reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One figure that was set before it was measured."""

    text: str
    bound: float
    #: "least" when more is better, "most" when less is
    sense: str
    unit: str
    found: Callable[[Results], float | None]

    def judge(self, results: Results) -> dict[str, Any]:
        """The figure beside its target; ``reached`` is ``None`` when it was not measured."""
        value = self.found(results)
        reached = None
        if value is not None:
            reached = value >= self.bound if self.sense == "least" else value <= self.bound
        return {
            "target": self.text,
            "bound": self.bound,
            "sense": self.sense,
            "unit": self.unit,
            "value": None if value is None else round(value, 3),
            "reached": reached,
        }


def judge(results: Results) -> list[dict[str, Any]]:
    """All targets."""
    return [target.judge(results) for target in _targets(results)]


def _targets(results: Results) -> Iterator[Target]:
    titles = {"mobilenet_v2": "MobileNetV2", "squeezenet1.0": "SqueezeNet 1.0"}
    titles["resnet50"] = "ResNet50"
    peers = [
        ("litert-chromium", "faster than LiteRT.js in Chromium", (1.3, 1.7, 1.5)),
        ("tract-wasmtime", "faster than tract in wasmtime", (2.2, 2.9, 2.4)),
    ]
    for key, text, bounds in peers:
        for (name, title), bound in zip(titles.items(), bounds, strict=True):
            yield Target(f"{title}: {text}", bound, "least", "times", _times(name, key))
    for (name, title), bound in zip(titles.items(), (2.7, 2.8, 3.2), strict=True):
        text = f"{title}: slower than onnxruntime, native"
        yield Target(text, bound, "most", "times", _inverse(_times(name, "onnxruntime")))
    for kernel in ("1x1", "3x3", "stem 7x7"):
        text = f"{kernel} kernels against the core's 128-bit FMA loop"
        yield Target(text, 0.85, "least", "of it", _kernel(kernel))
    activations = _megabytes(results, "mobilenet_v2", "activations")
    yield Target(
        f"MobileNetV2: memory of a further instance, weights shared (activations "
        f"{activations or 0:.1f} MB + 4)",
        (activations or 0) + 4,
        "most",
        "MB",
        _http("mobilenet_v2", "further_instance_kb", 1e3),
    )
    yield Target(
        "MobileNetV2: memory of a further process (activations + 15 MB)",
        (activations or 0) + 15,
        "most",
        "MB",
        _http("mobilenet_v2", "further_process_kb", 1e3),
    )
    text = "MobileNetV2: a further instance, made and asked for its health"
    yield Target(text, 1, "most", "ms", _instance("mobilenet_v2"))
    for name, bound in (("mobilenet_v2", 25), ("resnet50", 40)):
        text = f"{titles[name]}: process start to first label, beyond one inference"
        yield Target(text, bound, "most", "ms", _cold(name))
    text = "MobileNetV2: a fresh instance per request, dearer than a pooled one"
    yield Target(text, 1.5, "most", "ms", _extra("fresh_instance_ms"))
    text = "MobileNetV2: everything around the graph, 500x375 JPEG over HTTP"
    yield Target(text, 4, "most", "ms", _extra("around_the_graph_ms"))
    text = "MobileNetV2: a 12-megapixel JPEG to its label, over HTTP"
    yield Target(text, 90, "most", "ms", _extra("twelve_megapixels_ms"))
    text = "MobileNetV2: requests a second on all cores against as many times one"
    yield Target(text, 0.95, "least", "of it", _http("mobilenet_v2", "scaling", 1))


def model(results: Results, name: str) -> Results | None:
    """The results of one model."""
    return next((m for m in results.get("models", []) if m["name"] == name), None)


def row(results: Results, name: str, key: str) -> Results | None:
    """The row of one peer, if it has figures that count."""
    found = model(results, name) or {"rows": []}
    for candidate in found["rows"]:
        right = candidate.get("output", {"right": True})["right"]
        if candidate["key"] == key and not candidate["reason"] and right:
            return dict(candidate)
    return None


def _times(name: str, key: str) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        ratio = (row(results, name, key) or {}).get("times_ours")
        return ratio["median"] if ratio else None

    return found


def _inverse(of: Callable[[Results], float | None]) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        value = of(results)
        return 1 / value if value else None

    return found


def _kernel(name: str) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        value = (results.get("kernels") or {}).get(name)
        return None if value is None else float(value)

    return found


def _megabytes(results: Results, name: str, size: str) -> float | None:
    sizes = (model(results, name) or {}).get("sizes", {})
    return sizes[size] / 1e6 if size in sizes else None


def _http(name: str, key: str, divisor: float) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        http = results.get("http") or {}
        value = http.get(key) if http.get("model") == name else None
        # Kilobytes of /proc are of 1,024 bytes.
        return None if value is None else value * (1.024 if key.endswith("_kb") else 1) / divisor

    return found


def _instance(name: str) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        http = results.get("http") or {}
        began = http.get("instance_ms") if http.get("model") == name else None
        return None if began is None else float(began["median"])

    return found


def _cold(name: str) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        ours = row(results, name, "graphlet") or {}
        if "cold_ms" not in ours:
            return None
        return float(ours["cold_ms"]["median"] - ours["median_ms"]["median"])

    return found


def _extra(key: str) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        value = (results.get("requests") or {}).get(key)
        return None if value is None else float(value)

    return found
