"""What only says where values lie: reshapes, and parts of a tensor that are one run of memory.

A kernel reads such a view where its values lie already, so nothing is copied for it. What TVM's
own functions read stays an operator, which TVM fuses into them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphlet_compiler.graph import Graph, Node, Shape
from graphlet_compiler.values import merged

# Before this operator set a slice's bounds are attributes.
_BOUNDS_AS_INPUTS = 10

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Part:
    """A box of a tensor: where it begins and how large it is along each axis."""

    begin: tuple[int, ...]
    shape: Shape

    def offset(self, whole: Shape) -> int | None:
        """Where the part begins, in elements, if it is one run of memory of ``whole``."""
        offset, step, full = 0, 1, True
        for begin, extent, available in reversed(
            list(zip(self.begin, self.shape, whole, strict=True))
        ):
            if not full and extent != 1:
                return None
            offset += begin * step
            step *= available
            full = full and extent == available
        return offset


def canonicalise(graph: Graph) -> None:
    """Writes whatever only moves values as ``Reshape``, ``Slice`` and ``Transpose``."""
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.extend(_rewritten(graph, node) or [node])
    graph.nodes = nodes
    _merge_reshapes(graph)
    graph.prune()


def resolve(graph: Graph) -> None:
    """Lets kernels read views where their values lie."""
    producers = graph.producers()
    for node in graph.nodes:
        if node.kernel is None:
            continue
        for index, name in enumerate(node.inputs):
            source, offset = base(graph, producers, name)
            if source != name:
                node.inputs[index] = source
            if offset != 0:
                node.offsets[index] = offset
    graph.prune()


def base(graph: Graph, producers: dict[str, Node], name: str) -> tuple[str, int]:
    """The tensor in which ``name``'s values lie in order, and from which element on."""
    total = 0
    while (node := producers.get(name)) is not None and node.kernel is None and not node.domain:
        source = node.inputs[0]
        if node.op == "Slice":
            part = _slice(graph, node)
            offset = None if part is None else part.offset(graph.shapes[source])
            if offset is None:
                break
            total += offset
        elif node.op != "Reshape":
            break
        name = source
    return name, total


def _rewritten(graph: Graph, node: Node) -> list[Node] | None:
    if node.domain or not node.inputs or node.inputs[0] in graph.constants:
        return None
    shape = graph.shapes[node.inputs[0]]
    if node.op in _RESHAPES:
        return [_reshape(graph, node, node.inputs[0], node.outputs[0])]
    if node.op == "Transpose" and len(merged(shape, node.attr("perm"))) <= 1:
        return [_reshape(graph, node, node.inputs[0], node.outputs[0])]
    if node.op == "Split":
        return _split(graph, node, shape)
    if node.op == "Gather":
        return _gather(graph, node, shape)
    return None


def _reshape(graph: Graph, node: Node, source: str, target: str) -> Node:
    extents = np.asarray(graph.shapes[target], np.int64)
    shape = graph.add_constant(f"{target}.shape", extents)
    return Node("Reshape", node.name, [source, shape], [target], sources=node.sources)


def _split(graph: Graph, node: Node, shape: Shape) -> list[Node]:
    axis = int(node.attr("axis", 0)) % len(shape)
    begin, parts = 0, []
    for target in node.outputs:
        extent = graph.shapes[target][axis] if target else 0
        if target:
            parts.append(_part(graph, node, target, axis, begin, begin + extent))
        begin += extent
    return parts if all(node.outputs) else [node]


def _gather(graph: Graph, node: Node, shape: Shape) -> list[Node] | None:
    """One index along an axis is a slice of it."""
    indices = graph.constants.get(node.inputs[1])
    axis = int(node.attr("axis", 0)) % len(shape)
    if indices is None or indices.size != 1:
        return None
    index = int(indices.reshape(-1)[0])
    index += shape[axis] if index < 0 else 0
    if not 0 <= index < shape[axis]:
        return None
    target = graph.fresh(f"{node.outputs[0]}.slice")
    graph.shapes[target] = (*shape[:axis], 1, *shape[axis + 1 :])
    graph.dtypes[target] = graph.dtypes[node.outputs[0]]
    part = _part(graph, node, target, axis, index, index + 1)
    return [part, _reshape(graph, node, target, node.outputs[0])]


def _part(graph: Graph, node: Node, target: str, axis: int, begin: int, end: int) -> Node:
    part = Node("Slice", node.name, [node.inputs[0]], [target], sources=node.sources)
    bounds = {"starts": [begin], "ends": [end], "axes": [axis]}
    for name, value in bounds.items():
        if graph.opset < _BOUNDS_AS_INPUTS:
            part.set_attr(name, value)
        else:
            constant = graph.add_constant(f"{target}.{name}", np.asarray(value, np.int64))
            part.inputs.append(constant)
    return part


def _slice(graph: Graph, node: Node) -> Part | None:
    """Which part a ``Slice`` takes; ``None`` if it skips elements or is not known."""
    whole = graph.shapes[node.inputs[0]]
    if graph.opset < _BOUNDS_AS_INPUTS:
        starts, axes, steps = node.attr("starts"), node.attr("axes"), None
    else:
        if any(node.input(i) not in graph.constants for i in range(1, 5) if node.input(i)):
            return None
        starts, axes, steps = (
            None if (name := node.input(i)) is None else graph.constants[name] for i in (1, 3, 4)
        )
    if starts is None or (steps is not None and np.any(steps != 1)):
        return None
    begin = [0] * len(whole)
    for axis, start in zip(range(len(starts)) if axes is None else axes, starts, strict=True):
        extent = whole[int(axis)]
        first = int(start) + (extent if start < 0 else 0)
        begin[int(axis)] = min(max(first, 0), extent)
    return Part(tuple(begin), graph.shapes[node.outputs[0]])


def _merge_reshapes(graph: Graph) -> None:
    """A reshape of a reshape is one; one that changes nothing is none."""
    producers = graph.producers()
    for node in list(graph.nodes):
        if node.op != "Reshape" or node.domain:
            continue
        while (before := producers.get(node.inputs[0])) is not None and before.op == "Reshape":
            if before.domain:
                break
            node.inputs[0] = before.inputs[0]
        source, target = node.inputs[0], node.outputs[0]
        if graph.shapes[source] == graph.shapes[target] and target not in graph.outputs:
            graph.nodes = [other for other in graph.nodes if other is not node]
            graph.rename(target, source)
