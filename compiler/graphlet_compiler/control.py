"""Branches and loops whose course is known when the model is compiled, written out.

An ``If`` on a constant is its branch, and one on data is both with a choice behind them; a ``Loop``
of a constant number of turns and a ``Scan`` are their bodies, one behind another. Whatever else
depends on values stays, and the importer refuses it.
"""

from __future__ import annotations

import numpy as np
import onnx

from graphlet_compiler.errors import TooLargeError
from graphlet_compiler.graph import Graph, Names, Node, read_node, rename

# A loop of a few bytes can ask for any number of turns.
_MAX_NODES = 20_000

# The operators of a body, and the tensors that it ends with.
_Body = tuple[list[Node], list[str]]


def write_out(graph: Graph) -> bool:
    """Replaces every branch and loop that it can; whether there was one."""
    nodes: list[Node] = []
    names = Names(graph)
    for node in graph.nodes:
        written = None if node.domain else _written(graph, node, names)
        nodes.extend([node] if written is None else written)
    changed = len(nodes) != len(graph.nodes) or any(
        new is not old for new, old in zip(nodes, graph.nodes, strict=True)
    )
    graph.nodes = nodes
    graph.prune()
    return changed


def _check_size(node: Node, turns: int, body: onnx.GraphProto) -> None:
    # A body without operators has its turns all the same.
    if turns * max(len(body.node), 1) > _MAX_NODES:
        raise TooLargeError(
            f"`{node.name}` ({node.op}) has more than {_MAX_NODES} operators when all its turns "
            "are written out",
            node=node.name,
        )


def _written(graph: Graph, node: Node, names: Names) -> list[Node] | None:
    if node.op == "If":
        return _branch(graph, node, names)
    if node.op == "Loop":
        return _loop(graph, node, names)
    return _scan(graph, node, names) if node.op == "Scan" else None


def _branch(graph: Graph, node: Node, names: Names) -> list[Node] | None:
    condition = graph.constants.get(node.inputs[0])
    if condition is None:
        return _both(graph, node, names)
    if condition.size != 1:
        return None
    body = node.attr("then_branch" if condition.item() else "else_branch")
    nodes, results = _Writer(node, body, names).turn([])
    return nodes + _identities(node, results, node.outputs)


def _both(graph: Graph, node: Node, names: Names) -> list[Node] | None:
    """Computes both branches and takes one's results, if they have one type and shape."""
    shapes = [graph.shapes.get(name) for name in node.outputs]
    if graph.shapes.get(node.inputs[0]) not in ((), (1,)) or None in shapes:
        return None
    nodes: list[Node] = []
    results: list[list[str]] = []
    for branch in ("then_branch", "else_branch"):
        made, given = _Writer(node, node.attr(branch), names).turn([])
        nodes += made
        results.append(given)
    flag = node.inputs[0]
    if graph.shapes[flag] == (1,):
        # One value for tensors of any rank, scalars too.
        flag = names.fresh(f"{node.name}.condition")
        shape = names.constant(f"{node.name}.shape", np.asarray([], np.int64))
        flat = Node("Reshape", node.name, [node.inputs[0], shape], [flag], sources=node.sources)
        nodes.append(flat)
    for then, other, target in zip(*results, node.outputs, strict=True):
        if target:
            inputs = [flag, then, other]
            nodes.append(Node("Where", node.name, inputs, [target], sources=node.sources))
    return nodes


def _loop(graph: Graph, node: Node, names: Names) -> list[Node] | None:
    body = node.attr("body")
    count, condition = node.input(0), node.input(1)
    turns = None if count is None else graph.constants.get(count)
    first = np.asarray(True) if condition is None else graph.constants.get(condition)
    if turns is None or first is None or not _goes_on(body):
        return None
    total = int(turns.item()) if first.item() else 0
    _check_size(node, total, body)
    carried = list(node.inputs[2:])
    writer, nodes = _Writer(node, body, names), []
    rows: list[list[str]] = []
    for turn in range(total):
        index = names.constant(f"{node.name}.turn", np.asarray(turn, np.int64))
        flag = names.constant(f"{node.name}.flag", np.asarray(True))
        made, results = writer.turn([index, flag, *carried])
        nodes += made
        results = results[1:]
        carried = results[: len(carried)]
        rows.append(results[len(carried) :])
    if not rows and len(node.outputs) > len(carried):
        return None
    stacked = []
    for column in zip(*rows, strict=True):
        made, result = _stack(graph, node, names, list(column), 0)
        nodes += made
        stacked.append(result)
    return nodes + _identities(node, [*carried, *stacked], node.outputs)


