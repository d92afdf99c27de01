"""Chains are recognised however they are spelled, and only when they compute the same."""

from __future__ import annotations

from collections.abc import Callable

import modern_models
import numpy as np
import pytest
from models import model, node, parsed, weights
from modern_models import Net
from onnx import NodeProto, helper
from test_numbers import agrees, kernels

from graphlet_compiler import patterns, prepare, simplify
from graphlet_compiler.graph import Graph

SHAPE = (1, 6, 5, 4)


def recognised(nodes: list[NodeProto], constants: dict[str, np.ndarray]) -> Graph:
    graph = prepare.open_graph(model(nodes, constants, SHAPE), parsed(SHAPE))
    simplify.simplify(graph)
    patterns.recognise(graph)
    return graph


def scalars(**values: float) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def halved_first() -> list[NodeProto]:
    return [
        node("Mul", "x half", "a"),
        node("Mul", "x root", "b"),
        node("Erf", "b", "c"),
        node("Add", "one c", "d"),
        node("Mul", "d a", "y"),
    ]


def cubed_by_hand() -> list[NodeProto]:
    """``x / 2 * (1 + tanh(x * (0.7979 + 0.0357 * x * x)))``."""
    return [
        node("Mul", "x x", "a"),
        node("Mul", "a cubic", "b"),
        node("Add", "b linear", "c"),
        node("Mul", "x c", "d"),
        node("Tanh", "d", "e"),
        node("Add", "e one", "f"),
        node("Div", "x two", "g"),
        node("Mul", "g f", "y"),
    ]


def ramp_by_division() -> list[NodeProto]:
    return [
        node("Add", "three x", "a"),
        node("Clip", "a zero six", "b"),
        node("Mul", "x b", "c"),
        node("Div", "c six", "y"),
    ]


def gate_of_ramp() -> list[NodeProto]:
    return [node("Add", "three x", "a"), node("Clip", "a zero six", "b"), node("Div", "b six", "y")]


CONSTANTS = scalars(
    half=0.5,
    root=1 / np.sqrt(2),
    one=1,
    two=2,
    three=3,
    six=6,
    zero=0,
    linear=np.sqrt(2 / np.pi),
    cubic=np.sqrt(2 / np.pi) * 0.044715,
)


@pytest.mark.parametrize(
    ("spelling", "op", "kernel"),
    [
        (halved_first, "Gelu", "GELU"),
        (cubed_by_hand, "Gelu", "GELU_TANH"),
        (ramp_by_division, "HardSwish", "HARD_SWISH"),
        (gate_of_ramp, "HardSigmoid", "HARD_SIGMOID"),
    ],
)
def test_an_activation_is_what_it_computes(
    spelling: Callable[[], list[NodeProto]], op: str, kernel: str
) -> None:
    graph = recognised(spelling(), CONSTANTS)
    assert [n.op for n in graph.nodes] == [op]
    assert set(graph.nodes[0].sources) == {n.name for n in spelling()}
    executor = agrees(model(spelling(), CONSTANTS, SHAPE), SHAPE)
    (call,) = [n.kernel for n in executor.graph.nodes]
    assert call is not None and call.activation.name == kernel


@pytest.mark.parametrize(
    ("constant", "value"), [("half", 0.6), ("root", 0.8), ("one", 1.1), ("half", -0.5)]
)
def test_what_is_nearly_gelu_stays_what_it_is(constant: str, value: float) -> None:
    constants = CONSTANTS | scalars(**{constant: value})
    assert "Gelu" not in [n.op for n in recognised(halved_first(), constants).nodes]
    agrees(model(halved_first(), constants, SHAPE), SHAPE)


def test_a_gate_that_something_else_reads_is_computed_for_it() -> None:
    nodes = [node("Sigmoid", "x", "a"), node("Mul", "x a", "b"), node("Add", "a b", "y")]
    executor = agrees(model(nodes, {}, SHAPE), SHAPE)
    assert kernels(executor) == ["activation", "Mul", "Add"]


def test_a_gate_of_another_tensor_is_no_swish() -> None:
    nodes = [node("Neg", "x", "n"), node("Sigmoid", "n", "a"), node("Mul", "x a", "y")]
    assert "Swish" not in [n.op for n in recognised(nodes, {}).nodes]
    agrees(model(nodes, {}, SHAPE), SHAPE)


def test_activations_are_fused_into_what_is_before_them() -> None:
    for activation in (
        modern_models.swish,
        modern_models.hard_swish_of_clip,
        modern_models.gelu_of_erf,
        modern_models.gelu_of_tanh,
        lambda net, x: net.node("Tanh", x),
        lambda net, x: net.node("HardSigmoid", x),
    ):
        net = Net(1)
        last = activation(net, net.conv("x", 6, 5, 3))
        net.nodes.append(helper.make_node("Identity", [last], ["y"]))
        assert kernels(agrees(model(net.nodes, net.constants, SHAPE), SHAPE)) == ["conv2d"]


