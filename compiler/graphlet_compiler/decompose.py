"""Operators that are written as simpler ones: TVM's importer lacks them, or gets some form wrong.

What ONNX itself defines as a function is expanded when the file is read (`onnx_file`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphlet_compiler import recurrent
from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.parts import Parts

_HALVES = ("float16", "bfloat16")

# Operators that add up many values, or whose curve needs more than a half has.
_SUMS = {
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Softmax",
    "LogSoftmax",
    "LayerNormalization",
    "Mish",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "AveragePool",
    "GlobalAveragePool",
    "InstanceNormalization",
}


def decompose(graph: Graph) -> bool:
    """Rewrites every operator that it knows; whether there was one."""
    nodes: list[Node] = []
    changed = False
    for node in graph.nodes:
        written = _written(graph, node)
        changed = changed or written is not None
        nodes.extend([node] if written is None else written)
    graph.nodes = nodes
    return changed


def _written(graph: Graph, node: Node) -> list[Node] | None:
    if node.domain:
        return None
    if node.outputs and all(0 in graph.shapes.get(n, ()) for n in node.outputs if n):
        return _empty(graph, node)
    known = all(n in graph.shapes and n in graph.dtypes for n in (*node.inputs, *node.outputs) if n)
    if not known:
        return None
    rule = _RULES.get(node.op)
    written = None if rule is None else rule(Parts(graph, node))
    if written is None and node.op in _SUMS:
        written = _widened(Parts(graph, node))
    return written


def _empty(graph: Graph, node: Node) -> list[Node] | None:
    """Tensors without elements: nothing is left to be computed."""
    names = [name for name in node.outputs if name]
    if any(name not in graph.dtypes for name in names):
        return None
    for name in names:
        graph.constants[name] = np.empty(graph.shapes[name], graph.dtypes[name])
    return []


def _widened(parts: Parts) -> list[Node] | None:
    """Half precision is summed in 32 bits and rounded once."""
    graph, node = parts.graph, parts.node
    names = [name for name in node.inputs if name]
    halves = [name for name in names if str(graph.dtypes[name]) in _HALVES]
    if not halves or str(graph.dtypes[node.outputs[0]]) not in _HALVES:
        return None
    wide = [parts.cast(n, np.float32) if n in halves else n for n in node.inputs]
    targets = parts.several(node.op, len(node.outputs), *wide)
    parts.nodes[-1].attributes = node.attributes
    return parts.results(
        *(
            parts.cast(target, graph.dtypes[name])
            if name and str(graph.dtypes[name]) in _HALVES
            else target
            for target, name in zip(targets, node.outputs, strict=True)
        )
    )


def _is_inf(parts: Parts) -> list[Node] | None:
    negative = parts.node.attr("detect_negative", 1)
    positive = parts.node.attr("detect_positive", 1)
    if negative and positive:
        return None
    value, dtype = parts.node.inputs[0], parts.dtype()
    if not negative and not positive:
        shape = parts.shape()
        return parts.results(parts.constant(np.zeros(shape), np.bool_))
    infinite = parts.constant(np.inf if positive else -np.inf, dtype)
    return parts.results(parts("Equal", value, infinite))


def _cast(parts: Parts) -> list[Node] | None:
    """Halves to 64 bits by way of 32: no runtime library has that step at once."""
    wide = parts.graph.dtypes[parts.node.outputs[0]]
    if str(parts.dtype()) not in _HALVES or wide != np.float64:
        return None
    return parts.results(parts.cast(parts.cast(parts.node.inputs[0], np.float32), wide))


def _cast_like(parts: Parts) -> list[Node] | None:
    """``Cast``: only the other operand's type matters, not what is in it."""
    return parts.results(parts.cast(parts.node.inputs[0], parts.dtype(1)))


def _lp_normalization(parts: Parts) -> list[Node] | None:
    axis = int(parts.node.attr("axis", -1)) % len(parts.shape())
    value = parts.node.inputs[0]
    norm = "ReduceL1" if parts.node.attr("p", 2) == 1 else "ReduceL2"
    length = parts.axes(norm, value, [axis], keepdims=1)
    nothing = parts("Equal", length, parts.constant(0, parts.dtype()))
    one = parts.constant(1, parts.dtype())
    return parts.results(parts("Div", value, parts("Where", nothing, one, length)))


