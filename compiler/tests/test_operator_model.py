"""One operator as a model: what is made, and what is refused with which words."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from graphlet_compiler import operator_model, pipeline, tensors
from graphlet_compiler.events import Events
from graphlet_compiler.operator_model import WrongOperatorError


def told(operator: str, inputs: list[str | None], **more: Any) -> dict[str, Any]:
    """``float32[2, 3]`` and ``int64[2]=1, 3`` as the builder writes them."""

    def one(text: str | None) -> dict[str, Any] | None:
        if text is None:
            return None
        head, _, values = text.partition("=")
        dtype, _, extents = head.rstrip("]").partition("[")
        shape = [int(extent) for extent in extents.split(",") if extent]
        value: dict[str, Any] = {"dtype": dtype, "shape": shape}
        if values:
            value["values"] = [part.strip() for part in values.split(",")]
        return value

    return {"operator": operator, "inputs": [one(text) for text in inputs], **more}


def made(operator: str, inputs: list[str | None], **more: Any) -> onnx.ModelProto:
    return operator_model.model_of(operator_model.parse(told(operator, inputs, **more)))


def shapes(model: onnx.ModelProto) -> list[list[int]]:
    return [
        [extent.dim_value for extent in output.type.tensor_type.shape.dim]
        for output in model.graph.output
    ]


def test_an_operator_becomes_a_model_that_computes_it() -> None:
    model = made("Softmax", ["float32[2,5]"], attributes={"axis": "0"})
    assert [value.name for value in model.graph.input] == ["input"]
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    (found,) = ReferenceEvaluator(model).run(None, {"input": x})
    exponents = np.exp(x - x.max(axis=0))
    np.testing.assert_allclose(found, exponents / exponents.sum(axis=0), rtol=1e-6)


def test_an_input_with_values_is_a_constant_of_the_model() -> None:
    model = made("Reshape", ["uint8[2,6]", "int64[2]=3,4"])
    assert [value.name for value in model.graph.input] == ["data"]
    constant = numpy_helper.to_array(model.graph.initializer[0])
    assert constant.tolist() == [3, 4] and constant.dtype == np.int64
    assert shapes(model) == [[3, 4]]
    flags = made("Where", ["bool[2]=true,0", "float32[2]", "float32[2]"]).graph.initializer[0]
    assert numpy_helper.to_array(flags).tolist() == [True, False]


def test_optional_inputs_and_outputs_and_variadic_ones_have_their_names() -> None:
    clip = made("Clip", ["float32[3]", None, "float32[]=6"])
    assert list(clip.graph.node[0].input) == ["input", "", "max"]
    assert list(made("Clip", ["float32[3]", None, None]).graph.node[0].input) == ["input"]
    concat = made("Concat", ["int8[1,2]"] * 3, attributes={"axis": "0"})
    assert [value.name for value in concat.graph.input] == ["inputs_0", "inputs_1", "inputs_2"]
    assert shapes(concat) == [[3, 2]]
    split = made("Split", ["float32[6]"], attributes={"num_outputs": "3"}, outputs=3)
    assert shapes(split) == [[2], [2], [2]]
    pool = made("MaxPool", ["float32[1,1,4,4]"], attributes={"kernel_shape": "2,2"}, outputs=2)
    assert [value.name for value in pool.graph.output] == ["Y", "Indices"]
    older = made("Softmax", ["float32[4]"], opset=11, attributes={"axis": "0"})
    assert older.opset_import[0].version == 11


@pytest.mark.parametrize(
    ("operator", "inputs", "more", "message", "hint"),
    [
        ("Sofmax", ["float32[4]"], {}, "no operator `Sofmax`", "Softmax"),
        ("gelu", ["float32[4]"], {"opset": 17}, "in opset 17", "Gelu"),
        ("Gelu", ["float32[4]"], {"opset": 17}, "in opset 17", "leave --opset out"),
        ("Relu", ["float32[4]"], {"opset": 999}, "opset 999 is none", None),
        ("Relu", ["float32[4]"], {"opset": 3}, "opset 3 is too old: 7 to", "leave --opset out"),
        ("Relu", ["float32[4,0]"], {}, "`X` has no elements", None),
        ("Relu", ["float32[100000,100000]"], {}, "`X` has 40.0 GB", None),
        ("Relu", ["float64[4294967295,4294967295]"], {}, "the memory of a module ends", None),
        ("Relu", ["float32[4]"], {"domain": "com.me"}, "no operators of the domain", None),
        ("Upsample", ["float32[1,1,2,2]"], {}, "deprecated", None),
        ("Relu", ["float32[4]"] * 2, {}, "takes 1 inputs, not 2", "Relu(X)"),
        ("Conv", ["float32[1,1,4,4]"], {}, "takes 2 to 3 inputs, not 1", "Conv(X, W, B?)"),
        ("Add", ["float32[4]", None], {}, "takes 2 inputs, not 1", None),
        ("Add", [None, "float32[4]"], {}, "cannot go without its input `A`", None),
        ("Softmax", ["int8[4]"], {}, "`input` of Softmax cannot be int8", "float32"),
        ("Add", ["float32[2]", "float32[3]"], {}, "Incompatible dimensions", "Add(A, B)"),
        ("Add", ["float32[2]", "int8[2]"], {}, "Add: ", None),
        ("Concat", ["float32[2]"], {}, "needs the attribute `axis`", "--attribute axis="),
        ("Softmax", ["float32[2]"], {"attributes": {"axes": "1"}}, "no attribute `axes`", "axis"),
        ("Softmax", ["float32[2]"], {"attributes": {"axis": "1.5"}}, "a whole number", None),
        ("Softmax", ["float32[2]"], {"attributes": {"axis": "9"}}, "Softmax: ", None),
        ("Relu", ["float32[2]"], {"outputs": 2}, "gives 1 outputs, not 2", None),
        ("Reshape", ["float32[4]", "int64[2]=4"], {}, "2 elements, but 1 values", None),
        ("Reshape", ["float32[4]", "int64[1]=x"], {}, "not all values are int64", None),
        ("Add", ["uint8[1]=300", "uint8[1]"], {}, "not all values are uint8", None),
        ("If", ["bool[]"], {}, "needs the attribute", None),
        ("ConstantOfShape", ["int64[1]=3"], {"attributes": {"value": "1"}}, "command line", "ONNX"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(
    operator: str, inputs: list[str | None], more: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(WrongOperatorError) as caught:
        made(operator, inputs, **more)
    assert message in caught.value.message
    if hint is not None:
        assert hint in (caught.value.hint or "")


def test_the_command_writes_the_same_file_each_time_or_says_why_not(tmp_path: Path) -> None:
    source, out = tmp_path / "operator.json", tmp_path / "model.onnx"
    source.write_text(json.dumps(told("Softmax", ["float32[1,10]"])))
    arguments = ["--operator", str(source), "--out", str(out)]
    stdout = io.StringIO()
    assert operator_model.main(arguments, stdout) == 0
    first = out.read_bytes()
    assert operator_model.main(arguments, stdout) == 0
    assert out.read_bytes() == first
    result = pipeline.compile_model(tensors.parse({}), out, Events(io.StringIO()))
    assert result.report["outputs"][0]["shape"] == [1, 10]

    source.write_text(json.dumps(told("Nothing", [])))
    stdout = io.StringIO()
    assert operator_model.main(arguments, stdout) == 1
    assert json.loads(stdout.getvalue())["code"] == "wrong_operator"
