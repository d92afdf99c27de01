"""Branches, loops and compound operators that are written as simpler ones."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphlet_compiler import (
    errors,
    graph_json,
    importer,
    node_cases,
    pipeline,
    simplify,
    tensors,
)
from graphlet_compiler.events import Events
from graphlet_compiler.graph import Graph

FLOAT = TensorProto.FLOAT


def declare(name: str, shape: list[int] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def opened(nodes: list[onnx.NodeProto], constants: dict[str, Any], opset: int = 20) -> Graph:
    graph = helper.make_graph(
        nodes,
        "test",
        [declare("x", [2, 3]), declare("flag", [], TensorProto.BOOL)],
        [declare("y", None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    return pipeline.open_model(tensors.TensorSpec(), model)


def branch(op: str, source: str = "x") -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node(op, [source], ["z"])], "branch", [], [declare("z", None)]
    )


def test_a_branch_on_data_is_both_with_a_choice_behind_them() -> None:
    branches = {"then_branch": branch("Relu"), "else_branch": branch("Neg")}
    graph = opened([helper.make_node("If", ["flag"], ["y"], name="if", **branches)], {})
    simplify.simplify(graph)
    assert [node.op for node in graph.nodes] == ["Relu", "Neg", "Where"]
    assert graph.nodes[-1].inputs[0] == "flag"


def test_a_branch_on_a_constant_is_that_branch() -> None:
    branches = {"then_branch": branch("Relu"), "else_branch": branch("Neg")}
    node = helper.make_node("If", ["c"], ["y"], name="if", **branches)
    graph = opened([node], {"c": np.asarray(False)})
    simplify.simplify(graph)
    assert [node.op for node in graph.nodes] == ["Neg"]


def test_operators_of_one_name_are_written_out_under_names_of_their_own() -> None:
    # ONNX does not ask for different names.
    nodes = [
        helper.make_node("LpNormalization", ["x"], ["a"], name="same", axis=0),
        helper.make_node("LpNormalization", ["a"], ["b"], name="same", axis=1),
        helper.make_node(
            "If",
            ["flag"],
            ["c"],
            name="same",
            then_branch=branch("Relu", "b"),
            else_branch=branch("Neg", "b"),
        ),
        helper.make_node(
            "If",
            ["flag"],
            ["y"],
            name="same",
            then_branch=branch("Relu", "c"),
            else_branch=branch("Neg", "c"),
        ),
    ]
    graph = opened(nodes, {})
    simplify.simplify(graph)
    written = [name for node in graph.nodes for name in node.outputs]
    assert len(written) == len(set(written))
    assert not {"If", "LpNormalization"} & {node.op for node in graph.nodes}


def loop(turns: int) -> Graph:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "x"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            declare("turn", [], TensorProto.INT64),
            declare("go", [], TensorProto.BOOL),
            declare("state", None),
        ],
        [declare("on", [], TensorProto.BOOL), declare("next", None)],
    )
    node = helper.make_node("Loop", ["count", "", "x"], ["y"], name="loop", body=body)
    return opened([node], {"count": np.asarray(turns)})


def test_a_loop_is_its_turns_one_behind_another() -> None:
    graph = loop(3)
    simplify.simplify(graph)
    assert [node.op for node in graph.nodes] == ["Add"] * 3


def test_a_loop_of_too_many_turns_is_refused_by_name() -> None:
    with pytest.raises(errors.TooLargeError) as caught:
        simplify.simplify(loop(2**40))
    assert caught.value.node == "loop" and "Loop" in caught.value.message


def test_halves_are_summed_in_32_bits() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Softmax", ["h"], ["y"], name="softmax"),
    ]
    graph = opened(nodes, {})
    simplify.simplify(graph)
    softmax = next(node for node in graph.nodes if node.op == "Softmax")
    assert graph.dtypes[softmax.outputs[0]] == np.float32
    assert graph.dtypes[graph.output] == np.float16


def test_constants_of_64_bits_keep_them() -> None:
    wide = 1 + 2**-40
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["d", "c"], ["y"]),
    ]
    graph = opened(nodes, {"c": np.full((2, 3), wide)})
    imported = pipeline.import_opened(graph, Events(io.StringIO()))
    module = importer.fuse(imported.module, graph)
    executor = graph_json.from_module(module, graph.inputs, imported.named)
    (constant,) = executor.params.values()
    assert constant.dtype == np.float64 and constant.flat[0] == wide


@pytest.mark.parametrize(
    ("case", "baked"),
    [
        ("test_add", set()),
        ("test_reshape_extended_dims", {"shape"}),
        ("test_slice", {"starts", "ends", "axes", "steps"}),
        ("test_resize_upsample_scales_linear", {"scales"}),
        ("test_top_k", {"k"}),
        # Rank 1 and integers, but data.
        ("test_gather_2d_indices", set()),
        ("test_clip", set()),
        ("test_quantizelinear", set()),
        # By way of what a function's body computes of it.
        ("test_affine_grid_2d_expanded", {"size"}),
    ],
)
def test_only_parameters_of_a_node_case_become_constants(case: str, baked: set[str]) -> None:
    opened_case = node_cases.open_case(case, node_cases.read_model(case))
    assert set(opened_case.baked) == baked
    assert not baked & set(opened_case.inputs)
    assert all(array.ndim > 1 or name not in baked for name, array in opened_case.inputs.items())
