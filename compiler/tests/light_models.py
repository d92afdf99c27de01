"""ONNX's light models with weights worth comparing.

The wheel of onnx carries well-known networks whose weights are all one number, made by
``ConstantOfShape``; a compiler that swapped channels would pass. This writes such a network with
seeded weights instead: He-scaled filters, and batch-norms whose four statistics all vary.

    python tests/light_models.py OUT.onnx [--model light_resnet50] [--seed 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
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
    options = parser.parse_args()
    onnx.save(weighted(options.model, options.seed), options.out)


if __name__ == "__main__":
    main()
