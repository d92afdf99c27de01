"""Models with several inputs and outputs, of any element type."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models import node, weights
from onnx import TensorProto, helper, numpy_helper

from graphlet_compiler import errors, pipeline, tensors
from graphlet_compiler.events import Events
from graphlet_compiler.pipeline import Compiled


def mixed() -> onnx.ModelProto:
    """Two rows of floats and integers; the number of rows is open."""
    declare = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("Cast", "ids", "wide", to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "wide"], ["sum"]),
            node("Relu", "sum", "y"),
            helper.make_node("Add", ["count", "count"], ["twice"]),
        ],
        "mixed",
        [
            declare("x", TensorProto.FLOAT, ["rows", 3]),
            declare("ids", TensorProto.INT64, ["rows", 3]),
            declare("count", TensorProto.INT8, [5]),
        ],
        # One output is read inside the graph as well.
        [
            declare("y", TensorProto.FLOAT, ["rows", 3]),
            declare("sum", TensorProto.FLOAT, ["rows", 3]),
            declare("twice", TensorProto.INT8, [5]),
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def compiled(model: onnx.ModelProto, folder: Path, **shapes: list[int]) -> Compiled:
    path = folder / "model.onnx"
    onnx.save(model, path)
    spec = tensors.parse({"name": "test", "shapes": shapes})
    return pipeline.compile_model(spec, path, Events(io.StringIO()))


def test_every_input_and_output_keeps_its_name_place_and_type(tmp_path: Path) -> None:
    result = compiled(mixed(), tmp_path, x=[2, 3])
    report = result.report
    assert [(t["name"], t["dtype"], t["shape"]) for t in report["inputs"]] == [
        ("x", "float32", [2, 3]),
        ("ids", "int64", [2, 3]),
        ("count", "int8", [5]),
    ]
    assert [(t["name"], t["dtype"]) for t in report["outputs"]] == [
        ("y", "float32"),
        ("sum", "float32"),
        ("twice", "int8"),
    ]
    graph = json.loads(result.files["graph.json"])
    assert [n["name"] for n in graph["nodes"][:3]] == ["x", "ids", "count"]
    heads = [graph["node_row_ptr"][index] + output for index, output, _ in graph["heads"]]
    dtypes = [graph["attrs"]["dltype"][1][entry] for entry in heads]
    assert dtypes == ["float32", "float32", "int8"]
    # Outputs are all there at the end: each has a place of its own, and no input is written over.
    places = [
        tuple(graph["attrs"][name][1][entry] for name in ("storage_id", "storage_offset"))
        for entry in heads
    ]
    assert len(set(places)) == 3 and "consumed" not in graph["attrs"]


def test_outputs_that_kernels_write_and_views_of_them_keep_their_shapes(tmp_path: Path) -> None:
    declare = helper.make_tensor_value_info
    shapes = {"b": [1, 4, 8, 8], "a": [1, 4, 8, 8], "flat": [4, 64], "again": [256]}
    graph = helper.make_graph(
        [
            node("Conv", "x w", "a"),
            node("Conv", "x w", "c"),
            node("Reshape", "c s", "flat"),
            node("Reshape", "c t", "again"),
            node("Relu", "a", "b"),
        ],
        "outputs",
        [declare("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [declare(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [
            numpy_helper.from_array(array, name)
            for name, array in {
                "w": weights(4, 3, 1, 1),
                "s": np.asarray([4, 64]),
                "t": np.asarray([256]),
            }.items()
        ],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    result = compiled(model, tmp_path)
    assert [t["shape"] for t in result.report["outputs"]] == list(shapes.values())
    written = json.loads(result.files["graph.json"])
    heads = [written["node_row_ptr"][index] + output for index, output, _ in written["heads"]]
    assert [written["attrs"]["shape"][1][entry] for entry in heads] == list(shapes.values())


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64"]
)
def test_every_element_type_is_compiled(dtype: str, tmp_path: Path) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    info = [helper.make_tensor_value_info(name, kind, [2]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "add", info[:1], info[1:]
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    report = compiled(model, tmp_path).report
    assert report["inputs"][0]["dtype"] == report["outputs"][0]["dtype"] == dtype


@pytest.mark.parametrize(
    ("shapes", "code", "part"),
    [
        ({}, "dynamic_dimension", "`x` is open: [rows, 3]"),
        ({"x": [2]}, "spec_mismatch", "[rows, 3] in the file"),
        ({"x": [2, 4]}, "spec_mismatch", "not [2, 4]"),
        ({"z": [1]}, "spec_mismatch", "no input `z`"),
        ({"x": [2, 3], "ids": [4, 3]}, "spec_mismatch", "`rows` is 2 and, in `ids`, 4"),
    ],
)
def test_open_extents_are_bound_once_and_alike(
    shapes: dict[str, list[int]], code: str, part: str, tmp_path: Path
) -> None:
    with pytest.raises(errors.CompileError) as caught:
        compiled(mixed(), tmp_path, **shapes)
    assert caught.value.code == code
    assert part in caught.value.message


@pytest.mark.parametrize("value", [[], {"simd": "mmx"}, {"shapes": {"x": [-1]}}, {"name": 1}])
def test_a_malformed_specification_is_refused(value: Any) -> None:
    with pytest.raises(errors.InvalidSpecError):
        tensors.parse(value)