def _batch_norm(parts: Parts) -> list[Node] | None:
    """In training mode: by the statistics of this batch."""
    node, graph = parts.node, parts.graph
    if not node.attr("training_mode", 0) or graph.opset < 14:
        return None
    value, scale, bias, mean, variance = node.inputs[:5]
    rank = len(parts.shape())
    over = [axis for axis in range(rank) if axis != 1]
    dtype = parts.dtype()
    centre = parts.axes("ReduceMean", value, over, keepdims=1)
    apart = parts("Sub", value, centre)
    spread = parts.axes("ReduceMean", parts("Mul", apart, apart), over, keepdims=1)
    epsilon = parts.constant(node.attr("epsilon", 1e-5), dtype)
    root = parts("Sqrt", parts("Add", spread, epsilon))
    extents = [1, -1] + [1] * (rank - 2)
    scaled = parts("Mul", parts("Div", apart, root), parts.reshape(scale, *extents))
    result = parts("Add", scaled, parts.reshape(bias, *extents))
    momentum = float(node.attr("momentum", 0.9))

    def running(old: str, new: str) -> str:
        kind = graph.dtypes[old]
        flat = parts.cast(parts.reshape(new, -1), kind)
        kept = parts("Mul", old, parts.constant(momentum, kind))
        return parts("Add", kept, parts("Mul", flat, parts.constant(1 - momentum, kind)))

    return parts.results(result, running(mean, centre), running(variance, spread))


def _dropout(parts: Parts) -> list[Node] | None:
    """Where nothing is dropped, with the mask that says so."""
    node = parts.node
    switch, ratio = parts.constants_of(2), parts.constants_of(1)
    training = node.input(2) is not None and (switch is None or bool(switch))
    none = ratio is not None and float(ratio) == 0.0
    if training and not none:
        return None
    if len(node.outputs) < 2 or not node.outputs[1]:
        return parts.results(node.inputs[0]) if training else None
    mask = parts.graph.dtypes[node.outputs[1]]
    return parts.results(node.inputs[0], parts.constant(np.ones(parts.shape()), mask))


def _clip(parts: Parts) -> list[Node] | None:
    """Of integers, and of bounds that come with the input, as a maximum and a minimum."""
    node, dtype = parts.node, parts.dtype()
    if parts.graph.opset < 11:
        return None
    bounds = [node.input(1), node.input(2)]
    given = [name for name in bounds if name is not None]
    if dtype.kind not in "iu" and all(name in parts.graph.constants for name in given):
        return None
    value = node.inputs[0]
    for bound, op in zip(bounds, ("Max", "Min"), strict=True):
        if bound is not None:
            value = parts(op, value, bound)
    return parts.results(value)


def _pow(parts: Parts) -> list[Node] | None:
    """Of operands of two types, and of integers: in floats that hold both."""
    base, exponent = parts.dtype(0), parts.dtype(1)
    if base == exponent and base.kind not in "iu":
        return None
    wide = np.float64 if base.kind in "iu" or base == np.float64 else np.float32
    raised = parts("Pow", *(parts.cast(name, wide) for name in parts.node.inputs))
    if base.kind in "iu" and exponent.kind in "iu":
        raised = parts("Round", raised)
    return parts.results(parts.cast(raised, base))


def _convolved_integers(parts: Parts) -> list[Node] | None:
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


def _multiplied_integers(parts: Parts) -> list[Node] | None:
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


def _quantised_product(parts: Parts) -> list[Node] | None:
    """``QLinearMatMul``."""
    a, a_scale, a_point, b, b_scale, b_point, y_scale, y_point = parts.node.inputs
    sides = [
        parts("Sub", parts.cast(value, np.int32), parts.cast(point, np.int32))
        for value, point in ((a, a_point), (b, b_point))
    ]
    return _requantised(parts, parts("MatMul", *sides), (a_scale, b_scale, y_scale), y_point)


def _quantised_convolution(parts: Parts) -> list[Node] | None:
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


def _quantised_blocks(parts: Parts) -> list[Node] | None:
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


def _dequantised_blocks(parts: Parts) -> list[Node] | None:
    """``DequantizeLinear`` likewise."""
    node = parts.node
    if not node.attr("block_size", 0) or len(parts.shape(1)) != len(parts.shape(0)):
        return None
    value = parts.cast(node.inputs[0], np.float32)
    if node.input(2) is not None:
        value = parts("Sub", value, parts.cast(_spread(parts, 2), np.float32))
    scaled = parts("Mul", value, parts.cast(_spread(parts, 1), np.float32))
    return parts.results(parts.cast(scaled, parts.graph.dtypes[node.outputs[0]]))


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


