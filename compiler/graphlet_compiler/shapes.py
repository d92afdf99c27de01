"""Shapes and element types of every tensor, by ONNX's own inference."""

from __future__ import annotations

import onnx

from graphlet_compiler.errors import CorruptOnnxError, Detail, DynamicDimensionError
from graphlet_compiler.graph import Graph

# Constants up to this many elements take part in inference by value (shapes, axes, pads);
# larger ones are weights, of which only the shape matters.
_MAX_VALUE_ELEMENTS = 1024


def infer(graph: Graph) -> None:
    """Fills in ``shapes`` and ``dtypes`` as far as they are known."""
    sources = [(name, graph.shapes[name], graph.dtypes[name]) for name in graph.inputs]
    graph.shapes = {name: tuple(array.shape) for name, array in graph.constants.items()}
    graph.dtypes = {name: array.dtype for name, array in graph.constants.items()}
    for name, shape, dtype in sources:
        graph.shapes[name], graph.dtypes[name] = shape, dtype
    inferred = onnx.shape_inference.infer_shapes(_skeleton(graph), data_prop=True)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type == onnx.TensorProto.UNDEFINED:
            continue
        graph.dtypes[value.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        extents = tensor.shape.dim if tensor.HasField("shape") else None
        if extents is not None and all(extent.HasField("dim_value") for extent in extents):
            graph.shapes[value.name] = tuple(extent.dim_value for extent in extents)
    for node in graph.nodes:
        # ONNX's inference passes this one over.
        wanted = graph.constants.get(node.input(2) or "") if node.op == "MaxUnpool" else None
        if wanted is not None:
            graph.shapes.setdefault(node.outputs[0], tuple(int(extent) for extent in wanted))


def require_static(graph: Graph) -> None:
    """Refuses a graph in which a tensor's shape is still unknown.

    The fault is reported where it begins: at nodes whose inputs are all known.
    """
    found: list[Detail] = []
    for node in graph.nodes:
        unknown = [name for name in node.outputs if name and name not in graph.shapes]
        if unknown and all(name in graph.shapes for name in node.inputs if name):
            found.append(
                Detail(
                    f"`{node.name}` ({node.op}): the shape of `{unknown[0]}` depends on values "
                    "that are only known while the model runs",
                    node.name,
                    "export the model with fixed shapes",
                )
            )
    if not found:
        return
    # The inference itself may know better: it passes over contradictions unless told not to.
    try:
        onnx.shape_inference.infer_shapes(
            _skeleton(graph), check_type=True, strict_mode=True, data_prop=True
        )
    except onnx.shape_inference.InferenceError as error:
        # One contradiction makes everything behind it unknown: the first line is the cause.
        message = str(error).removeprefix("[ShapeInferenceError] Inference error(s): ")
        message = message.splitlines()[0]
        raise CorruptOnnxError(
            f"the graph contradicts itself for input shape {_input_shapes(graph)}: {message}",
            node=found[0].node,
            hint="compare input.shape in model.toml with the size the model was exported for",
        ) from error
    raise DynamicDimensionError.of(found)


def _input_shapes(graph: Graph) -> str:
    return ", ".join(str(list(graph.shapes[name])) for name in graph.inputs)


def _skeleton(graph: Graph) -> onnx.ModelProto:
    """The graph as ONNX, with weights declared but not contained."""
    inputs, initializers = [_declare(graph, name) for name in graph.inputs], []
    for name, array in graph.constants.items():
        if array.size <= _MAX_VALUE_ELEMENTS:
            initializers.append(onnx.numpy_helper.from_array(array, name))
        else:
            inputs.append(_declare(graph, name))
    outputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(graph.outputs)]
    proto = onnx.helper.make_graph(
        [node.proto() for node in graph.nodes], "graph", inputs, outputs, initializers
    )
    return onnx.helper.make_model(
        proto,
        ir_version=graph.ir_version,
        opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in graph.opsets.items()],
    )


def _declare(graph: Graph, name: str) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(graph.dtypes[name])
    return onnx.helper.make_tensor_value_info(name, kind, graph.shapes[name])
