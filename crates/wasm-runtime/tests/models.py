"""Writes a small model, inputs for it and what onnxruntime makes of them.

python models.py mixed | TYPE FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

declare = helper.make_tensor_value_info
generator = np.random.default_rng(7)


def mixed() -> onnx.ModelProto:
    """Several inputs and outputs of several types; one output is read inside the graph too."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "wide"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
        helper.make_node("Greater", ["y", "one"], ["large"]),
        helper.make_node("And", ["mask", "large"], ["both"]),
        helper.make_node("Mul", ["exact", "exact"], ["square"]),
        helper.make_node("Add", ["count", "count"], ["twice"]),
    ]
    inputs = [
        declare("x", TensorProto.FLOAT, [2, 3]),
        declare("ids", TensorProto.INT64, [2, 4]),
        declare("mask", TensorProto.BOOL, [2, 4]),
        declare("exact", TensorProto.DOUBLE, [2, 2]),
        declare("count", TensorProto.INT8, [5]),
    ]
    outputs = [
        declare("y", TensorProto.FLOAT, [2, 4]),
        declare("sum", TensorProto.FLOAT, [2, 4]),
        declare("both", TensorProto.BOOL, [2, 4]),
        declare("square", TensorProto.DOUBLE, [2, 2]),
        declare("twice", TensorProto.INT8, [5]),
    ]
    weights = generator.standard_normal((3, 4), np.float32)
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.float32(1), "one"),
    ]
    return model(helper.make_graph(nodes, "mixed", inputs, outputs, constants))


def typed(name: str) -> onnx.ModelProto:
    """What every type can do: select, move, and for numbers compute."""
    kind = helper.np_dtype_to_tensor_dtype(dtype_of(name))
    nodes = [
        helper.make_node("Transpose", ["a"], ["turned"], perm=[1, 0]),
        helper.make_node("Concat", ["turned", "turned"], ["moved"], axis=0),
    ]
    outputs = [declare("moved", kind, [6, 2])]
    if name == "bool":
        nodes.append(helper.make_node("Xor", ["a", "b"], ["computed"]))
    else:
        nodes.append(helper.make_node("Add", ["a", "b"], ["sum"]))
        nodes.append(helper.make_node("Mul", ["sum", "b"], ["computed"]))
    outputs.append(declare("computed", kind, [2, 3]))
    inputs = [declare("a", kind, [2, 3]), declare("b", kind, [2, 3])]
    return model(helper.make_graph(nodes, "typed", inputs, outputs))


def model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def values(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype == np.bool_:
        return generator.integers(0, 2, shape).astype(np.bool_)
    if np.issubdtype(dtype, np.integer):
        # Wide enough to wrap round.
        bounds = np.iinfo(dtype)
        return generator.integers(bounds.min, bounds.max, shape, dtype)
    return generator.standard_normal(shape).astype(dtype)


def computed(made: onnx.ModelProto, inputs: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    if name in ("mixed", "float32", "float64", "int32", "int64", "bool"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(made.SerializeToString(), options)
        return session.run(None, inputs)
    # onnxruntime has no arithmetic for the others on a processor: NumPy's is the definition.
    a, b = inputs["a"], inputs["b"]
    with np.errstate(over="ignore"):
        return [np.concatenate([a.T, a.T]), (a + b) * b]


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    made = mixed() if name == "mixed" else typed(name)
    onnx.checker.check_model(made)
    onnx.save(made, folder / "model.onnx")
    inputs = {}
    for value in made.graph.input:
        tensor = value.type.tensor_type
        shape = tuple(extent.dim_value for extent in tensor.shape.dim)
        inputs[value.name] = values(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    outputs = computed(made, inputs, name)
    facts = {}
    for kind, arrays in (("input", list(inputs.values())), ("output", outputs)):
        facts[kind] = [{"shape": a.shape, "dtype": str(a.dtype)} for a in arrays]
        for index, array in enumerate(arrays):
            path = folder / f"{kind}_{index}.bin"
            path.write_bytes(np.ascontiguousarray(array).tobytes())
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
