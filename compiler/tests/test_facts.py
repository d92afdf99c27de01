"""What `facts` and `check` say about a file."""

from __future__ import annotations

from pathlib import Path

import light_models
import numpy as np
import pytest
from models import digits, model, node, parsed, save, shared, weights

from graphlet_compiler import check, onnx_facts


def test_facts_name_inputs_outputs_and_operators(tmp_path: Path) -> None:
    facts = onnx_facts.facts(save(digits(), tmp_path))
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 1, 28, 28]}]
    assert facts["outputs"] == [
        {"name": "y", "dtype": "float32", "shape": ["batch", 10], "produced_by": "Softmax"}
    ]
    assert facts["opset"] == {"": 17} and facts["nodes"] == 10
    assert (
        facts["operators"]["Conv"] == 2 and next(iter(facts["operators"])) == "BatchNormalization"
    )


def test_facts_work_out_an_output_that_the_file_leaves_open(tmp_path: Path) -> None:
    value = model([node("Conv", "x w")], {"w": weights(4, 3, 3, 3)})
    (output,) = onnx_facts.facts(save(value, tmp_path))["outputs"]
    assert output["shape"] == [1, 4, 6, 6] and output["produced_by"] == "Conv"


def test_facts_look_behind_operators_that_only_move_values(tmp_path: Path) -> None:
    nodes = [
        node("Softmax", "x", "softmax", axis=1),
        node("Identity", "softmax", "same"),
        node("Flatten", "same"),
    ]
    (output,) = onnx_facts.facts(save(model(nodes, {}), tmp_path))["outputs"]
    assert output["produced_by"] == "Softmax"


def test_facts_of_a_graph_that_bites_its_tail_end(tmp_path: Path) -> None:
    value = model([node("Identity", "x")], {})
    value.graph.node[0].input[0] = value.graph.node[0].output[0]
    (output,) = onnx_facts.facts(save(value, tmp_path))["outputs"]
    assert output["produced_by"] == "Identity"


def test_facts_leave_out_initializers_that_old_files_list_as_inputs() -> None:
    facts = onnx_facts.facts(light_models.shipped())
    assert [i["name"] for i in facts["inputs"]] == ["gpu_0/data_0"]


def test_check_counts_the_arithmetic_of_each_node(tmp_path: Path) -> None:
    answer = check.check(parsed((1, 1, 28, 28)), save(digits(), tmp_path))
    macs = {n["name"]: n["macs"] for n in answer["nodes"]}
    assert macs["Conv_c1"] == 16 * 28 * 28 * 9
    assert macs["Conv_c5"] == 32 * 14 * 14 * 16 * 9
    assert macs["Gemm_logits"] == 10 * 32 * 7 * 7
    assert answer["macs"] == sum(macs.values())
    assert answer["output"]["shape"] == [1, 10]
    assert answer["kernels"] == {
        "graphlet_conv2d_f32": 1,
        "graphlet_conv2d_winograd_f32": 1,
        "graphlet_dense_f32": 1,
        "graphlet_max_pool2d_f32": 2,
        "graphlet_softmax_f32": 1,
    }
    assert not answer["unsupported"] and not answer["fallbacks"]


def test_check_tells_what_is_slow_and_why(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("ConvTranspose", "a v", "b"),
        # The same matrix for every channel.
        node("MatMul", "m b", "y"),
    ]
    constants = {"w": weights(6, 3, 3, 3), "v": weights(6, 4, 1, 1), "m": weights(8, 8)}
    value = model(nodes, constants)
    answer = check.check(parsed((1, 3, 8, 8)), save(value, tmp_path))
    found = {f["node"]: f for f in answer["fallbacks"]}
    assert set(found) == {"ConvTranspose_b", "MatMul_y"}
    assert found["ConvTranspose_b"]["macs"] == 6 * 64 * 4
    assert found["MatMul_y"]["macs"] == 4 * 8 * 8 * 8
    assert "repeats" in found["MatMul_y"]["reason"]
    total = 6 * 64 * 27 + 6 * 64 * 4 + 4 * 512
    assert answer["macs"] == total
    assert found["MatMul_y"]["share"] == pytest.approx(2048 / total)


def test_check_lists_everything_unsupported_and_goes_on(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Bernoulli", "a", "b"),
        node("StringNormalizer", "b", "c"),
        node("Relu", "c", "y"),
    ]
    value = model(nodes, {"w": weights(4, 3, 3, 3)})
    answer = check.check(parsed((1, 3, 8, 8)), save(value, tmp_path))
    assert [u["node"] for u in answer["unsupported"]] == ["Bernoulli_b", "StringNormalizer_c"]


@pytest.mark.parametrize(
    ("file", "side", "macs"),
    [("mobilenet_v2.onnx", 224, 300_775_552), ("squeezenet1.0.onnx", 227, 861_339_936)],
)
def test_the_real_models_run_in_kernels_alone(file: str, side: int, macs: int) -> None:
    path = shared() / "models" / file
    if not path.exists():
        pytest.skip(f"skipped: {path.name} is not here (GRAPHLET_SHARED)")
    answer = check.check(parsed((1, 3, side, side)), path)
    assert answer["macs"] == macs
    assert not answer["fallbacks"] and not answer["unsupported"]
    assert np.isclose(sum(n["share"] for n in answer["nodes"]), 1.0)