def layer_norm(variance: str = "a", exponent: float = 2.0) -> list[NodeProto]:
    return [
        node("ReduceMean", "x", "m", axes=[-1]),
        node("Sub", "x m", "a"),
        node("Sub", "x m", "a2"),
        node("Pow", f"{variance} p", "b"),
        node("ReduceMean", "b", "c", axes=[-1]),
        node("Add", "c e", "d"),
        node("Sqrt", "d", "f"),
        node("Reciprocal", "f", "r"),
        node("Mul", "r a", "g"),
        node("Mul", "g scale", "h"),
        node("Add", "shift h", "y"),
    ]


@pytest.mark.parametrize("variance", ["a", "a2"])
def test_a_layer_norm_in_parts_is_one(variance: str) -> None:
    constants = scalars(p=2, e=1e-5) | {
        "scale": weights(4, seed=1),
        "shift": weights(4, seed=2),
    }
    executor = agrees(model(layer_norm(variance), constants, SHAPE), SHAPE)
    assert kernels(executor) == ["layer_norm"]


def test_a_layer_norm_without_scale_over_two_axes_is_one() -> None:
    nodes = [
        node("ReduceMean", "x", "m", axes=[2, 3]),
        node("Sub", "x m", "a"),
        node("Mul", "a a", "b"),
        node("ReduceMean", "b", "c", axes=[2, 3]),
        node("Add", "c e", "d"),
        node("Sqrt", "d", "f"),
        node("Div", "a f", "y"),
    ]
    assert kernels(agrees(model(nodes, scalars(e=1e-3), SHAPE), SHAPE)) == ["layer_norm"]


def test_a_norm_of_fourth_powers_is_no_layer_norm() -> None:
    constants = scalars(p=4, e=1e-5) | {"scale": weights(4), "shift": weights(4)}
    assert "layer_norm" not in kernels(agrees(model(layer_norm(), constants, SHAPE), SHAPE))


@pytest.mark.parametrize(
    ("opset", "axis", "op"),
    [(13, -1, "softmax"), (13, 1, "Softmax"), (11, 1, "softmax"), (13, 3, "softmax")],
)
def test_softmax_over_the_last_axes_takes_a_kernel(opset: int, axis: int, op: str) -> None:
    value = model([node("Softmax", "x", axis=axis)], {}, SHAPE, opset=opset)
    assert kernels(agrees(value, SHAPE)) == [op]


PERMUTATIONS = {
    (0, 2, 3, 1): "transpose",
    (0, 2, 1, 3): "transpose",
    (2, 3, 0, 1): "transpose",
    (1, 0, 2, 3): "",
    (3, 2, 1, 0): "Transpose",
}


@pytest.mark.parametrize("order", PERMUTATIONS)
def test_a_transposition_of_two_axes_takes_a_kernel(order: tuple[int, ...]) -> None:
    nodes = [node("Relu", "x", "a"), node("Transpose", "a", "y", perm=order)]
    executor = agrees(model(nodes, {}, SHAPE), SHAPE)
    moved = [op for op in kernels(executor) if op not in ("Relu", "Reshape")]
    assert moved == ([PERMUTATIONS[order]] if PERMUTATIONS[order] else [])


def test_a_product_takes_factors_and_a_transposition_with_it() -> None:
    nodes = [
        node("Mul", "x s", "a"),
        node("Transpose", "x", "t", perm=[0, 1, 3, 2]),
        node("MatMul", "a t", "p"),
        node("Div", "p s", "q"),
        node("Mul", "q s", "y"),
    ]
    executor = agrees(model(nodes, scalars(s=0.3), SHAPE), SHAPE)
    assert kernels(executor) == ["matmul"]
    (call,) = executor.graph.nodes
    assert call.kernel is not None and call.kernel.describe()["alpha"] == pytest.approx(0.3)


def test_products_of_constant_batches_and_of_one_matrix_agree() -> None:
    for shape in ((4, 3), (1, 4, 3), (6, 4, 3), (1, 6, 4, 3)):
        nodes = [node("MatMul", "x w", "y")]
        executor = agrees(model(nodes, {"w": weights(*shape)}, SHAPE), SHAPE)
        assert kernels(executor) == ["dense" if shape == (4, 3) else "matmul"]


def test_a_shared_right_operand_serves_the_whole_batch() -> None:
    nodes = [
        node("ReduceMean", "x", "m", axes=[1]),
        node("Transpose", "m", "t", perm=[0, 1, 3, 2]),
        node("MatMul", "x t", "y"),
    ]
    executor = agrees(model(nodes, {}, SHAPE), SHAPE)
    assert "matmul" in kernels(executor) and not executor.refusals
