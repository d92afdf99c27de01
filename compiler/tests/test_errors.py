"""Every bad input has its own name, and the node's where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models import digits, model, node, parsed, save, spec, weights
from onnx import TensorProto, helper

from graphlet_compiler import errors, importer, pipeline, te_operators
from graphlet_compiler import spec as specification
from graphlet_compiler.events import Events
from graphlet_compiler.graph import Node

W = {"w": weights(4, 3, 3, 3)}


def failure(path: Path, shape: Sequence[int] = (1, 3, 8, 8), **fields: Any) -> errors.CompileError:
    """The error of compiling ``path``."""
    with pytest.raises(errors.CompileError) as caught:
        pipeline.compile_model(parsed(shape, **fields), path, Events(StringIO()))
    return caught.value


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = failure(tmp_path / "none.onnx")
    assert error.code == "missing_file" and "none.onnx" in error.message
    assert str(tmp_path) not in error.message


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08", bytes(range(256)) * 9])
def test_an_empty_or_foreign_file_is_corrupt(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert failure(path).code == "corrupt_onnx"


def test_a_file_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = save(digits(), tmp_path).read_bytes()
    path = tmp_path / "cut.onnx"
    for end in range(1, len(whole), len(whole) // 40):
        path.write_bytes(whole[:end])
        assert failure(path, (1, 1, 28, 28)).code in ("corrupt_onnx", "opset"), end


def test_a_git_lfs_pointer_gets_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    error = failure(path)
    assert error.code == "corrupt_onnx" and error.hint and "git lfs pull" in error.hint


@pytest.mark.parametrize(("opset", "word"), [(3, "too old"), (99, "too new")])
def test_an_operator_set_that_nobody_knows_is_refused(
    tmp_path: Path, opset: int, word: str
) -> None:
    error = failure(save(model([node("Relu", "x")], {}, opset=opset), tmp_path))
    assert error.code == "opset" and word in error.message and str(opset) in error.message


def test_every_unsupported_operator_is_reported_with_its_node(tmp_path: Path) -> None:
    nodes = [
        node("Bernoulli", "x", "a"),
        helper.make_node("Fancy", ["a"], ["b"], name="mine", domain="com.example"),
        node("Relu", "b", "c"),
        node("StringNormalizer", "c", "y"),
    ]
    value = model(nodes, {})
    value.opset_import.append(helper.make_opsetid("com.example", 1))
    error = failure(save(value, tmp_path))
    assert error.code == "unsupported_operator"
    assert [d.node for d in error.details] == ["Bernoulli_a", "mine", "StringNormalizer_y"]
    assert "com.example.Fancy" in error.message


def test_what_tvm_refuses_is_reported_with_its_node(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMin", "x", "m", keepdims=0),
        node("Cast", "m", "axis", to=TensorProto.INT64),
        node("CumSum", "x axis", "a"),
        node("CumSum", "a axis", "y"),
    ]
    error = failure(save(model(nodes, {}), tmp_path))
    assert error.code == "unsupported_operator"
    assert [d.node for d in error.details] == ["CumSum_a", "CumSum_y"]


def test_what_tvm_cannot_lower_is_reported_with_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TVM takes it, and has no code for it; without our own that shows late.
    monkeypatch.delitem(te_operators._OPERATORS, "TopK")
    nodes = [node("Relu", "x", "a"), node("TopK", "a k", "y i", axis=1)]
    error = failure(save(model(nodes, {"k": np.asarray([2])}), tmp_path))
    assert error.code == "unsupported_operator" and error.node == "TopK_y"
    assert len(error.message) < 500


def test_a_branch_is_unsupported(tmp_path: Path) -> None:
    then, otherwise = (
        helper.make_graph(
            [inner], "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
        )
        # With one shape both would be computed.
        for inner in (node("Relu", "x", "z"), node("ReduceMax", "x", "z", keepdims=0))
    )
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Cast", "m", "c", to=TensorProto.BOOL),
        node("If", "c", "y", then_branch=then, else_branch=otherwise),
    ]
    error = failure(save(model(nodes, {}), tmp_path))
    assert error.code == "unsupported_operator" and error.node == "If_y"


def test_several_inputs_are_named(tmp_path: Path) -> None:
    value = model([node("Add", "x other")], {})
    value.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    error = failure(save(value, tmp_path))
    assert error.code == "several_inputs" and "`x`, `other`" in error.message


def test_an_input_that_the_output_does_not_need_is_no_obstacle(tmp_path: Path) -> None:
    value = model([node("Relu", "x"), node("Relu", "other", "z")], {})
    value.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    assert pipeline.compile_model(
        parsed((1, 3, 8, 8)), save(value, tmp_path), Events(StringIO())
    ).files


def test_several_outputs_need_a_choice(tmp_path: Path) -> None:
    value = model([node("Relu", "x", "a"), node("Neg", "a", "y")], {})
    value.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
    path = save(value, tmp_path)
    error = failure(path)
    assert error.code == "several_outputs" and "`y`, `a`" in error.message
    compiled = pipeline.compile_model(
        parsed((1, 3, 8, 8), output__name="a"), path, Events(StringIO())
    )
    assert compiled.report["output"]["name"] == "a"


def test_an_output_that_depends_on_nothing_is_refused(tmp_path: Path) -> None:
    nodes = [node("Shape", "x", "s"), node("Cast", "s", "y", to=TensorProto.FLOAT)]
    assert failure(save(model(nodes, {}), tmp_path)).code == "no_input"


def test_a_size_that_depends_on_values_is_a_dynamic_dimension(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("ReduceMax", "r", "m", keepdims=0),
        node("Cast", "m", "i", to=TensorProto.INT64),
        node("Unsqueeze", "i z", "l"),
        node("Expand", "one l", "y"),
    ]
    constants = {"z": np.asarray([0]), "one": np.ones(1, np.float32)}
    error = failure(save(model(nodes, constants), tmp_path))
    assert error.code == "dynamic_dimension" and error.node == "Expand_y"


def test_a_half_precision_input_is_refused(tmp_path: Path) -> None:
    error = failure(save(model([node("Relu", "x")], {}, dtype=TensorProto.FLOAT16), tmp_path))
    assert error.code == "unsupported_dtype" and "float16" in error.message


def test_an_element_type_that_is_not_ours_is_refused_with_its_node(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "x", "a", to=TensorProto.FLOAT8E4M3FN),
        node("Cast", "a", "y", to=TensorProto.FLOAT),
    ]
    error = failure(save(model(nodes, {}, opset=19), tmp_path))
    assert error.code == "unsupported_dtype" and error.node == "Cast_a"


def test_an_output_of_integers_is_refused(tmp_path: Path) -> None:
    value = model([node("ArgMax", "x", axis=1)], {})
    value.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    error = failure(save(value, tmp_path))
    assert error.code == "unsupported_dtype" and "int64" in error.message


def test_external_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(digits(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    error = failure(path, (1, 1, 28, 28))
    assert error.code == "external_data" and "w.bin" in error.message


def test_external_weights_are_not_read_from_other_folders(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(digits(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").rename(tmp_path / "w.bin")
    value = onnx.load(path, load_external_data=False)
    for tensor in value.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
    onnx.save(value, path)
    assert failure(path, (1, 1, 28, 28)).code == "external_data"


def test_external_weights_that_were_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(digits(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    data = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(data[: len(data) // 2])
    assert failure(path, (1, 1, 28, 28)).code in ("external_data", "corrupt_onnx")


def test_a_small_file_cannot_ask_for_a_huge_tensor(tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", "s", "big"), node("Add", "x big")]
    error = failure(save(model(nodes, {"s": np.asarray([1 << 40])}), tmp_path))
    assert error.code == "too_large" and error.node == "ConstantOfShape_big"


@pytest.mark.parametrize(
    ("shape", "fields", "word"),
    [
        ((1, 3, 9, 8), {}, "[1, 3, 9, 8]"),
        ((1, 8, 8, 3), {"input__layout": "NHWC"}, "[1, 8, 8, 3]"),
        ((1, 3, 8, 8), {"input__name": "image"}, "no `image`"),
        ((1, 3, 8, 8), {"output__name": "prob"}, "no `prob`"),
    ],
)
def test_a_specification_that_contradicts_the_file_is_told_so(
    tmp_path: Path, shape: Sequence[int], fields: dict[str, Any], word: str
) -> None:
    error = failure(save(model([node("Conv", "x w")], W), tmp_path), shape, **fields)
    assert error.code == "spec_mismatch" and word in error.message and error.hint


def test_all_contradictions_are_reported_together(tmp_path: Path) -> None:
    path = save(model([node("Conv", "x w")], W), tmp_path)
    bad = specification.parse(spec((1, 3, 9, 9), preprocess__channels="grey", output__name="prob"))
    with pytest.raises(errors.SpecMismatchError) as caught:
        pipeline.compile_model(bad, path, Events(StringIO()))
    assert "prob" in caught.value.message and len(caught.value.details) >= 1
    bad = specification.parse(spec((1, 3, 9, 9), preprocess__channels="grey"))
    with pytest.raises(errors.SpecMismatchError) as caught:
        pipeline.compile_model(bad, path, Events(StringIO()))
    assert len(caught.value.details) == 2


def test_a_size_that_the_network_cannot_take_is_a_contradiction(tmp_path: Path) -> None:
    nodes = [node("Flatten", "x", "a"), node("Gemm", "a w", "y")]
    value = model(nodes, {"w": weights(192, 5)}, (1, 3, "h", "w"))
    error = failure(save(value, tmp_path), (1, 3, 9, 9))
    assert error.code == "corrupt_onnx" and "Gemm" in error.message and error.hint


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"compile__threads": 2}, "compile.threads"),
        ({"compile__quantisation": "int8"}, "compile.quantisation"),
        ({"input__dtype": "uint8"}, "input.dtype"),
    ],
)
def test_an_option_that_is_not_carried_out_is_an_error(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(errors.UnsupportedOptionError, match=word):
        specification.parse(spec((1, 3, 8, 8), **fields))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["input"].update(shape=[1, 3, 8]),
        lambda s: s["input"].update(shape=[1, 3, 8, 0]),
        lambda s: s["input"].update(shape=[1, 3, 8, True]),
        lambda s: s["input"].update(layout="CHWN"),
        lambda s: s["compile"].update(simd="avx"),
        lambda s: s["output"].update(name=3),
        lambda s: s.update(compile=[]),
    ],
)
def test_a_specification_of_the_wrong_form_is_refused(
    change: Callable[[dict[str, Any]], None],
) -> None:
    value = spec((1, 3, 8, 8))
    change(value)
    with pytest.raises(errors.InvalidSpecError):
        specification.parse(value)
    assert json.dumps(value)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Check failed: (a == b) is false: shapes differ\nT.func()\n" * 99, "shapes differ"),
        ("Check failed: (ndim == 2)", "Check failed: (ndim == 2)"),
        ("", "ValueError"),
        ("word " * 100, "word " * 40 + "…"),
    ],
)
def test_of_what_tvm_says_one_sentence_is_told(said: str, reason: str) -> None:
    detail = importer.refusal(Node("Add", "n", [], []), ValueError(said))
    assert detail.message == f"`n`: TVM does not take this Add: {reason}"
