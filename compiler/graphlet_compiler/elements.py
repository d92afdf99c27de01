"""The operators of the operator library: sums, products, equality, the place of the greatest.

TVM computes several operators that follow each other in one pass over memory, which no call of a
kernel can. So sums, products and comparisons become calls only where they stand alone: where TVM
would make a function for them and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from graphlet_compiler import views
from graphlet_compiler.graph import Graph, Node, Shape
from graphlet_compiler.kernels import (
    SUFFIXES,
    Add,
    ArgMax,
    Equal,
    EqualCount,
    KernelCall,
    Mul,
    Operands,
)
from graphlet_compiler.rewrite import Rewrite

_ALONE: dict[str, type[Operands]] = {"Add": Add, "Mul": Mul, "Equal": Equal}

# Axes of an operand that a kernel takes.
_AXES = 6

# A kernel walks row by row and finds out anew where each one lies, which TVM's loops, made for one
# shape, know: several rows are the kernel's if they are at least so long. Rows of 256 floats took
# 5 % longer than TVM's, rows of 64 twice as long, rows of 3136 as long.
_ROW_BYTES = 2048


def take(rewrite: Rewrite, node: Node) -> bool:
    """Replaces the node if it tells places of the greatest, or counts equal elements."""
    return _take_places(rewrite, node) or _take_count(rewrite, node)


def take_alone(graph: Graph) -> None:
    """Makes calls of the operators on two operands that stand alone."""
    neighbours = _Neighbours(graph)
    for node in graph.nodes:
        geometry = None if node.domain or node.kernel else _ALONE.get(node.op)
        if geometry is None or not neighbours.alone(node):
            continue
        node.kernel = _joined(graph, node, geometry)
        if node.kernel is not None:
            neighbours.calls(node)


def broadcast(a: Shape, b: Shape) -> tuple[Shape, Shape] | None:
    """The extents of two operands as a kernel takes them.

    Neighbouring axes along which both move, or the same one repeats, are one. ``None`` if more are
    left than a kernel has.
    """
    rank = max(len(a), len(b))
    whole = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (a, b)]
    axes: list[tuple[int, int]] = []
    for x, y in zip(*whole, strict=True):
        if x == y == 1:
            continue
        if axes and _moves(axes[-1]) == _moves((x, y)):
            axes[-1] = (axes[-1][0] * x, axes[-1][1] * y)
        else:
            axes.append((x, y))
    if len(axes) > _AXES:
        return None
    axes = [(1, 1)] * (_AXES - len(axes)) + axes
    return tuple(x for x, _ in axes), tuple(y for _, y in axes)


def _moves(axis: tuple[int, int]) -> tuple[bool, bool]:
    return axis[0] != 1, axis[1] != 1


def _joined(graph: Graph, node: Node, geometry: type[Operands]) -> KernelCall | None:
    """A call that joins the node's operands, if there is such a kernel."""
    a, b = node.inputs
    dtype = _dtype(graph, (a, b))
    shapes = graph.shapes[a], graph.shapes[b]
    try:
        whole = np.broadcast_shapes(*shapes)
    except ValueError:
        return None  # By the rules of operator sets before 7.
    if dtype is None or 0 in whole or graph.shapes[node.outputs[0]] != whole:
        return None
    extents = broadcast(*shapes)
    if extents is None:
        return None
    row = max(extents[0][-1], extents[1][-1])
    if row != math.prod(whole) and row * np.dtype(dtype).itemsize < _ROW_BYTES:
        return None
    return KernelCall(geometry(*extents[0], *extents[1]), dtype=dtype)


def _dtype(graph: Graph, names: Sequence[str]) -> str | None:
    """The one element type of some tensors, if kernels compute with it."""
    found = {str(graph.dtypes[name]) for name in names}
    return found.pop() if len(found) == 1 and found <= SUFFIXES.keys() else None


def _take_places(rewrite: Rewrite, node: Node) -> bool:
    graph = rewrite.graph
    if node.op != "ArgMax" or node.attr("select_last_index", 0):
        return False
    shape, dtype = graph.shapes[node.inputs[0]], _dtype(graph, node.inputs)
    if dtype is None or not shape or 0 in shape:
        return False
    axis = int(node.attr("axis", 0)) % len(shape)
    geometry = ArgMax(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    rewrite.put(node, [node], node, KernelCall(geometry, dtype=dtype), node.inputs)
    return True


def _take_count(rewrite: Rewrite, node: Node) -> bool:
    """The sum, as int64, of what ``Equal`` gives."""
    graph = rewrite.graph
    if node.op != "ReduceSum" or math.prod(graph.shapes[node.outputs[0]]) != 1:
        return False
    cast = rewrite.sole_producer(node.inputs[0], ("Cast",))
    if cast is None or cast.attr("to") != onnx.TensorProto.INT64 or not rewrite.free(cast):
        return False
    equal = rewrite.sole_producer(cast.inputs[0], ("Equal",))
    if equal is None or not rewrite.free(equal):
        return False
    call = _joined(graph, equal, EqualCount)
    if call is None:
        return False
    rewrite.put(node, [equal, cast, node], equal, call, equal.inputs)
    return True


class _Neighbours:
    """What TVM would compute together with a node."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        # Tensors that have to be in memory, so that nothing is fused with what makes them: whoever
        # runs the graph reads them, or a call, maybe in another shape.
        self.kept = {self._written(name) for name in graph.outputs}
        for node in graph.nodes:
            if node.kernel is not None:
                self.calls(node)
            elif self._concatenates(node):
                self.kept.update(self._written(name) for name in node.inputs)

    def calls(self, node: Node) -> None:
        """Notes that a node is the call of a kernel."""
        self.kept.update(views.base(self.graph, self.producers, name)[0] for name in node.inputs)

    def alone(self, node: Node) -> bool:
        """Whether TVM would make a function of this node and nothing else."""
        return node.outputs[0] in self.kept and all(
            self._given(views.base(self.graph, self.producers, name)[0]) for name in node.inputs
        )

    def _given(self, name: str) -> bool:
        source = self.producers.get(name)
        if source is None or source.kernel is not None or name in self.kept:
            return True
        return self._concatenates(source)

    def _concatenates(self, node: Node) -> bool:
        """Whether the importer writes a function of its own for a concatenation."""
        dtypes = self.graph.dtypes
        floats = all(dtypes.get(name) == np.float32 for name in node.inputs)
        return node.op == "Concat" and not node.domain and floats

    def _written(self, name: str) -> str:
        """The tensor that a reshaped one is."""
        while (node := self.producers.get(name)) is not None and node.op == "Reshape":
            if node.domain:
                break
            name = node.inputs[0]
        return name
