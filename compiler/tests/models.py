"""Small networks for tests, written with onnx's helper."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graphlet_compiler import spec as specification

Array = NDArray[Any]
Extents = Sequence[int | str]


def shared() -> Path:
    """Models and pictures that lie beside the repository; not everyone has them."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("GRAPHLET_SHARED", root.parent / "shared"))


def spec(shape: Sequence[int], **fields: Any) -> dict[str, Any]:
    """A specification as `model-spec` writes it; ``fields`` such as ``output__name`` override."""
    value: dict[str, Any] = {
        "model": {"name": "test", "version": "1", "onnx": "model.onnx"},
        "input": {"name": "", "shape": list(shape), "dtype": "float32", "layout": "NCHW"},
        "preprocess": {"channels": "grey" if shape[1] == 1 else "RGB"},
        "output": {"name": "", "kind": "softmax", "labels": "labels.txt", "top_k": 5},
        "compile": {"simd": "relaxed", "threads": 1, "quantisation": "none"},
    }
    if shape[1] not in (1, 3) and "input__layout" not in fields:
        # The pictures of these tests have as many channels as they like.
        value["preprocess"] = {}
    for path, field in fields.items():
        table, _, key = path.partition("__")
        value[table][key] = field
    return value


def parsed(shape: Sequence[int], **fields: Any) -> specification.ModelSpec:
    """The same, as the compiler reads it; any number of channels."""
    from dataclasses import replace

    return replace(specification.parse(spec(shape, **fields)), channels=None)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array],
    shape: Extents = (1, 3, 8, 8),
    *,
    output: str = "y",
    output_shape: Extents | None = None,
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model that reads `x` and writes ``output``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node named after its first output; names of tensors are separated by spaces."""
    written = outputs.split(" ")
    return helper.make_node(op, inputs.split(" "), written, name=f"{op}_{written[0]}", **attributes)


def weights(*shape: int, seed: int = 0) -> Array:
    """Seeded weights, He-scaled."""
    scale = np.sqrt(2.0 / max(1, int(np.prod(shape[1:]))))
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def picture(*shape: int, seed: int = 1) -> Array:
    """A seeded input."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batch_norm(channels: int, prefix: str, seed: int = 0) -> dict[str, Array]:
    """Four statistics that all vary."""
    random = np.random.default_rng(seed)
    ranges = {"scale": (0.5, 1.5), "bias": (-1, 1), "mean": (-1, 1), "var": (0.5, 2)}
    return {
        f"{prefix}_{name}": random.uniform(low, high, channels).astype(np.float32)
        for name, (low, high) in ranges.items()
    }


def digits(opset: int = 17) -> onnx.ModelProto:
    """A network like the embedded default: convolutions with batch-norm, pooling, dense."""
    constants: dict[str, Array] = {
        "w1": weights(16, 1, 3, 3, seed=1),
        "w2": weights(32, 16, 3, 3, seed=2),
        "b2": weights(32, seed=3),
        "w3": weights(10, 32 * 7 * 7, seed=4),
        "b3": weights(10, seed=5),
        **batch_norm(16, "n1", 6),
    }
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c1 n1_scale n1_bias n1_mean n1_var", "c2"),
        node("Relu", "c2", "c3"),
        node("MaxPool", "c3", "c4", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "c4 w2 b2", "c5", pads=[1, 1, 1, 1]),
        node("Relu", "c5", "c6"),
        node("MaxPool", "c6", "c7", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "c7", "c8"),
        node("Gemm", "c8 w3 b3", "logits", transB=1),
        node("Softmax", "logits", "y", axis=1),
    ]
    shape: Extents = ("batch", 1, 28, 28)
    return model(nodes, constants, shape, output_shape=("batch", 10), opset=opset)


def save(value: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Writes a model and returns its path."""
    path = folder / name
    onnx.save(value, path)
    return path
