"""``Resize``: which values each result is made of, and with what weights, along each axis.

Interpolation is separable, so that a table per axis is all there is to know. The formulas are those
of ONNX's operator (https://onnx.ai/onnx/operators/onnx__Resize.html) and its reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphlet_compiler.graph import Array, Graph, Node

# Modes of `coordinate_transformation_mode` that TVM's own resize computes as ONNX does.
_TVM_KNOWS = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


@dataclass(frozen=True)
class Taps:
    """What the results along one axis are made of: ``[extent, taps]`` places and weights."""

    places: Array
    weights: Array
    # What is added, by result: a value that stands in for what lies outside.
    offsets: Array

    @property
    def copies(self) -> bool:
        """Whether each result is one value as it is."""
        return bool(np.all(self.weights == 1.0)) and not np.any(self.offsets)


@dataclass(frozen=True)
class _Way:
    """How one axis is resized."""

    before: int
    after: int
    scale: float
    # Begin and end of the part that is read, in parts of the axis.
    begin: float
    end: float


def needed(graph: Graph, node: Node) -> bool:
    """Whether TVM's own resize computes something else."""
    source, target = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    if graph.dtypes[node.inputs[0]] not in (np.float32, np.float64):
        return True
    # It resizes all but the first two axes, and knows the ratio of the sizes alone.
    if len(source) not in (3, 4, 5) or source[:2] != target[:2]:
        return True
    mode = node.attr("mode", "nearest")
    if node.op == "Upsample" or node.attr("antialias", 0) or mode == "cubic":
        return True
    if _mode(graph, node) not in _TVM_KNOWS:
        return True
    return any(
        not math.isclose(way.scale * way.before, way.after, abs_tol=1e-4)
        for way in _ways(graph, node)
    )


def refusal(graph: Graph, node: Node) -> str | None:
    """Why no table can be made; ``None`` if one can."""
    region = None if node.op == "Upsample" or graph.opset < 11 else node.input(1)
    if _mode(graph, node) == "tf_crop_and_resize" and region not in graph.constants:
        return "a region that is not constant"
    return None


def axes(graph: Graph, node: Node) -> Iterator[tuple[int, Taps]]:
    """The axes that change, with their tables."""
    if (problem := refusal(graph, node)) is not None:
        raise NotImplementedError(problem)
    cropped = _mode(graph, node) == "tf_crop_and_resize"
    for axis, way in enumerate(_ways(graph, node)):
        whole = not cropped or (way.begin, way.end) == (0.0, 1.0)
        if math.isclose(way.scale, 1.0) and way.before == way.after and whole:
            continue
        yield axis, _taps(graph, node, way)


def _ways(graph: Graph, node: Node) -> list[_Way]:
    before, after = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    rank = len(before)
    scales, sizes, roi = _given(graph, node)
    chosen = [int(axis) % rank for axis in node.attr("axes") or range(rank)]
    factors = [1.0] * rank
    if scales is not None:
        for axis, factor in zip(chosen, scales, strict=True):
            factors[axis] = float(factor)
    elif sizes is not None:
        wanted = [float(s) / before[a] for a, s in zip(chosen, sizes, strict=True)]
        policy = node.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            wanted = [min(wanted) if policy == "not_larger" else max(wanted)] * len(chosen)
        for axis, factor in zip(chosen, wanted, strict=True):
            factors[axis] = factor
    else:
        factors = [a / b for a, b in zip(after, before, strict=True)]
    begins, ends = [0.0] * rank, [1.0] * rank
    if roi is not None and roi.size == 2 * len(chosen):
        for index, axis in enumerate(chosen):
            begins[axis], ends[axis] = float(roi[index]), float(roi[index + len(chosen)])
    return [_Way(*way) for way in zip(before, after, factors, begins, ends, strict=True)]


def _mode(graph: Graph, node: Node) -> str:
    """How places in the result become places in the source."""
    # Before operator set 11 there was one way.
    default = "asymmetric" if node.op == "Upsample" or graph.opset < 11 else "half_pixel"
    return str(node.attr("coordinate_transformation_mode", default))


