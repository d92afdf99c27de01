"""The compiled graph computes what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import light_models
import numpy as np
import onnx
import pytest
from executor import Executor
from models import (
    Array,
    batch_norm,
    digits,
    model,
    node,
    parsed,
    picture,
    save,
    shared,
    weights,
)
from onnx.reference import ReferenceEvaluator

from graphlet_compiler import onnx_file

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def expected(value: onnx.ModelProto, x: Array, output: str | None = None) -> Array:
    if output is not None:
        clone = onnx.ModelProto()
        clone.CopyFrom(value)
        clone.graph.output.append(onnx.ValueInfoProto(name=output))
        value = clone
    session = ort.InferenceSession(value.SerializeToString(), providers=["CPUExecutionProvider"])
    name = output or session.get_outputs()[0].name
    (result,) = session.run([name], {session.get_inputs()[0].name: x})
    return np.asarray(result)


def agrees(value: onnx.ModelProto, shape: Sequence[int], **fields: Any) -> Executor:
    executor = Executor(value, parsed(shape, **fields))
    x = picture(*shape)
    result = executor.run(x)
    target = expected(value, x)
    assert result.shape == target.shape
    np.testing.assert_allclose(result, target, rtol=1e-3, atol=1e-5)
    # Nothing that the first run left behind may change the second.
    np.testing.assert_array_equal(executor.run(x), result)
    return executor


def kernels(executor: Executor) -> list[str]:
    """Which kernel each node of the graph takes; TVM's functions by the operator's name."""
    return [
        n.kernel.symbol.removeprefix("graphlet_").removesuffix("_f32") if n.kernel else n.op
        for n in executor.graph.nodes
    ]


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "pointwise": ((1, 5, 6, 7), (9, 5, 1, 1), {}),
    "3x3": ((1, 3, 9, 8), (8, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "uneven padding": ((1, 3, 9, 8), (4, 3, 3, 3), {"pads": [0, 1, 2, 0]}),
    "stride": ((1, 3, 11, 10), (12, 3, 3, 3), {"strides": [2, 3], "pads": [1, 1, 1, 1]}),
    "dilation": ((1, 3, 11, 12), (4, 3, 3, 3), {"dilations": [2, 3]}),
    "oblong": ((1, 3, 9, 9), (4, 3, 1, 5), {"pads": [0, 2, 0, 2]}),
    "7x7 stem": ((1, 3, 21, 20), (16, 3, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
    "groups": ((1, 6, 7, 7), (10, 3, 3, 3), {"group": 2}),
    "depthwise": ((1, 6, 7, 7), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "depthwise, two filters a channel": ((1, 4, 7, 7), (8, 1, 3, 3), {"group": 4}),
    "depthwise, stride, dilation": (
        (1, 5, 13, 11),
        (5, 1, 3, 3),
        {"group": 5, "strides": [2, 1], "dilations": [2, 2]},
    ),
    "same upper": ((1, 3, 8, 9), (4, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((1, 3, 8, 9), (4, 3, 4, 4), {"auto_pad": "SAME_LOWER"}),
    "valid": ((1, 3, 8, 9), (4, 3, 4, 4), {"auto_pad": "VALID"}),
    "one pixel": ((1, 40, 1, 1), (35, 40, 1, 1), {}),
    "batch": ((3, 3, 6, 6), (5, 3, 3, 3), {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_convolution_takes_a_kernel_and_agrees(name: str) -> None:
    shape, weight, attributes = CONVOLUTIONS[name]
    constants = {"w": weights(*weight), "b": weights(weight[0], seed=2)}
    executor = agrees(model([node("Conv", "x w b", **attributes)], constants, shape), shape)
    assert "Conv" not in kernels(executor) and not executor.refusals


def test_what_follows_a_convolution_is_fused_into_it() -> None:
    constants = {
        "w": weights(8, 3, 3, 3),
        "scale": weights(8, seed=3).reshape(8, 1, 1),
        "shift": weights(8, seed=4).reshape(1, 8, 1, 1),
        "half": np.asarray(0.5, np.float32),
        "low": np.asarray(-0.2, np.float32),
        "high": np.asarray(0.7, np.float32),
        **batch_norm(8, "n"),
    }
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a n_scale n_bias n_mean n_var", "b"),
        node("Mul", "scale b", "c"),
        node("Add", "c shift", "d"),
        node("Sub", "d half", "e"),
        node("Div", "e half", "f"),
        node("Relu", "f", "g"),
        node("Clip", "g low high", "y"),
    ]
    executor = agrees(model(nodes, constants), (1, 3, 8, 8))
    assert kernels(executor) == ["conv2d"]
    (call,) = executor.graph.nodes
    assert call.kernel is not None and (call.kernel.clamp.lo, call.kernel.clamp.hi) == (
        0.0,
        pytest.approx(0.7),
    )
    assert len(call.sources) == len(nodes)


def test_the_later_of_two_convolutions_takes_the_residual() -> None:
    constants = {f"w{i}": weights(6, 6 if i > 1 else 3, 3, 3, seed=i) for i in (1, 2, 3)}
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b w2", "c", pads=[1, 1, 1, 1]),
        node("Conv", "b w3", "d", pads=[1, 1, 1, 1]),
        node("Add", "c d", "e"),
        node("Relu", "e", "f"),
        node("Add", "f b", "y"),
    ]
    executor = agrees(model(nodes, constants), (1, 3, 8, 8))
    assert kernels(executor) == ["conv2d", "conv2d", "conv2d", "add"]
    residuals = [n.kernel.residual for n in executor.graph.nodes if n.kernel]
    assert residuals == [False, False, True, False]


def test_a_value_with_two_readers_is_not_fused_away() -> None:
    constants = {"w": weights(3, 3, 1, 1)}
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Add", "a b", "y")]
    assert kernels(agrees(model(nodes, constants), (1, 3, 8, 8))) == ["conv2d", "Relu", "Add"]


def test_a_batch_norm_without_convolution_agrees() -> None:
    nodes = [
        node("BatchNormalization", "x n_scale n_bias n_mean n_var", "a", epsilon=1e-3),
        node("Relu", "a", "y"),
    ]
    assert kernels(agrees(model(nodes, batch_norm(3, "n")), (1, 3, 8, 8))) == ["Mul", "Add", "Relu"]


def test_padding_before_a_convolution_becomes_its_own() -> None:
    constants = {"w": weights(4, 3, 3, 3), "p": np.asarray([0, 0, 0, 1, 0, 0, 2, 1])}
    nodes = [node("Pad", "x p", "a"), node("Conv", "a w", "y", strides=[2, 2])]
    assert kernels(agrees(model(nodes, constants), (1, 3, 8, 8))) == ["conv2d"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ],
)
def test_max_pooling_takes_a_kernel_and_agrees(attributes: dict[str, Any]) -> None:
    value = model([node("MaxPool", "x", **attributes)], {}, (1, 3, 10, 9))
    assert kernels(agrees(value, (1, 3, 10, 9))) == ["max_pool2d"]


@pytest.mark.parametrize(
    ("attributes", "op"),
    [
        ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, "avg_pool2d"),
        ({"kernel_shape": [2, 3], "pads": [1, 0, 0, 2], "count_include_pad": 1}, "avg_pool2d"),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, "avg_pool2d"),
        ({"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, "avg_pool2d"),
        (
            {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1},
            "AveragePool",
        ),
    ],
)
def test_average_pooling_takes_a_kernel_and_agrees(attributes: dict[str, Any], op: str) -> None:
    value = model([node("AveragePool", "x", **attributes)], {}, (1, 3, 10, 9), opset=19)
    assert kernels(agrees(value, (1, 3, 10, 9))) == [op]


@pytest.mark.parametrize(
    ("first", "op", "taken"),
    [
        ("Relu", "MaxPool", ["Relu", "max_pool2d"]),
        # Zeros win where all else is negative.
        ("Neg", "MaxPool", ["Neg", "Pad", "max_pool2d"]),
        ("Neg", "AveragePool", ["Neg", "avg_pool2d"]),
    ],
)
def test_padding_before_a_pool_becomes_its_own(first: str, op: str, taken: list[str]) -> None:
    nodes = [
        node(first, "x", "a"),
        node("Pad", "a p", "b"),
        node(op, "b", "y", kernel_shape=[3, 3], strides=[2, 2]),
    ]
    value = model(nodes, {"p": np.asarray([0, 0, 1, 1, 0, 0, 1, 2])}, (1, 3, 8, 7))
    executor, x = Executor(value, parsed((1, 3, 8, 7))), picture(1, 3, 8, 7)
    # ONNX Runtime 1.31 takes any padding before a maximum for none.
    (target,) = ReferenceEvaluator(value).run(None, {"x": x})
    np.testing.assert_allclose(executor.run(x), target, rtol=1e-3, atol=1e-5)
    assert kernels(executor) == taken


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("GlobalAveragePool", "x", {}),
        ("AveragePool", "x", {"kernel_shape": [6, 5]}),
        ("ReduceMean", "x", {"axes": [2, 3]}),
        ("ReduceMean", "x", {"axes": [-1, -2], "keepdims": 0}),
    ],
)
def test_the_mean_of_a_plane_takes_a_kernel(
    op: str, inputs: str, attributes: dict[str, Any]
) -> None:
    value = model([node(op, inputs, **attributes)], {}, (1, 7, 6, 5))
    assert kernels(agrees(value, (1, 7, 6, 5))) == ["global_avg_pool"]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Flatten", "x", "a"), node("Gemm", "a w b", transB=1, alpha=0.5, beta=2.0)],
        [node("Reshape", "x s", "a"), node("MatMul", "a v", "m"), node("Add", "m b", "y")],
        [node("Flatten", "x", "a"), node("Gemm", "a v", "m"), node("Relu", "m", "y")],
    ],
)
def test_a_dense_layer_takes_a_kernel_and_needs_no_reshape(nodes: list[onnx.NodeProto]) -> None:
    w = weights(37, 48)
    constants = {"w": w, "v": w.T.copy(), "b": weights(37, seed=3), "s": np.asarray([0, -1])}
    assert kernels(agrees(model(nodes, constants, (1, 3, 4, 4)), (1, 3, 4, 4))) == ["dense"]


def test_kernels_write_straight_into_the_concatenation_of_their_results() -> None:
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "x v", "c"),
        node("MaxPool", "x", "d", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Concat", "b c d", "e", axis=1),
        # Read twice, so it has to lie by itself as well.
        node("Conv", "e v2", "f"),
        node("Concat", "f f", "y", axis=1),
    ]
    constants = {"w": weights(5, 3, 3, 3), "v": weights(9, 3, 1, 1), "v2": weights(2, 17, 1, 1)}
    executor = agrees(model(nodes, constants), (1, 3, 8, 8))
    origins = [n.origin for n in executor.executor.nodes if n.function is not None]
    symbols = [[p.kernel.symbol for p in o.parts if p.kernel] for o in origins if o is not None]
    joined = ["graphlet_conv2d_f32", "graphlet_conv2d_f32", "graphlet_max_pool2d_f32"]
    assert symbols == [joined, [], []]


def test_concatenation_split_and_shuffling_agree() -> None:
    constants = {"w": weights(6, 6, 1, 1), "s": np.asarray([1, 2, 3, 8, 8])}
    nodes = [
        node("Concat", "x x", "a", axis=1),
        node("Conv", "a w", "b"),
        node("Reshape", "b s", "c"),
        node("Transpose", "c", "d", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "d t", "e"),
        node("Split", "e", "f g", axis=1),
        node("Concat", "g f", "y", axis=3),
    ]
    value = model(nodes, constants | {"t": np.asarray([1, 6, 8, 8])})
    assert agrees(value, (1, 3, 8, 8)).executor.nodes


def test_shapes_that_exporters_compute_are_folded() -> None:
    """What PyTorch writes for ``x.view(x.size(0), -1)`` with a symbolic batch."""
    constants = {"w": weights(4, 3 * 64), "i": np.asarray(0), "m": np.asarray([-1])}
    nodes = [
        node("Shape", "x", "a"),
        node("Gather", "a i", "b", axis=0),
        node("Constant", "", "z", value=onnx.numpy_helper.from_array(np.asarray([0]))),
        node("Unsqueeze", "b z", "c"),
        node("Concat", "c m", "d", axis=0),
        node("Reshape", "x d", "e"),
        node("Gemm", "e w", "y", transB=1),
    ]
    nodes[2].ClearField("input")
    executor = agrees(model(nodes, constants, ("n", 3, 8, 8)), (1, 3, 8, 8))
    assert kernels(executor) == ["dense"]


def test_a_graph_that_reads_nhwc_agrees() -> None:
    nodes = [node("Transpose", "x", "a", perm=[0, 3, 1, 2]), node("Conv", "a w", "y")]
    value = model(nodes, {"w": weights(4, 3, 3, 3)}, (1, 10, 9, 3))
    assert kernels(agrees(value, (1, 10, 9, 3), input__layout="NHWC")) == ["transpose", "conv2d"]


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_the_default_network_agrees_in_every_opset(opset: int) -> None:
    executor = agrees(digits(opset), (1, 1, 28, 28))
    taken = ["conv2d", "max_pool2d", "conv2d_winograd", "max_pool2d", "dense", "softmax"]
    assert kernels(executor) == taken and not executor.refusals


def test_an_inner_tensor_can_be_the_output() -> None:
    value = digits()
    x = picture(1, 1, 28, 28)
    result = Executor(value, parsed((1, 1, 28, 28), output__name="logits")).run(x)
    np.testing.assert_allclose(result, expected(value, x, "logits"), rtol=1e-3, atol=1e-5)


def test_functions_of_the_file_itself_are_expanded(tmp_path: Path) -> None:
    inner = onnx.helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", "a a", "b")],
        [onnx.helper.make_opsetid("", 17)],
    )
    value = model([onnx.helper.make_node("Twice", ["x"], ["y"], domain="own")], {})
    value.functions.append(inner)
    value.opset_import.append(onnx.helper.make_opsetid("own", 1))
    loaded = onnx_file.load(save(value, tmp_path))
    x = picture(1, 3, 8, 8)
    np.testing.assert_allclose(Executor(loaded, parsed((1, 3, 8, 8))).run(x), 2 * x)


def test_weights_in_files_of_their_own_are_read(tmp_path: Path) -> None:
    value = digits()
    whole = agrees(value, (1, 1, 28, 28)).run(picture(1, 1, 28, 28))
    path = tmp_path / "external.onnx"
    onnx.save(value, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 10_000
    result = Executor(onnx_file.load(path), parsed((1, 1, 28, 28))).run(picture(1, 1, 28, 28))
    np.testing.assert_array_equal(result, whole)


@pytest.mark.parametrize(
    ("file", "side", "logits"),
    [
        ("mobilenet_v2.onnx", 224, "flatten_100"),
        ("squeezenet1.0.onnx", 227, "flatten_65"),
    ],
)
def test_a_real_model_agrees_before_softmax_and_takes_kernels_only(
    file: str, side: int, logits: str
) -> None:
    path = shared() / "models" / file
    if not path.exists():
        pytest.skip(f"skipped: {path.name} is not here (GRAPHLET_SHARED)")
    value = onnx_file.load(path)
    executor = Executor(value, parsed((1, 3, side, side), output__name=logits))
    x = picture(1, 3, side, side)
    np.testing.assert_allclose(executor.run(x), expected(value, x, logits), rtol=1e-3, atol=1e-5)
    assert not executor.refusals and "Conv" not in kernels(executor)


def test_resnet50_agrees_and_two_swapped_channels_do_not() -> None:
    value = light_models.weighted("light_resnet50", seed=7)
    executor = Executor(value, parsed((1, 3, 224, 224), output__name="r174"))
    x = picture(1, 3, 224, 224)
    target = expected(value, x, "r174")
    np.testing.assert_allclose(executor.run(x), target, rtol=1e-3, atol=1e-5)
    assert not executor.refusals
    assert [name.removesuffix("_winograd") for name in kernels(executor)].count("conv2d") == 53
    # Two output channels of a convolution in the middle change places.
    node_ = [n for n in executor.executor.nodes if n.origin and n.origin.kernel][20]
    name = executor.executor.nodes[node_.inputs[1][0]].name
    packed = executor.executor.params[name].copy()
    packed[..., [0, 1]] = packed[..., [1, 0]]
    executor.executor.params[name] = packed
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(executor.run(x), target, rtol=1e-3, atol=1e-5)


def test_resnet50_compiles_as_the_wheel_ships_it() -> None:
    value = onnx_file.load(light_models.shipped())
    assert not Executor(value, parsed((1, 3, 224, 224))).refusals