def _transposed_convolution(parts: Parts) -> list[Node] | None:
    """``ConvTranspose`` that is told its result's extents: the padding follows from them."""
    node = parts.node
    wanted = node.attr("output_shape")
    if wanted is None:
        return _widened(parts)
    source, kernel = parts.shape(0)[2:], parts.shape(1)[2:]
    rank = len(source)
    strides, dilations = node.attr("strides", [1] * rank), node.attr("dilations", [1] * rank)
    more = list(node.attr("output_padding", [0] * rank))
    before, after = [0] * rank, [0] * rank
    upper = node.attr("auto_pad", "NOTSET") == "SAME_UPPER"
    for d, extent in enumerate(list(wanted)[-rank:]):
        reach = strides[d] * (source[d] - 1) + (kernel[d] - 1) * dilations[d] + 1
        total = reach + more[d] - int(extent)
        if total < 0:
            more[d] -= total
            total = 0
        first = total // 2 if upper else total - total // 2
        before[d], after[d] = first, total - first
    attributes = {k: v for k, v in node.attributes.items() if k not in ("output_shape", "auto_pad")}
    result = parts("ConvTranspose", *node.inputs)
    parts.nodes[-1].attributes = attributes
    parts.nodes[-1].set_attr("pads", before + after)
    parts.nodes[-1].set_attr("output_padding", more)
    return parts.results(result)


def _dft(parts: Parts) -> list[Node] | None:
    """A Fourier transform as products with its matrices, which are constants."""
    node, shape = parts.node, parts.shape()
    rank = len(shape)
    if parts.graph.opset >= 20:
        given = parts.constants_of(2)
        if node.input(2) is not None and given is None:
            return None
        axis = -2 if given is None else int(given.item())
    else:
        axis = int(node.attr("axis", 1))
    axis %= rank
    inverse, half = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    length = parts.constants_of(1)
    if node.input(1) is not None and length is None:
        return None
    whole = shape[axis]
    if inverse and half:
        whole = 2 * (shape[axis] - 1)
    count = whole if length is None else int(length.item())
    order = [a for a in range(rank - 1) if a != axis] + [axis]
    real = _component(parts, node.inputs[0], rank, 0, order)
    imaginary = _component(parts, node.inputs[0], rank, 1, order) if shape[-1] == 2 else None
    rows = _transformed(parts, real, imaginary, shape[axis], count, inverse, half)
    back = [order.index(a) for a in range(rank - 1)]
    columns = [parts.axes("Unsqueeze", parts("Transpose", r, perm=back), [rank - 1]) for r in rows]
    return parts.results(parts("Concat", *columns, axis=rank - 1))


def _component(parts: Parts, value: str, rank: int, index: int, order: list[int]) -> str:
    one = parts.slice(value, rank - 1, index, index + 1)
    flat = parts.axes("Squeeze", one, [rank - 1])
    return parts("Transpose", flat, perm=order)


