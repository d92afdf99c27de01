"""ONNX's light models with weights worth comparing.

The wheel of onnx carries well-known networks whose weights are all one number, made by
``ConstantOfShape``; a compiler that swapped channels would pass. This writes such a network with
seeded weights instead: He-scaled filters, and batch-norms whose four statistics all vary.

    python tests/light_models.py OUT.onnx [--model light_resnet50] [--seed 0] [--data DIR]

With ``--data`` the model gets what its last softmax reads as another output, and the folder an
input and what onnxruntime makes of it: ``input_0.bin``, ``output_0.bin`` and so on, float32. Names
and shapes are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from derived_models import expose
from numpy.typing import NDArray
from onnx import numpy_helper

Floats = NDArray[np.float32]


def shipped(name: str = "light_resnet50") -> Path:
    """The model as the wheel ships it."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{name}.onnx"


def weighted(name: str = "light_resnet50", seed: int = 0) -> onnx.ModelProto:
    """The model with seeded weights."""
    model = onnx.load(shipped(name))
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {
        node.output[0]: tuple(int(extent) for extent in constants[node.input[0]])
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            made[tensor.name] = tuple(tensor.dims)
    random = np.random.default_rng(seed)
    values: dict[str, Floats] = {}
    for node in graph.node:
        for index, parameter in enumerate(node.input):
            if parameter in made and parameter not in values:
                value = _value(node, index, made[parameter], random)
                values[parameter] = value.astype(np.float32)
    replaced = {n.input[0] for n in graph.node if n.op_type == "ConstantOfShape"} | set(values)
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    inputs = [value for value in graph.input if value.name not in replaced]
    del graph.initializer[:], graph.node[:], graph.input[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in values.items())
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    # Before version 4 every initializer had to be an input as well.
    model.ir_version = max(model.ir_version, 8)
    return model


def _value(
    node: onnx.NodeProto, index: int, shape: tuple[int, ...], random: np.random.Generator
) -> NDArray[np.float64]:
    if node.op_type == "BatchNormalization":
        # Scales near one and small shifts keep the signal alive through fifty layers: with dead
        # channels, swapping two of them would change nothing.
        low, high = ((0.5, 1.0), (-0.1, 0.1), (-0.1, 0.1), (0.5, 2.0))[index - 1]
        return random.uniform(low, high, shape)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        return random.standard_normal(shape) * np.sqrt(2.0 / fan_in)
    return random.uniform(-0.1, 0.1, shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="light_resnet50")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    model = weighted(options.model, options.seed)
    if options.data is not None and any(n.op_type == "Softmax" for n in model.graph.node):
        expose(model)
    onnx.save(model, options.out)
    if options.data is not None:
        json.dump(write_data(options.out, options.data, options.seed), sys.stdout)


def write_data(model: Path, folder: Path, seed: int) -> dict[str, list[dict[str, object]]]:
    """Writes an input of noise and what onnxruntime makes of it; tells their names and shapes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    inputs = {i.name: random.standard_normal(i.shape, np.float32) for i in session.get_inputs()}
    outputs = {
        o.name: value
        for o, value in zip(session.get_outputs(), session.run(None, inputs), strict=True)
    }
    told: dict[str, list[dict[str, object]]] = {}
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for index, array in enumerate(arrays.values()):
            (folder / f"{kind}_{index}.bin").write_bytes(array.astype("<f4").tobytes())
        told[f"{kind}s"] = [
            {"name": name, "dtype": "float32", "shape": list(array.shape)}
            for name, array in arrays.items()
        ]
    return told


if __name__ == "__main__":
    main()
