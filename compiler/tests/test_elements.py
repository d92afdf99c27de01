"""Sums, products, equality and places of the greatest: which are calls, and what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from executor import Executor
from models import node, weights
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphlet_compiler import elements
from graphlet_compiler.kernels import SUFFIXES
from graphlet_compiler.tensors import TensorSpec

Shape = tuple[int, ...]


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[str, Shape]],
    outputs: dict[str, str],
    constants: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """A model of tensors of any type; outputs have the shapes that ONNX infers."""

    def kind(dtype: str) -> int:
        return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    declare = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "elements",
        [declare(name, kind(dtype), shape) for name, (dtype, shape) in inputs.items()],
        [declare(name, kind(dtype), None) for name, dtype in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def values(shape: Shape, dtype: str, seed: int) -> Any:
    """Numbers of a few values, so that some are equal; integers that overflow when added."""
    numbers = np.random.default_rng(seed).choice([-128, -77, -1, 0, 1, 2, 99, 127], shape)
    scale = 2**24 if dtype == "int32" else 1
    return (numbers * scale).astype(dtype)


def agrees(made: onnx.ModelProto) -> Executor:
    """Asserts that the compiled graph gives what the reference gives, bit by bit."""
    inputs = {
        value.name: values(
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
            str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            seed,
        )
        for seed, value in enumerate(made.graph.input)
    }
    executor = Executor(made, TensorSpec("elements"))
    expected = ReferenceEvaluator(made).run(None, inputs)[0]
    found = executor.run(*inputs.values())
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    return executor


def calls(executor: Executor) -> list[str | None]:
    """The symbol of each node's kernel, ``None`` for functions of TVM's own."""
    found = [n.origin.kernel if n.origin else None for n in executor.executor.nodes if n.function]
    return [call and call.symbol for call in found]


SHAPES: dict[str, tuple[Shape, Shape]] = {
    "alike": ((2, 3, 4), (2, 3, 4)),
    "scalar": ((5, 7), ()),
    "row": ((5, 2051), (2051,)),
    "column": ((5, 1), (5, 2051)),
    "outer": ((5, 1), (1, 2051)),
    "channels": ((2, 3, 64, 32), (3, 1, 1)),
    "alternating": ((2, 1, 3, 1, 2050), (1, 2, 1, 3, 1)),
    "eight axes": ((2, 1, 2, 1, 1, 3, 1, 2048), (1, 1, 2, 1, 1, 4, 2048)),
}


@pytest.mark.parametrize("dtype", SUFFIXES)
@pytest.mark.parametrize("op", ["Add", "Mul", "Equal"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_one_operator_is_one_call(op: str, dtype: str, shapes: tuple[Shape, Shape]) -> None:
    inputs = {"a": (dtype, shapes[0]), "b": (dtype, shapes[1])}
    made = model([node(op, "a b", "y")], inputs, {"y": "bool" if op == "Equal" else dtype})
    assert calls(agrees(made)) == [f"graphlet_{op.lower()}_{SUFFIXES[dtype]}"]


@pytest.mark.parametrize("dtype", SUFFIXES)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_the_place_of_the_greatest_is_one_call(dtype: str, axis: int, keepdims: int) -> None:
    places = node("ArgMax", "x", "y", axis=axis, keepdims=keepdims)
    made = model([places], {"x": (dtype, (4, 9, 5))}, {"y": "int64"})
    assert calls(agrees(made)) == [f"graphlet_argmax_{SUFFIXES[dtype]}"]


@pytest.mark.parametrize(
    ("dtype", "shapes"),
    [
        ("float32", ((100, 3), (3,))),
        ("float32", ((100, 511), (511,))),
        ("int8", ((100, 2047), (100, 1))),
        ("float32", ((2, 1, 2, 1, 2, 1, 512), (1, 2, 1, 2, 1, 2, 1))),
    ],
)
def test_many_short_rows_stay_tvms(dtype: str, shapes: tuple[Shape, Shape]) -> None:
    inputs = {"a": (dtype, shapes[0]), "b": (dtype, shapes[1])}
    made = model([node("Mul", "a b", "y")], inputs, {"y": dtype})
    assert calls(agrees(made)) == [None]


@pytest.mark.parametrize("dtype", SUFFIXES)
def test_the_sum_of_what_is_equal_is_a_count(dtype: str) -> None:
    nodes = [
        node("Equal", "a b", "same"),
        node("Cast", "same", "ones", to=TensorProto.INT64),
        node("ReduceSum", "ones", "y", keepdims=0),
    ]
    made = model(nodes, {"a": (dtype, (6, 2050)), "b": (dtype, (2050,))}, {"y": "int64"})
    assert calls(agrees(made)) == [f"graphlet_equal_count_{SUFFIXES[dtype]}"]
    # Whoever wants to see which ones are equal gets them, and their sum is TVM's.
    made = model(nodes, {"a": (dtype, (6, 2050)), "b": (dtype, (2050,))}, {"y": "int64"})
    made.graph.output.append(helper.make_tensor_value_info("same", TensorProto.BOOL, None))
    assert calls(agrees(made)) == [f"graphlet_equal_{SUFFIXES[dtype]}", None]


@pytest.mark.parametrize(
    ("nodes", "dtype", "result"),
    [
        ([node("ArgMax", "a", "y", axis=0, select_last_index=1)], "float32", "int64"),
        ([node("ArgMax", "a", "y", axis=0)], "float64", "int64"),
        ([node("Add", "a b", "y")], "float64", "float64"),
        ([node("Mul", "a b", "y")], "int64", "int64"),
        ([node("Equal", "a b", "y")], "int64", "bool"),
        ([node("Sub", "a b", "y")], "float32", "float32"),
    ],
)
def test_what_no_kernel_computes_stays_tvms(
    nodes: list[onnx.NodeProto], dtype: str, result: str
) -> None:
    given = {"a": (dtype, (4, 5)), "b": (dtype, (4, 5))}
    inputs = {name: kind for name, kind in given.items() if name in nodes[0].input}
    assert set(calls(agrees(model(nodes, inputs, {"y": result})))) == {None}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Mul", "a b", "p"), node("Add", "p b", "y")],
        [node("Add", "a b", "s"), node("Relu", "s", "y")],
        [node("Abs", "a", "s"), node("Mul", "s b", "y")],
        [node("Add", "a b", "s"), node("ReduceMax", "s", "y", axes=[1])],
        [node("Expand", "a shape", "t"), node("Add", "t b", "y")],
        [node("Equal", "a b", "e"), node("Not", "e", "y")],
    ],
)
def test_a_chain_stays_one_pass_of_tvms(nodes: list[onnx.NodeProto]) -> None:
    inputs = {"a": ("float32", (6, 6)), "b": ("float32", (6, 6))}
    result = "bool" if nodes[-1].op_type == "Not" else "float32"
    wide = {"shape": np.array([2, 6, 6])}
    assert calls(agrees(model(nodes, inputs, {"y": result}, wide))) == [None]


def test_between_kernels_a_sum_is_a_call() -> None:
    constants = {"w": weights(5, 8), "v": weights(8, 3)}
    nodes = [
        node("MatMul", "x w", "a"),
        node("Softmax", "a", "b"),
        # Read in place where it lies in another shape.
        node("Reshape", "b shape", "flat"),
        node("Mul", "flat z", "scaled"),
        node("ArgMax", "scaled", "y", axis=0, keepdims=0),
    ]
    inputs = {"x": ("float32", (4, 5)), "z": ("float32", (32,))}
    constants["shape"] = np.array([32])
    executor = Executor(model(nodes, inputs, {"y": "int64"}, constants), TensorSpec("elements"))
    names = ["dense", "softmax", "mul", "argmax"]
    assert calls(executor) == [f"graphlet_{name}_f32" for name in names]


def test_what_others_read_too_is_computed_alone() -> None:
    """The sum has to be in memory, so that it is not fused into what follows it."""
    nodes = [node("Add", "a b", "s"), node("ArgMax", "s", "y", axis=1), node("Abs", "s", "z")]
    inputs = {"a": ("float32", (6, 7)), "b": ("float32", (6, 7))}
    executor = agrees(model(nodes, inputs, {"y": "int64", "z": "float32"}))
    assert calls(executor) == ["graphlet_add_f32", "graphlet_argmax_f32", None]


def test_nan_is_the_greatest_and_equals_nothing() -> None:
    x = np.array([[1, np.nan, np.inf, np.nan], [3, 5, 5, -np.inf]], np.float32)
    made = model([node("ArgMax", "x", "y", axis=1)], {"x": ("float32", x.shape)}, {"y": "int64"})
    assert Executor(made, TensorSpec("elements")).run(x).tolist() == [[1], [1]]
    inputs = {"a": ("float32", x.shape), "b": ("float32", x.shape)}
    made = model([node("Equal", "a b", "y")], inputs, {"y": "bool"})
    assert Executor(made, TensorSpec("elements")).run(x, x).sum() == 6


def test_neighbouring_axes_that_move_alike_are_one() -> None:
    assert elements.broadcast((2, 3, 4), (2, 3, 4)) == ((1, 1, 1, 1, 1, 24), (1, 1, 1, 1, 1, 24))
    assert elements.broadcast((2, 3, 4), (3, 1)) == ((1, 1, 1, 2, 3, 4), (1, 1, 1, 1, 3, 1))
    assert elements.broadcast((), ()) == ((1,) * 6, (1,) * 6)
    assert elements.broadcast((2, 1) * 4, (1, 2) * 4) is None
