"""Models made from another one, for tests that compare numbers.

python tests/derived_models.py expose IN.onnx OUT.onnx   the tensor before the last softmax
python tests/derived_models.py swap IN.onnx OUT.onnx CONV A B
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference


def expose(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Makes the input of the last softmax an output as well, and gives it back."""
    softmax = [node for node in model.graph.node if node.op_type == "Softmax"]
    name = softmax[-1].input[0]
    inferred = shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in inferred.value_info}
    model.graph.output.append(known[name])
    return known[name]


def swap(model: onnx.ModelProto, convolution: int, first: int, second: int) -> str:
    """Swaps two output channels of the weights of one convolution; gives its node's name."""
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    node = nodes[convolution]
    (tensor,) = (t for t in model.graph.initializer if t.name == node.input[1])
    weights = numpy_helper.to_array(tensor).copy()
    if np.array_equal(weights[first], weights[second]):
        raise SystemExit(f"channels {first} and {second} of `{tensor.name}` are alike")
    weights[[first, second]] = weights[[second, first]]
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return node.name or node.output[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("expose", "swap"):
        command = commands.add_parser(name)
        command.add_argument("source", type=Path)
        command.add_argument("out", type=Path)
    commands.choices["swap"].add_argument("convolution", type=int)
    commands.choices["swap"].add_argument("first", type=int)
    commands.choices["swap"].add_argument("second", type=int)
    options = parser.parse_args()
    model = onnx.load(options.source)
    if options.command == "expose":
        value = expose(model)
        shape = [extent.dim_value for extent in value.type.tensor_type.shape.dim]
        answer = {"tensor": value.name, "shape": shape}
    else:
        answer = {"node": swap(model, options.convolution, options.first, options.second)}
    onnx.save(model, options.out)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