def _given(graph: Graph, node: Node) -> tuple[Array | None, Array | None, Array | None]:
    """Factors, sizes and region, each as far as the node has it."""

    def value(index: int) -> Array | None:
        name = node.input(index)
        array = None if name is None else graph.constants.get(name)
        return None if array is None or array.size == 0 else array

    if node.op == "Upsample":
        attribute = node.attr("scales")
        return (np.asarray(attribute) if attribute is not None else value(1)), None, None
    if graph.opset < 11:
        return value(1), None, None
    return value(2), value(3), value(1)


def _taps(graph: Graph, node: Node, way: _Way) -> Taps:
    mode = node.attr("mode", "nearest")
    antialias = bool(node.attr("antialias", 0))
    cubic = float(node.attr("cubic_coeff_a", -0.75))
    positions, outside = _positions(graph, node, way)
    floors = np.floor(positions)
    # A position on a value is taken for one right of the value before.
    ratios = np.where(positions == floors, 1.0, positions - floors)
    scale = min(way.scale, 1.0) if antialias else 1.0
    if mode == "nearest":
        weights = _nearest(ratios, graph, node)
    elif mode == "linear":
        weights = np.stack([_linear(ratio, scale) for ratio in ratios])
    else:
        weights = np.stack([_cubic(ratio, scale, cubic) for ratio in ratios])
    count = weights.shape[1]
    firsts = np.where(positions == floors, floors - 1, floors) - (count // 2 - 1)
    places = firsts[:, None].astype(np.int64) + np.arange(count)
    if node.attr("exclude_outside", 0):
        weights = np.where((places < 0) | (places >= way.before), 0.0, weights)
        totals = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(totals == 0, 1.0, totals)
    places = np.clip(places, 0, way.before - 1)
    offsets = np.zeros(way.after)
    if outside is not None:
        weights = np.where(outside[:, None], 0.0, weights)
        offsets = np.where(outside, float(node.attr("extrapolation_value", 0.0)), 0.0)
    if mode == "nearest":
        chosen = np.argmax(weights, axis=1)[:, None]
        places = np.take_along_axis(places, chosen, axis=1)
        weights = np.take_along_axis(weights, chosen, axis=1)
    return Taps(places, weights, offsets)


def _positions(graph: Graph, node: Node, way: _Way) -> tuple[Array, Array | None]:
    """Where each result lies in the source, and which ones lie outside."""
    mode = _mode(graph, node)
    y, width = np.arange(way.after, dtype=np.float64), way.scale * way.before
    if mode == "align_corners":
        return (y * 0 if width == 1 else y * (way.before - 1) / (width - 1)), None
    if mode == "asymmetric":
        return y / way.scale, None
    if mode == "tf_crop_and_resize":
        span = (way.end - way.begin) * (way.before - 1)
        x = y * 0 + span / 2 if width == 1 else y * span / (width - 1)
        x = x + way.begin * (way.before - 1)
        return x, (x < 0) | (x > way.before - 1)
    if mode == "pytorch_half_pixel" and width == 1:
        return y * 0 - 0.5, None
    x = (y + 0.5) / way.scale - 0.5
    if mode == "half_pixel_symmetric":
        x = x + way.before / 2 * (1 - way.after / width)
    return x, None


def _nearest(ratios: Array, graph: Graph, node: Node) -> Array:
    # The operators before number 11 had one way, too.
    older = node.op == "Upsample" or graph.opset < 11
    rounding = node.attr("nearest_mode", "floor" if older else "round_prefer_floor")
    upper = {
        "round_prefer_floor": ratios > 0.5,
        "round_prefer_ceil": ratios >= 0.5,
        "floor": ratios == 1.0,
        "ceil": ratios > 0.0,
    }[rounding]
    return np.stack([~upper, upper], axis=1).astype(np.float64)


def _linear(ratio: float, scale: float) -> Array:
    begin = math.floor(-1 / scale) + 1
    distances = (np.arange(begin, 2 - begin) - ratio) * scale
    weights = np.clip(1 - np.abs(distances), 0, 1)
    return np.asarray(weights / weights.sum())


def _cubic(ratio: float, scale: float, a: float) -> Array:
    begin = math.floor(-2 / scale) + 1
    x = np.abs((np.arange(begin, 2 - begin) - ratio) * scale)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return np.asarray(weights / weights.sum())
