"""Kernels of rows and single values: softmax, layer norm, activations, transposes, products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphlet_compiler.activations import curve
from graphlet_compiler.graph import Graph, Node, Shape
from graphlet_compiler.kernels import (
    Activate,
    Clamp,
    Geometry,
    KernelCall,
    LayerNorm,
    MatMul,
    Softmax,
    Transpose,
)
from graphlet_compiler.rewrite import Rewrite

# From this operator set on softmax looks at one axis; before, at all that follow it too.
_SOFTMAX_OF_ONE_AXIS = 13


def take(rewrite: Rewrite, node: Node) -> bool:
    """Replaces the node, with what can be fused into it, if a kernel can compute it."""
    graph = rewrite.graph
    names = [name for name in (*node.inputs, *node.outputs) if name]
    if node.domain or any(graph.dtypes.get(name) != np.float32 for name in names):
        return False
    if 0 in graph.shapes[node.outputs[0]] or any(name in rewrite.uses for name in node.outputs[1:]):
        return False
    if node.op == "MatMul":
        return _take_product(rewrite, node)
    call: KernelCall | None = None
    inputs = node.inputs[:1]
    if node.op == "Softmax":
        call = _softmax(graph, node)
    elif node.op == "LayerNormalization":
        call, inputs = _layer_norm(graph, node)
    elif node.op == "Transpose":
        axes = exchange(graph.shapes[node.inputs[0]], node.attr("perm"))
        call = None if axes is None else KernelCall(Transpose(*axes))
    elif (activation := curve(node)) is not None:
        length = math.prod(graph.shapes[node.outputs[0]])
        call = KernelCall(Activate(length), activation[1], activation=activation[0])
    if call is not None:
        rewrite.put(node, [node], node, call, inputs)
    return call is not None


def _softmax(graph: Graph, node: Node) -> KernelCall | None:
    shape = graph.shapes[node.inputs[0]]
    single = graph.opset >= _SOFTMAX_OF_ONE_AXIS
    axis = int(node.attr("axis", -1 if single else 1)) % max(len(shape), 1)
    if single and math.prod(shape[axis + 1 :]) != 1:
        return None
    return KernelCall(Softmax(math.prod(shape[:axis]), math.prod(shape[axis:])))


def _layer_norm(graph: Graph, node: Node) -> tuple[KernelCall | None, list[str]]:
    shape = graph.shapes[node.inputs[0]]
    axis = int(node.attr("axis", -1)) % len(shape)
    rows, row = math.prod(shape[:axis]), shape[axis:]
    inputs = [name for name in node.inputs if name]
    if any(math.prod(graph.shapes[name]) != math.prod(row) for name in inputs[1:]):
        return None, inputs
    epsilon = float(node.attr("epsilon", 1e-5))
    return KernelCall(LayerNorm(rows, math.prod(row), epsilon), residual=len(inputs) > 2), inputs


def exchange(shape: Shape, order: Sequence[int] | None) -> tuple[int, int, int, int] | None:
    """``[d0, d1, d2, d3]`` if a transposition exchanges the two middle axes of that shape.

    Axes of one element are left out, and axes that stay neighbours are one. ``None`` if more
    moves, or nothing.
    """
    axes = merged(shape, order)
    extents = dict(axes)
    moved = [axis for axis, _ in axes]
    for front in (0, 1):
        for back in (0, 1):
            if len(axes) == 2 + front + back:
                first, last = list(range(front)), list(range(front + 2, len(axes)))
                if moved == [*first, front + 1, front, *last]:
                    d = [extents[axis] for axis in range(len(axes))]
                    whole = [1] * (1 - front) + d + [1] * (1 - back)
                    return whole[0], whole[1], whole[2], whole[3]
    return None


def merged(shape: Shape, order: Sequence[int] | None) -> list[tuple[int, int]]:
    """A transposition without axes of one element, neighbours that move together made one.

    For each axis of the result: its place among the source's axes, and its extent.
    """
    order = list(range(len(shape)))[::-1] if order is None else list(order)
    kept = [axis for axis in order if shape[axis] != 1]
    ranks = {axis: rank for rank, axis in enumerate(sorted(kept))}
    groups: list[list[int]] = []
    for axis in kept:
        if groups and ranks[axis] == ranks[groups[-1][-1]] + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    places = {group[0]: place for place, group in enumerate(sorted(groups))}
    return [(places[group[0]], math.prod(shape[axis] for axis in group)) for group in groups]


def refusal(graph: Graph, node: Node) -> str | None:
    """Why no kernel multiplies two run-time operands; ``None`` if one does."""
    if _product(graph.shapes[node.inputs[0]], graph.shapes[node.inputs[1]]) is None:
        return "the left operand repeats along the batch"
    return None


def _product(a: Shape, b: Shape) -> tuple[int, int, int, int, int] | None:
    """``batch, m, k, n`` and how far right operands lie apart."""
    if len(a) < 2 or len(b) < 2:
        return None
    m, k, n = a[-2], a[-1], b[-1]
    if math.prod(b[:-2]) == 1:
        return 1, math.prod(a[:-1]), k, n, 0
    left = (1,) * (len(b) - len(a)) + a[:-2]
    right = (1,) * (len(a) - len(b)) + b[:-2]
    return (math.prod(left), m, k, n, k * n) if left == right else None


def _take_product(rewrite: Rewrite, node: Node) -> bool:
    """A product with a factor and a transposition of the right operand fused into it."""
    graph = rewrite.graph
    a, b = node.inputs
    extents = _product(graph.shapes[a], graph.shapes[b])
    if extents is None:
        return False
    alpha, transpose = 1.0, 0
    nodes: list[Node] = []
    left, factor = _unscaled(rewrite, a, nodes)
    alpha *= factor
    right, factor = _unscaled(rewrite, b, nodes)
    alpha *= factor
    turned = rewrite.sole_producer(right, ("Transpose",))
    if turned is not None and rewrite.free(turned):
        found = _untransposed(rewrite, turned, nodes)
        if found is not None:
            transpose = 1
            right, factor = _unscaled(rewrite, found, nodes)
            alpha *= factor
    tail, after = node, []
    while (follower := rewrite.sole_reader(tail)) is not None:
        scale = _scalar(graph, follower, tail.outputs[0])
        if scale is None:
            break
        alpha *= scale
        tail = follower
        after.append(follower)
    alpha = float(np.float32(alpha))
    geometry: Geometry = MatMul(*extents, transpose, alpha)
    rewrite.put(
        tail, [*nodes[::-1], node, *after], node, KernelCall(geometry, Clamp()), [left, right]
    )
    return True


def _untransposed(rewrite: Rewrite, turned: Node, nodes: list[Node]) -> str | None:
    """A tensor that is ``turned``'s result with its last two axes exchanged, cheaper to have."""
    graph = rewrite.graph
    shape = graph.shapes[turned.outputs[0]]
    order = turned.attr("perm")
    order = list(range(len(shape)))[::-1] if order is None else list(order)
    if order[-1] == len(shape) - 1:
        return None
    order[-1], order[-2] = order[-2], order[-1]
    if order == sorted(order):
        nodes.append(turned)
        return turned.inputs[0]
    if order[-1] != len(shape) - 1:
        return None
    turned.set_attr("perm", order)
    graph.shapes[turned.outputs[0]] = (*shape[:-2], shape[-1], shape[-2])
    return turned.outputs[0]


def _unscaled(rewrite: Rewrite, name: str, nodes: list[Node]) -> tuple[str, float]:
    """What ``name`` is a multiple of, and the factor."""
    factor = 1.0
    while (node := rewrite.sole_producer(name, ("Mul", "Div"))) is not None:
        source = node.inputs[1] if node.inputs[0] in rewrite.graph.constants else node.inputs[0]
        scale = _scalar(rewrite.graph, node, source)
        if scale is None or not rewrite.free(node):
            break
        factor *= scale
        nodes.append(node)
        name = source
    return name, factor


def _scalar(graph: Graph, node: Node, value: str) -> float | None:
    """The factor if ``node`` multiplies ``value`` by one number."""
    if node.op not in ("Mul", "Div") or graph.shapes[node.outputs[0]] != graph.shapes[value]:
        return None
    on_left = node.inputs[0] == value
    constant = graph.constants.get(node.inputs[1] if on_left else node.inputs[0])
    if constant is None or constant.size != 1 or (node.op == "Div" and not on_left):
        return None
    number = float(constant.reshape(-1)[0])
    if node.op == "Mul":
        return number
    return 1.0 / number if number else None
