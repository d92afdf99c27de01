"""Operators on integers that stand for floats: their sums are exact, in 32 bits or in doubles."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphlet_compiler.graph import Node
from graphlet_compiler.parts import Parts


def convolved_integers(parts: Parts) -> list[Node] | None:
    """``ConvInteger``: products of bytes are exact in double precision."""
    node = parts.node
    wide = [parts.cast(name, np.float64) for name in node.inputs[:2]]
    for index in (0, 1):
        point = node.input(index + 2)
        if point is not None:
            point = parts.cast(point, np.float64)
            if index == 1 and len(parts.graph.shapes[node.inputs[3]]) == 1:
                point = parts.reshape(point, -1, *[1] * (len(parts.shape(1)) - 1))
            wide[index] = parts("Sub", wide[index], point)
    result = parts("Conv", *wide)
    parts.nodes[-1].attributes = node.attributes
    return parts.results(parts.cast(result, np.int32))


def multiplied_integers(parts: Parts) -> list[Node] | None:
    """``MatMulInteger``."""
    node = parts.node
    sides = []
    for index in (0, 1):
        side, point = parts.cast(node.inputs[index], np.int32), node.input(index + 2)
        if point is not None:
            point = parts.cast(point, np.int32)
            if index == 0 and parts.graph.shapes[node.inputs[2]] not in ((), (1,)):
                # One for each row.
                point = parts.axes("Unsqueeze", point, [-1])
            side = parts("Sub", side, point)
        sides.append(side)
    return parts.results(parts("MatMul", *sides))


def quantised_product(parts: Parts) -> list[Node] | None:
    """``QLinearMatMul``."""
    a, a_scale, a_point, b, b_scale, b_point, y_scale, y_point = parts.node.inputs
    sides = [
        parts("Sub", parts.cast(value, np.int32), parts.cast(point, np.int32))
        for value, point in ((a, a_point), (b, b_point))
    ]
    return _requantised(parts, parts("MatMul", *sides), (a_scale, b_scale, y_scale), y_point)


def quantised_convolution(parts: Parts) -> list[Node] | None:
    """``QLinearConv``."""
    node = parts.node
    x, x_scale, x_point, w, w_scale, w_point, y_scale, y_point = node.inputs[:8]
    bias = node.input(8)
    rank = len(parts.shape(0))

    def channels(value: str, extents: tuple[int, ...]) -> str:
        per_channel = len(parts.graph.shapes[value]) == 1
        return parts.reshape(value, *extents) if per_channel else value

    filters = (-1, *[1] * (rank - 1))
    outputs = (1, -1, *[1] * (rank - 2))
    wide = [
        parts("Sub", parts.cast(value, np.float64), parts.cast(point, np.float64))
        for value, point in ((x, x_point), (w, channels(w_point, filters)))
    ]
    total = parts("Conv", *wide)
    parts.nodes[-1].attributes = node.attributes
    if bias is not None:
        total = parts("Add", total, parts.reshape(parts.cast(bias, np.float64), *outputs))
    scales = (x_scale, channels(w_scale, outputs), y_scale)
    return _requantised(parts, total, scales, y_point)


def quantised_blocks(parts: Parts) -> list[Node] | None:
    """``QuantizeLinear`` with a scale for each block along an axis."""
    node = parts.node
    if not node.attr("block_size", 0) or len(parts.shape(1)) != len(parts.shape(0)):
        return None
    dtype = parts.graph.dtypes[node.outputs[0]]
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        return None
    value = parts("Div", *(parts.cast(v, np.float32) for v in (node.inputs[0], _spread(parts, 1))))
    value = parts.cast(parts("Round", value), np.float64)
    if node.input(2) is not None:
        value = parts("Add", value, parts.cast(_spread(parts, 2), np.float64))
    return parts.results(_saturated(parts, value, dtype))


def dequantised_blocks(parts: Parts) -> list[Node] | None:
    """``DequantizeLinear`` likewise."""
    node = parts.node
    if not node.attr("block_size", 0) or len(parts.shape(1)) != len(parts.shape(0)):
        return None
    value = parts.cast(node.inputs[0], np.float32)
    if node.input(2) is not None:
        value = parts("Sub", value, parts.cast(_spread(parts, 2), np.float32))
    scaled = parts("Mul", value, parts.cast(_spread(parts, 1), np.float32))
    return parts.results(parts.cast(scaled, parts.graph.dtypes[node.outputs[0]]))


def _requantised(parts: Parts, total: str, scales: tuple[str, str, str], point: str) -> list[Node]:
    """``round(total * a * b / y) + point``, saturated, in double precision."""
    dtype = parts.graph.dtypes[point]
    if parts.graph.opset < 11:
        # There was no rounding operator yet, but one that rounds.
        a, b, y = scales
        factor = parts("Div", parts("Mul", a, b), y)
        scaled = parts("Mul", parts.cast(total, np.float32), factor)
        one = parts.constant(1, np.float32)
        return parts.results(parts("QuantizeLinear", scaled, one, point))
    a, b, y = (parts.cast(scale, np.float64) for scale in scales)
    factor = parts("Div", parts("Mul", a, b), y)
    scaled = parts("Mul", parts.cast(total, np.float64), factor)
    shifted = parts("Add", scaled, parts.cast(point, np.float64))
    return parts.results(_saturated(parts, parts("Round", shifted), dtype))


def _saturated(parts: Parts, value: str, dtype: Any) -> str:
    info = np.iinfo(dtype)
    low, high = (parts.constant(bound, np.float64) for bound in (info.min, info.max))
    return parts.cast(parts("Min", parts("Max", value, low), high), dtype)


def _spread(parts: Parts, index: int) -> str:
    """A value for each block, as one for each element."""
    node, whole = parts.node, parts.shape(0)
    shape = parts.shape(index)
    axis, size = int(node.attr("axis", 1)) % len(whole), int(node.attr("block_size", 0))
    extents = [*shape[: axis + 1], size, *shape[axis + 1 :]]
    wide = parts.axes("Unsqueeze", node.inputs[index], [axis + 1])
    wide = parts("Expand", wide, parts.integers(*extents))
    flat = parts.reshape(wide, *shape[:axis], shape[axis] * size, *shape[axis + 1 :])
    return flat if shape[axis] * size == whole[axis] else parts.slice(flat, axis, 0, whole[axis])
