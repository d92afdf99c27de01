"""What the other runtimes' models are made of: the same network, NHWC, folded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graphlet_bench import layers, tfjs
from graphlet_bench.layers import Layer, Network

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def save(folder: Path, nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 9, 9))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def small(folder: Path) -> Path:
    """Every kind of layer, an odd padding, a residual, a flattened map, classes cut off."""
    constants = {
        "w1": weights(8, 3, 3, 3),
        "b1": weights(8),
        "w2": weights(8, 1, 3, 3),
        "scale": RANDOM.uniform(0.5, 1.5, 8).astype(np.float32),
        "shift": weights(8),
        "mean": weights(8),
        "var": RANDOM.uniform(0.5, 2, 8).astype(np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "w3": weights(8, 8, 1, 1),
        "dense": weights(7, 16 * 2 * 2),
        "bias": weights(7),
        "starts": np.array([1]),
        "ends": np.array([7]),
        "axes": np.array([1]),
    }
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", group=8, strides=[2, 2], pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c2 scale shift mean var", "n2"),
        node("Clip", "n2 zero six", "k2"),
        node("Conv", "k2 w3", "c3"),
        node("Add", "c3 k2", "a3"),
        node("Relu", "a3", "r3"),
        node("Concat", "r3 k2", "j3", axis=1),
        node("AveragePool", "j3", "p3", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p3", "f3"),
        node("Gemm", "f3 dense bias", "g3", transB=1),
        node("Softmax", "g3", "s3", axis=1),
        node("Slice", "s3 starts ends axes", "y"),
    ]
    return save(folder, nodes, constants)


def evaluate(network: Network, given: Array) -> Array:
    """The layers in plain numpy."""
    values = {network.input: given.astype(np.float64)}
    for layer in network.layers:
        values[layer.name] = _activated(layer, _evaluate(layer, [values[n] for n in layer.inputs]))
        assert values[layer.name].shape == layer.shape, layer.name
    return values[network.output]


def _activated(layer: Layer, value: Array) -> Array:
    top = {"none": np.inf, "relu": np.inf, "relu6": 6}[layer.activation]
    return value if layer.activation == "none" else np.clip(value, 0, top)


def _evaluate(layer: Layer, inputs: list[Array]) -> Array:
    x = inputs[0]
    match layer.kind:
        case "add":
            return x + inputs[1]
        case "concat":
            return np.concatenate(inputs, axis=3)
        case "reshape":
            return x.reshape(layer.shape)
        case "dense":
            return x @ layer.weights.T + layer.bias
        case "softmax":
            powers = np.exp(x - x.max())
            return powers / powers.sum()
        case "slice":
            ends = [b + e for b, e in zip(layer.begin, layer.shape, strict=True)]
            return x[tuple(map(slice, layer.begin, ends))]
    _, rows, columns, _ = layer.shape
    out = np.empty(layer.shape)
    x = np.pad(x, _paddings(layer, x.shape))
    for row in range(rows):
        for column in range(columns):
            top, left = row * layer.strides[0], column * layer.strides[1]
            part = x[0, top : top + layer.window[0], left : left + layer.window[1]]
            if layer.kind == "conv":
                value = np.einsum("hwi,ohwi->o", part, layer.weights) + layer.bias
            elif layer.kind == "depthwise":
                value = (part * layer.weights).sum((0, 1)) + layer.bias
            else:
                value = part.max((0, 1)) if layer.kind == "max_pool" else part.mean((0, 1))
            out[0, row, column] = value
    return out


def _paddings(layer: Layer, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    if isinstance(layer.padding, tuple):
        top, bottom, left, right = layer.padding
        return [(0, 0), (top, bottom), (left, right), (0, 0)]
    if layer.padding == "VALID":
        return [(0, 0)] * 4
    around = []
    for axis in (0, 1):
        spare = (layer.shape[axis + 1] - 1) * layer.strides[axis] + layer.window[axis]
        total = max(spare - shape[axis + 1], 0)
        around.append((total // 2, total - total // 2))
    return [(0, 0), *around, (0, 0)]


def test_the_layers_give_what_onnxruntime_gives(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = small(tmp_path)
    given = weights(1, 3, 9, 9)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": given})[0]
    network = layers.read(path)
    np.testing.assert_allclose(
        evaluate(network, given.transpose(0, 2, 3, 1)), expected, rtol=1e-4, atol=1e-6
    )
    # Nothing is left that a converter would have folded.
    kinds = [layer.kind for layer in network.layers]
    assert kinds == [
        *("conv", "depthwise", "conv", "add", "concat", "average_pool"),
        *("reshape", "dense", "softmax", "slice"),
    ]
    assert [layer.activation for layer in network.layers[:4]] == ["relu", "relu6", "none", "relu"]


def test_padding_is_same_only_where_tensorflow_pads_alike(tmp_path: Path) -> None:
    def padding(extent: int, kernel: int, stride: int, pads: list[int]) -> object:
        graph = helper.make_graph(
            [node("Conv", "x w", "y", strides=[stride] * 2, pads=pads)],
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, extent, extent))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weights(4, 1, kernel, kernel), "w")],
        )
        path = tmp_path / "p.onnx"
        onnx.save(helper.make_model(graph), path)
        return layers.read(path).layers[0].padding

    assert padding(9, 3, 1, [1, 1, 1, 1]) == "SAME"
    assert padding(9, 3, 2, [1, 1, 1, 1]) == "SAME"
    assert padding(224, 3, 2, [0, 0, 1, 1]) == "SAME"
    assert padding(224, 3, 2, [1, 1, 1, 1]) == (1, 1, 1, 1)
    assert padding(224, 7, 2, [3, 3, 3, 3]) == (3, 3, 3, 3)
    assert padding(9, 3, 1, [0, 0, 0, 0]) == "VALID"


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Erf", "x", "y")], "Erf"),
        ([node("Conv", "x w", "y", dilations=[2, 2])], "dilated"),
        (
            [node("MaxPool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[3, 3])],
            "neg",
        ),
        ([node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], "ceil"),
        ([node("Relu", "x", "y")], "follows no"),
        ([node("Flatten", "x", "y")], "flatten of a map"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, nodes: list[onnx.NodeProto], reason: str
) -> None:
    path = save(tmp_path, nodes, {"w": weights(8, 3, 3, 3)})
    with pytest.raises(layers.UnsupportedError, match=reason):
        layers.read(path)


def test_a_tfjs_model_names_every_input_and_holds_every_weight(tmp_path: Path) -> None:
    model, data = tfjs.write(layers.read(small(tmp_path)))
    json.dumps(model)
    seen = set()
    for entry in model["modelTopology"]["node"]:
        assert seen.issuperset(entry["input"]), entry["name"]
        seen.add(entry["name"])
    assert model["output"] in seen
    sizes = [int(np.prod(spec["shape"])) * 4 for spec in model["weightSpecs"]]
    assert sum(sizes) == len(data)
    constants = {e["name"] for e in model["modelTopology"]["node"] if e["op"] == "Const"}
    assert constants == {spec["name"] for spec in model["weightSpecs"]}
