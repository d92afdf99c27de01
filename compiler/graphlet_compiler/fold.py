"""Computes now what depends on constants alone, shapes included."""

from __future__ import annotations

import math

import numpy as np
import onnx

from graphlet_compiler import shapes
from graphlet_compiler.errors import CorruptOnnxError, TooLargeError
from graphlet_compiler.graph import Array, Graph, Node, subgraphs

# A module's memory is 4 GiB with everything in it; half of that for one tensor is beyond use,
# and a file of a hundred bytes can ask for any amount.
MAX_TENSOR_BYTES = 2**31

_NOT_CONSTANT = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


def fold_constants(graph: Graph) -> None:
    """Replaces nodes with constant results, until none is left; infers shapes on the way."""
    while True:
        shapes.infer(graph)
        if not _fold_once(graph):
            return


def _fold_once(graph: Graph) -> bool:
    kept: list[Node] = []
    for node in graph.nodes:
        values = _evaluate(graph, node)
        if values is None:
            kept.append(node)
            continue
        for name, value in zip(node.outputs, values, strict=False):
            if name:
                graph.constants[name] = value
    changed = len(kept) < len(graph.nodes)
    graph.nodes = kept
    graph.prune()
    total = sum(array.nbytes for array in graph.constants.values())
    if total > MAX_TENSOR_BYTES:
        raise TooLargeError(f"the weights take {total} bytes, more than a module can hold")
    return changed


def _evaluate(graph: Graph, node: Node) -> list[Array] | None:
    """The node's results, or ``None`` if they are not constant."""
    if node.op in _NOT_CONSTANT or node.domain or subgraphs([node]):
        return None
    first = node.input(0)
    if node.op in ("Shape", "Size") and first in graph.shapes:
        shape = graph.shapes[first]
        if node.op == "Size":
            return [np.asarray(math.prod(shape), np.int64)]
        return [np.asarray(shape[node.attr("start", 0) : node.attr("end")], np.int64)]
    if node.op == "EyeLike" and first in graph.shapes and node.outputs[0] in graph.dtypes:
        rows, columns = graph.shapes[first]
        dtype = graph.dtypes[node.outputs[0]]
        return [np.eye(rows, columns, int(node.attr("k", 0)), dtype=dtype)]
    if any(name and name not in graph.constants for name in node.inputs):
        return None
    if node.op == "ConstantOfShape" and first is not None:
        return [_constant_of_shape(graph.constants[first], node)]
    for name in node.outputs:
        if name in graph.shapes:
            _check_size(node, graph.shapes[name])
    return _run(graph, node)


def _constant_of_shape(extents: Array, node: Node) -> Array:
    shape = tuple(int(extent) for extent in extents)
    _check_size(node, shape)
    value = node.attr("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return np.full(shape, fill.reshape(-1)[0], fill.dtype)


def _check_size(node: Node, shape: tuple[int, ...]) -> None:
    # Eight bytes an element: the widest type there is.
    if any(extent < 0 for extent in shape):
        raise CorruptOnnxError(f"`{node.name}` makes a tensor of {list(shape)}", node=node.name)
    if math.prod(shape) * 8 > MAX_TENSOR_BYTES:
        raise TooLargeError(
            f"`{node.name}` makes a constant tensor of {list(shape)}", node=node.name
        )


def _run(graph: Graph, node: Node) -> list[Array] | None:
    # Costs a quarter of a second to import, and many models never need it.
    from onnx.reference import ReferenceEvaluator

    inputs = [name for name in dict.fromkeys(node.inputs) if name]
    proto = onnx.helper.make_graph(
        [node.proto()],
        "node",
        [
            onnx.helper.make_tensor_value_info(
                name,
                onnx.helper.np_dtype_to_tensor_dtype(graph.constants[name].dtype),
                graph.constants[name].shape,
            )
            for name in inputs
        ],
        [onnx.ValueInfoProto(name=name) for name in node.outputs if name],
    )
    model = onnx.helper.make_model(
        proto,
        ir_version=graph.ir_version,
        opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in graph.opsets.items()],
    )
    try:
        results = ReferenceEvaluator(model).run(
            None, {name: graph.constants[name] for name in inputs}
        )
    except NotImplementedError:
        return None
    except Exception as error:
        # The evaluator runs numpy on what the file says; anything may come out of that.
        raise CorruptOnnxError(
            f"`{node.name}` ({node.op}) cannot be computed: {error}", node=node.name
        ) from error
    found = iter(results)
    values = [np.asarray(next(found)) if name else np.empty(0) for name in node.outputs]
    return None if any(value.dtype == object for value in values) else values
