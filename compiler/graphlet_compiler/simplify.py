"""Rewrites of the ONNX graph that keep its meaning and leave less to compile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphlet_compiler import control, decompose, fold, resampling
from graphlet_compiler.errors import NoInputError
from graphlet_compiler.graph import Array, Graph, Node


def simplify(graph: Graph) -> None:
    """Folds constants, drops what changes nothing, and splits what is better written simply."""
    _normalise(graph)
    fold.fold_constants(graph)
    # What is written out brings constants and operators of its own.
    while control.write_out(graph) or decompose.decompose(graph):
        _normalise(graph)
        fold.fold_constants(graph)
    _drop_identities(graph)
    _write_out_sizes(graph)
    graph.prune()
    if not graph.nodes:
        inputs = ", ".join(f"`{name}`" for name in graph.inputs)
        raise NoInputError(f"`{graph.output}` does not depend on the input {inputs}")


def split_batch_norms(graph: Graph) -> None:
    """Writes batch-norms that no kernel took as a multiplication and an addition."""
    nodes: list[Node] = []
    for node in graph.nodes:
        affine = batch_norm_affine(graph, node) if node.op == "BatchNormalization" else None
        if affine is None:
            nodes.append(node)
            continue
        extents = [1, -1] + [1] * (len(graph.shapes[node.inputs[0]]) - 2)
        scaled = graph.fresh(f"{node.outputs[0]}.scaled")
        dtype = graph.dtypes[node.inputs[0]]
        for op, source, target, values in (
            ("Mul", node.inputs[0], scaled, affine[0]),
            ("Add", scaled, node.outputs[0], affine[1]),
        ):
            constant = graph.add_constant(
                f"{target}.{op.lower()}", values.reshape(extents).astype(dtype)
            )
            graph.shapes[target] = graph.shapes[node.inputs[0]]
            graph.dtypes[target] = dtype
            nodes.append(Node(op, node.name, [source, constant], [target], sources=node.sources))
    graph.nodes = nodes
    graph.prune()


def batch_norm_affine(graph: Graph, node: Node) -> tuple[Array, Array] | None:
    """Scale and shift per channel of a batch-norm, in double precision.

    ``None`` if it is in training mode or its statistics are not constant.
    """
    parameters = [graph.constants.get(name) for name in node.inputs[1:5]]
    if node.attr("training_mode", 0) or any(node.outputs[1:]) or not node.attr("spatial", 1):
        return None
    if len(parameters) != 4 or any(p is None for p in parameters):
        return None
    scale, bias, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    factor = scale / np.sqrt(variance + node.attr("epsilon", 1e-5))
    return factor, bias - mean * factor


def _normalise(graph: Graph) -> None:
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.extend(_split_sum(graph, node) if node.op == "Sum" and not node.domain else [node])
    graph.nodes = nodes


def _split_sum(graph: Graph, node: Node) -> list[Node]:
    """``Sum`` of several as a chain of ``Add``: TVM would stack its inputs into one tensor."""
    if len(node.inputs) == 1:
        return [Node("Identity", node.name, node.inputs, node.outputs, sources=node.sources)]
    chain: list[Node] = []
    left = node.inputs[0]
    for number, right in enumerate(node.inputs[1:], start=2):
        last = number == len(node.inputs)
        target = node.outputs[0] if last else graph.fresh(f"{node.outputs[0]}.sum{number}")
        chain.append(Node("Add", node.name, [left, right], [target], sources=node.sources))
        left = target
    return chain


def _write_out_sizes(graph: Graph) -> None:
    """``Resize`` has many ways to say how large its result is; TVM is left the plain one."""
    for node in graph.nodes:
        if node.op != "Resize" or node.domain:
            continue
        if any(name not in graph.shapes for name in (node.inputs[0], node.outputs[0])):
            continue
        if resampling.needed(graph, node):
            continue
        sizes = graph.add_constant(
            f"{node.outputs[0]}.sizes", np.asarray(graph.shapes[node.outputs[0]], np.int64)
        )
        node.inputs = [node.inputs[0], node.input(1) or "", "", sizes]
        for name in ("axes", "keep_aspect_ratio_policy"):
            node.attributes.pop(name, None)


def _drop_identities(graph: Graph) -> None:
    for node in list(graph.nodes):
        same = _IDENTITIES.get(node.op)
        source, target = node.input(0), node.outputs[0]
        if same is None or node.domain or source is None or not same(graph, node):
            continue
        # Something has to write the output.
        if target in graph.outputs and source not in graph.producers():
            continue
        graph.nodes.remove(node)
        graph.rename(target, source)


def _always(graph: Graph, node: Node) -> bool:
    return True


def _inference(graph: Graph, node: Node) -> bool:
    training = node.input(2)
    return training is None or not np.any(graph.constants.get(training, np.ones(1)))


def _same_shape(graph: Graph, node: Node) -> bool:
    before = graph.shapes.get(node.inputs[0])
    return before is not None and before == graph.shapes.get(node.outputs[0])


def _same_dtype(graph: Graph, node: Node) -> bool:
    before = graph.dtypes.get(node.inputs[0])
    return before is not None and before == graph.dtypes.get(node.outputs[0])


def _whole_slice(graph: Graph, node: Node) -> bool:
    steps = node.input(4)
    forward = steps is None or bool(np.all(graph.constants.get(steps, np.full(1, -1)) > 0))
    return forward and _same_shape(graph, node)


def _no_padding(graph: Graph, node: Node) -> bool:
    amounts = node.input(1)
    pads = node.attr("pads") if amounts is None else graph.constants.get(amounts)
    return pads is not None and not np.any(pads)


def _same_order(graph: Graph, node: Node) -> bool:
    order = node.attr("perm")
    return order is not None and list(order) == sorted(order)


def _one_input(graph: Graph, node: Node) -> bool:
    return len(node.inputs) == 1


_IDENTITIES: dict[str, Callable[[Graph, Node], bool]] = {
    "Identity": _always,
    "Dropout": _inference,
    "Cast": _same_dtype,
    "Concat": _one_input,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Pad": _no_padding,
    "Reshape": _same_shape,
    "Slice": _whole_slice,
    "Squeeze": _same_shape,
    "Tile": _same_shape,
    "Transpose": _same_order,
    "Unsqueeze": _same_shape,
}
