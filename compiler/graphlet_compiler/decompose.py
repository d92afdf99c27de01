"""Operators that are written as simpler ones: TVM's importer lacks them, or gets some form wrong.

What ONNX itself defines as a function is expanded when the file is read (`onnx_file`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphlet_compiler import fourier, quantised, recurrent
from graphlet_compiler.graph import Graph, Names, Node
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
    names, changed = Names(graph), False
    for node in graph.nodes:
        written = _written(graph, node, names)
        changed = changed or written is not None
        nodes.extend([node] if written is None else written)
    graph.nodes = nodes
    return changed


def _written(graph: Graph, node: Node, names: Names) -> list[Node] | None:
    if node.domain:
        return None
    if node.outputs and all(0 in graph.shapes.get(n, ()) for n in node.outputs if n):
        return _empty(graph, node)
    tensors = [name for name in (*node.inputs, *node.outputs) if name]
    if any(name not in graph.shapes or name not in graph.dtypes for name in tensors):
        return None
    rule = _RULES.get(node.op)
    written = None if rule is None else rule(Parts(graph, node, names))
    if written is None and node.op in _SUMS:
        written = _widened(Parts(graph, node, names))
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
    "CastLike": _cast_like,
    "Clip": _clip,
    "ConvInteger": quantised.convolved_integers,
    "ConvTranspose": _transposed_convolution,
    "DFT": fourier.dft,
    "DequantizeLinear": quantised.dequantised_blocks,
    "Dropout": _dropout,
    "GRU": recurrent.write_out,
    "IsInf": _is_inf,
    "LSTM": recurrent.write_out,
    "LpNormalization": _lp_normalization,
    "MatMulInteger": quantised.multiplied_integers,
    "Mish": _mish,
    "Pow": _pow,
    "QuantizeLinear": quantised.quantised_blocks,
    "QLinearConv": quantised.quantised_convolution,
    "QLinearMatMul": quantised.quantised_product,
    "RNN": recurrent.write_out,
    "ReduceL1": _without_elements,
    "ReduceL2": _without_elements,
    "ReduceLogSum": _without_elements,
    "ReduceLogSumExp": _without_elements,
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
    "ReduceProd": _without_elements,
    "ReduceSum": _without_elements,
    "ReduceSumSquare": _without_elements,
    "STFT": fourier.stft,
}