def _goes_on(body: onnx.GraphProto) -> bool:
    """Whether a loop's body never ends the loop by itself."""
    name, passed = body.output[0].name, body.input[1].name
    producers = {output: node for node in body.node for output in node.output}
    while (producer := producers.get(name)) is not None:
        if producer.op_type == "Constant":
            value = next((a.t for a in producer.attribute if a.name == "value"), None)
            return value is not None and bool(onnx.numpy_helper.to_array(value).all())
        if producer.op_type != "Identity":
            return False
        name = producer.input[0]
    constants = {tensor.name: tensor for tensor in body.initializer}
    if name in constants:
        return bool(onnx.numpy_helper.to_array(constants[name]).all())
    return bool(name == passed)


def _scan(graph: Graph, node: Node, names: Names) -> list[Node] | None:
    body, scanned = node.attr("body"), int(node.attr("num_scan_inputs", 0))
    # Before operator set 9 a batch came first, and lengths before that.
    if graph.opset < 9 or scanned == 0:
        return None
    states = list(node.inputs[: len(node.inputs) - scanned])
    sources = node.inputs[len(states) :]
    if any(name not in graph.shapes for name in sources):
        return None
    outputs = len(node.outputs) - len(states)
    axes = _each(node, "scan_input_axes", scanned)
    backwards = _each(node, "scan_input_directions", scanned)
    turns = graph.shapes[sources[0]][axes[0]]
    _check_size(node, turns, body)
    writer, nodes = _Writer(node, body, names), []
    rows: list[list[str]] = []
    for turn in range(turns):
        slices = []
        for source, axis, back in zip(sources, axes, backwards, strict=True):
            place = np.asarray(turns - 1 - turn if back else turn, np.int64)
            index = names.constant(f"{node.name}.turn", place)
            target = names.fresh(f"{source}.row")
            part = Node("Gather", node.name, [source, index], [target], sources=node.sources)
            part.set_attr("axis", axis)
            nodes.append(part)
            slices.append(target)
        made, results = writer.turn([*states, *slices])
        nodes += made
        states = results[: len(states)]
        rows.append(results[len(states) :])
    if not rows:
        return None
    stacked = []
    targets = _each(node, "scan_output_axes", outputs)
    for column, axis, back in zip(
        zip(*rows, strict=True),
        targets,
        _each(node, "scan_output_directions", outputs),
        strict=True,
    ):
        made, result = _stack(graph, node, names, list(column)[:: -1 if back else 1], axis)
        nodes += made
        stacked.append(result)
    return nodes + _identities(node, [*states, *stacked], node.outputs)


def _each(node: Node, name: str, count: int) -> list[int]:
    return [int(value) for value in node.attr(name, [0] * count)]


def _stack(
    graph: Graph, node: Node, names: Names, rows: list[str], axis: int
) -> tuple[list[Node], str]:
    """The rows as one tensor with an axis more."""
    nodes, expanded = [], []
    axes = names.constant(f"{node.name}.axis", np.asarray([axis], np.int64))
    for row in rows:
        target = names.fresh(f"{row}.expanded")
        if graph.opset < 13:
            wide = Node("Unsqueeze", node.name, [row], [target], sources=node.sources)
            wide.set_attr("axes", [axis])
        else:
            wide = Node("Unsqueeze", node.name, [row, axes], [target], sources=node.sources)
        nodes.append(wide)
        expanded.append(target)
    target = names.fresh(f"{node.name}.stacked")
    whole = Node("Concat", node.name, expanded, [target], sources=node.sources)
    whole.set_attr("axis", axis)
    return [*nodes, whole], target


def _identities(node: Node, sources: list[str], targets: list[str]) -> list[Node]:
    return [
        Node("Identity", node.name, [source], [target], sources=node.sources)
        for source, target in zip(sources, targets, strict=False)
        if target
    ]


class _Writer:
    """Copies a body into the graph, each time under new names."""

    def __init__(self, node: Node, body: onnx.GraphProto, names: Names) -> None:
        self.node, self.body, self.names = node, body, names
        self.constants = {
            tensor.name: self.names.constant(
                f"{node.name}/{tensor.name}", onnx.numpy_helper.to_array(tensor)
            )
            for tensor in body.initializer
        }

    def turn(self, arguments: list[str]) -> _Body:
        """The body on these arguments."""
        formal = [value.name for value in self.body.input]
        known = self.constants | dict(zip(formal, arguments, strict=False))
        nodes = []
        for proto in self.body.node:
            for name in proto.output:
                if name:
                    known[name] = self.names.fresh(f"{self.node.name}/{name}")
            node = read_node(_renamed(proto, known))
            node.name, node.sources = f"{self.node.name}/{node.name}", self.node.sources
            nodes.append(node)
        return nodes, [known.get(value.name, value.name) for value in self.body.output]


def _renamed(proto: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(proto)
    rename(copy, names)
    return copy
