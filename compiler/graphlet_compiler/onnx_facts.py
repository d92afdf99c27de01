"""What an ONNX file says about itself, for `graphlet init` and for checking `model.toml`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from graphlet_compiler import onnx_file

# Operators whose first input's values reach the output as they are.
_MOVES = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")

# A number, or the name of a symbolic extent; empty where the file gives neither.
Extent = int | str


def facts(path: Path) -> dict[str, Any]:
    """Inputs, outputs, operators and versions as one JSON object."""
    model = onnx_file.read(path)
    outputs = _inferred_outputs(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    initializers = {tensor.name for tensor in model.graph.initializer}
    return {
        "inputs": [_value(i) for i in model.graph.input if i.name not in initializers],
        "outputs": [
            _value(outputs.get(o.name, o)) | {"produced_by": _produced_by(o.name, producers)}
            for o in model.graph.output
        ],
        "opset": {o.domain: o.version for o in model.opset_import},
        "ir_version": model.ir_version,
        "nodes": len(model.graph.node),
        "operators": operators(model),
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
    }


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """How often each operator occurs, in alphabetical order."""
    count = Counter(
        f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in model.graph.node
    )
    return dict(sorted(count.items()))


def _produced_by(name: str, producers: dict[str, onnx.NodeProto]) -> str:
    """The operator that computes a tensor's values, behind those that only move them."""
    node = producers.get(name)
    # The file is not checked yet: a graph that bites its tail must not hold us.
    for _ in range(len(producers)):
        if node is None or node.op_type not in _MOVES or not node.input:
            break
        node = producers.get(node.input[0], node)
    return "" if node is None else node.op_type


def extents_of(value: onnx.ValueInfoProto) -> list[Extent] | None:
    """Extents of a declared tensor; ``None`` if not even their number is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [_extent(dim) for dim in tensor.shape.dim]


def _extent(dim: onnx.TensorShapeProto.Dimension) -> Extent:
    # Some exporters write 0 or -1 for an extent that they leave open.
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return dim.dim_value
    return dim.dim_param


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type.elem_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except (KeyError, ValueError):
        dtype = "unknown"
    return {"name": value.name, "dtype": dtype, "shape": extents_of(value) or []}


def _inferred_outputs(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Outputs with their shapes worked out, as far as symbolic inputs allow."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return {}
    return {output.name: output for output in inferred.graph.output}
