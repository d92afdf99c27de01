"""A tuning log's choices change what computes a layer, and never what is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from executor import Executor
from models import model, node, parsed, picture, weights
from test_command import compile_in, project

from graphlet_compiler import loops, tuning
from graphlet_compiler.errors import FileError
from graphlet_compiler.kernels import Conv2d, Dense, WinogradConv2d
from graphlet_compiler.tuning import Tuner

__all__ = ["project"]

# What TVM compiles itself: a padded window with gaps, a sum over channels, a curve.
_POOL = node("MaxPool", "x", "p", kernel_shape=[3, 3], dilations=[2, 2], pads=[2, 2, 2, 2])
_NORM = node("LRN", "p", "y", size=5)


def conv(window: int = 3, side: int = 16, pad: int = 1) -> onnx.ModelProto:
    filters = {"w": weights(8, 8, window, window)}
    return model([node("Conv", "x w", pads=[pad] * 4)], filters, (1, 8, side, side))


def loops_model() -> onnx.ModelProto:
    return model([_POOL, _NORM], {}, (1, 8, 12, 12), output_shape=(1, 8, 12, 12))


def executor(value: onnx.ModelProto, shape: tuple[int, ...], tuner: Tuner) -> Executor:
    return Executor(value, parsed(shape), tuner)


@pytest.mark.parametrize(
    ("value", "shape", "layer", "kernels"),
    [
        (
            conv(),
            (1, 8, 16, 16),
            "conv2d 1x8x16x16 to 8x16x16, window 3x3, padding 1x1",
            {"winograd": WinogradConv2d, "direct": Conv2d},
        ),
        (
            conv(side=5),
            (1, 8, 5, 5),
            "conv2d 1x8x5x5 to 8x5x5, window 3x3, padding 1x1",
            {"direct": Conv2d, "winograd": WinogradConv2d},
        ),
        (
            conv(window=1, side=1, pad=0),
            (1, 8, 1, 1),
            "conv2d 1x8x1x1 to 8x1x1, window 1x1",
            {"dense": Dense, "direct": Conv2d},
        ),
    ],
)
def test_a_choice_changes_the_kernel_and_not_the_numbers(
    value: onnx.ModelProto, shape: tuple[int, ...], layer: str, kernels: dict[str, type]
) -> None:
    x = picture(*shape)
    plain = executor(value, shape, Tuner())
    expected = plain.run(x)
    offered = plain.graph.tuner.layers[layer].offered
    assert offered == tuple(kernels), "the default comes first"
    for name, kernel in kernels.items():
        tuned = executor(value, shape, Tuner({layer: name}))
        (call,) = [n.kernel for n in tuned.graph.nodes if n.kernel is not None]
        assert isinstance(call.geometry, kernel)
        np.testing.assert_allclose(tuned.run(x), expected, rtol=1e-4, atol=1e-5)
    default = next(iter(kernels))
    (call,) = [n.kernel for n in plain.graph.nodes if n.kernel is not None]
    assert isinstance(call.geometry, kernels[default])


def test_every_variant_of_loops_computes_the_same() -> None:
    x = picture(1, 8, 12, 12)
    listed = executor(loops_model(), x.shape, Tuner(listing=True))
    expected = listed.run(x)
    seen: set[str] = set()
    for layer, found in listed.graph.tuner.layers.items():
        for variant in found.offered[1:]:
            tuned = executor(loops_model(), x.shape, Tuner({layer: variant}))
            assert tuned.graph.tuner.layers[layer].choice == variant
            before, after = (sources(e) for e in (listed, tuned))
            assert before != after, f"{variant} changes nothing in {layer}"
            np.testing.assert_allclose(tuned.run(x), expected, rtol=1e-5, atol=1e-6)
            seen.add(variant)
    assert seen >= {"plain", "vectors", "unrolled", "swapped", "inlined"}


def sources(value: Executor) -> list[str]:
    return [str(function) for function in value.functions.values()]


def test_a_layer_is_called_the_same_in_every_graph() -> None:
    tuner = Tuner(listing=True)
    executor(loops_model(), (1, 8, 12, 12), tuner)
    renamed = loops_model()
    for index, one in enumerate(renamed.graph.node):
        one.name = f"other{index}"
    again = Tuner(listing=True)
    executor(renamed, (1, 8, 12, 12), again)
    assert set(tuner.layers) == set(again.layers)
    wider = model([_POOL, _NORM], {}, (1, 8, 14, 14), output_shape=(1, 8, 14, 14))
    other = Tuner(listing=True)
    executor(wider, (1, 8, 14, 14), other)
    assert not set(tuner.layers) & set(other.layers)


def test_without_a_log_no_variant_is_made() -> None:
    def forbidden() -> Any:
        raise AssertionError("made for nothing")

    assert Tuner().loops("f", "tvm f", {"fused": lambda: 1, "plain": forbidden}) == 1
    assert (
        Tuner({"tvm f": "plain"}).loops("f", "tvm f", {"fused": lambda: 1, "plain": lambda: 2}) == 2
    )


def test_choices_that_cannot_be_used_are_named() -> None:
    layer = "conv2d 1x8x16x16 to 8x16x16, window 3x3, padding 1x1"
    wanted = {layer: "fourier", "conv2d of another model": "direct"}
    tuned = executor(conv(), (1, 8, 16, 16), Tuner(wanted))
    assert tuned.graph.tuner.as_json() == {
        "layers": {layer: {"choice": "winograd", "offered": ["winograd", "direct"]}},
        "unknown": [
            {"layer": layer, "choice": "fourier", "reason": "no such variant"},
            {"layer": "conv2d of another model", "choice": "direct", "reason": "no such layer"},
        ],
    }


def test_strides_and_the_like_are_in_a_layers_name() -> None:
    call = Conv2d(1, 4, 9, 9, 6, 5, 5, 3, 5, 2, 1, 1, 2, 1, 0, 2)
    assert tuning.conv_layer(call) == (
        "conv2d 1x4x9x9 to 6x5x5, window 3x5, stride 2x1, dilation 1x2, padding 1x0, groups 2"
    )


def test_choices_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    path.write_text('{"a": "b"}')
    assert tuning.load(path, listing=False).wanted == {"a": "b"}
    assert tuning.load(None, listing=True) == Tuner(listing=True)
    for wrong in ("", "[]", '{"a": 1}', "\udcff"):
        path.write_bytes(wrong.encode("utf-8", "surrogateescape"))
        with pytest.raises(tuning.InvalidChoicesError):
            tuning.load(path, listing=False)
    with pytest.raises(FileError):
        tuning.load(tmp_path / "absent.json", listing=False)


def test_the_report_tells_what_was_chosen_and_which_nodes_it_concerns(project: Path) -> None:
    def report(*more: object) -> Any:
        code, events, stderr = compile_in(project, "out", *more)
        assert code == 0, (events, stderr)
        return json.loads((project / "out/report.json").read_text())

    plain = report("--list-choices")
    layers = plain["tuning"]["layers"]
    assert layers, "the model has nothing to choose from"
    layer, found = next(iter(layers.items()))
    assert found["choice"] == found["offered"][0]
    assert any(layer in n["layers"] for n in plain["nodes"])
    other = found["offered"][1]
    (project / "choices.json").write_text(json.dumps({layer: other, "no layer": "x"}))
    before = (project / "out/graph.o").read_bytes()
    tuned = report("--choices", "choices.json")
    assert tuned["tuning"]["layers"][layer]["choice"] == other
    assert [unknown["layer"] for unknown in tuned["tuning"]["unknown"]] == ["no layer"]
    assert (project / "out/graph.o").read_bytes() != before
    (project / "choices.json").write_text("{")
    code, events, _ = compile_in(project, "out", "--choices", "choices.json")
    assert (code, events[-1]["code"]) == (1, "invalid_choices")


def test_the_words_of_the_variants_stay() -> None:
    # Logs name them.
    assert list(loops.variants(None, lambda: None)) == [
        "fused",
        "plain",
        "vectors",
        "wide",
        "unrolled",
        "swapped",
        "inlined",
    ]