def _transformed(
    parts: Parts,
    real: str,
    imaginary: str | None,
    extent: int,
    count: int,
    inverse: bool,
    half: bool,
) -> list[str]:
    """Real and imaginary parts of the transform along the last axis, ``count`` values long."""
    dtype = parts.dtype()
    used = min(extent, count if not (inverse and half) else count // 2 + 1)
    results = count if inverse or not half else count // 2 + 1
    angles = 2 * math.pi * np.outer(np.arange(used), np.arange(results)) / count
    factor = np.ones((used, 1))
    if inverse and half:
        # What is not there mirrors what is, but for the first value and the middle one.
        factor[1:] = 2
        if count % 2 == 0 and used == count // 2 + 1:
            factor[-1] = 1
    factor = factor / count if inverse else factor
    cosine = parts.constant(np.cos(angles) * factor, dtype)
    sine = parts.constant(np.sin(angles) * factor * (1 if inverse else -1), dtype)

    def cut(value: str) -> str:
        last = len(parts.shape()) - 2
        return parts.slice(value, last, 0, used) if used < extent else value

    real = cut(real)
    imaginary = None if imaginary is None else cut(imaginary)
    upper, lower = parts("MatMul", real, cosine), parts("MatMul", real, sine)
    if imaginary is not None:
        upper = parts("Sub", upper, parts("MatMul", imaginary, sine))
        lower = parts("Add", lower, parts("MatMul", imaginary, cosine))
    return [upper] if inverse and half else [upper, lower]


def _stft(parts: Parts) -> list[Node] | None:
    node, shape = parts.node, parts.shape()
    step, window, length = parts.constants_of(1), node.input(2), parts.constants_of(3)
    if step is None or (node.input(3) is not None and length is None):
        return None
    if length is not None:
        count = int(length.item())
    else:
        count = parts.graph.shapes[window][0] if window is not None else shape[1]
    frames = 1 + (shape[1] - count) // int(step.item())
    places = np.arange(frames)[:, None] * int(step.item()) + np.arange(count)
    index = parts.constant(places, np.int64)
    components = []
    for component in range(shape[2] if len(shape) == 3 else 1):
        signal = node.inputs[0]
        if len(shape) == 3:
            signal = parts.slice(signal, 2, component, component + 1)
            signal = parts.axes("Squeeze", signal, [2])
        framed = parts("Gather", signal, index, axis=1)
        components.append(framed if window is None else parts("Mul", framed, window))
    imaginary = components[1] if len(components) == 2 else None
    half = bool(node.attr("onesided", 1)) and imaginary is None
    rows = _transformed(parts, components[0], imaginary, count, count, False, half)
    columns = [parts.axes("Unsqueeze", row, [3]) for row in rows]
    return parts.results(parts("Concat", *columns, axis=3))


def _recurrent(parts: Parts) -> list[Node] | None:
    return recurrent.write_out(parts.graph, parts.node)


def _without_elements(parts: Parts) -> list[Node] | None:
    """A reduction of nothing, where TVM reads what is not there."""
    if 0 not in parts.shape() or 0 in parts.graph.shapes[parts.node.outputs[0]]:
        return None
    dtype = parts.dtype()
    whole = dtype.kind in "iu"
    lowest = np.iinfo(dtype).min if whole else -np.inf
    highest = np.iinfo(dtype).max if whole else np.inf
    neutral = {
        "ReduceMax": lowest,
        "ReduceMin": highest,
        "ReduceProd": 1,
        "ReduceLogSum": -np.inf,
        "ReduceLogSumExp": -np.inf,
    }.get(parts.node.op, 0)
    shape = parts.graph.shapes[parts.node.outputs[0]]
    return parts.results(parts.constant(np.full(shape, neutral), dtype))


def _extreme(parts: Parts) -> list[Node] | None:
    """The greatest or least of truth values, as bytes."""
    if parts.dtype() != np.bool_:
        return _without_elements(parts)
    wide = parts.cast(parts.node.inputs[0], np.uint8)
    result = parts(parts.node.op, wide, *parts.node.inputs[1:])
    parts.nodes[-1].attributes = parts.node.attributes
    return parts.results(parts.cast(result, np.bool_))


def _mish(parts: Parts) -> list[Node] | None:
    """``x * tanh(log(1 + exp(x)))`` without a difference of nearly equal numbers.

    With ``e = exp(-|x|)`` it is ``x * (1 + 2e) / (1 + 2e + 2e^2)`` above zero, and
    ``x * (e^2 + 2e) / (e^2 + 2e + 2)`` below.
    """
    dtype = parts.dtype()
    if dtype not in (np.float32, np.float64):
        return None
    value = parts.node.inputs[0]
    one, two, zero = (parts.constant(number, dtype) for number in (1, 2, 0))
    e = parts("Exp", parts("Neg", parts("Abs", value)))
    twice, square = parts("Mul", two, e), parts("Mul", e, e)
    above = parts("Add", one, twice)
    below = parts("Add", square, twice)
    positive = parts("Less", zero, value)
    top = parts("Where", positive, above, below)
    rest = parts("Where", positive, parts("Mul", two, square), two)
    return parts.results(parts("Mul", value, parts("Div", top, parts("Add", top, rest))))


_RULES: dict[str, Callable[[Parts], list[Node] | None]] = {
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "ConvInteger": _convolved_integers,
    "ConvTranspose": _transposed_convolution,
    "DFT": _dft,
    "DequantizeLinear": _dequantised_blocks,
    "Dropout": _dropout,
    "GRU": _recurrent,
    "IsInf": _is_inf,
    "LSTM": _recurrent,
    "LpNormalization": _lp_normalization,
    "MatMulInteger": _multiplied_integers,
    "Mish": _mish,
    "Pow": _pow,
    "QuantizeLinear": _quantised_blocks,
    "QLinearConv": _quantised_convolution,
    "QLinearMatMul": _quantised_product,
    "RNN": _recurrent,
    "ReduceL1": _without_elements,
    "ReduceL2": _without_elements,
    "ReduceLogSum": _without_elements,
    "ReduceLogSumExp": _without_elements,
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
    "ReduceProd": _without_elements,
    "ReduceSum": _without_elements,
    "ReduceSumSquare": _without_elements,
    "STFT": _stft,
}
