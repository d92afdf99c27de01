"""ONNX's own test data, operator by operator: what is not refused has to be right.

Only the first input stays an input; the others become constants, as in a trained network.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from executor import Executor
from models import Array
from onnx import TensorProto, numpy_helper

from graphlet_compiler import errors, onnx_file
from graphlet_compiler.spec import InputSpec, Layout, ModelSpec, OutputSpec, Simd

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"

# Operators that image networks are made of.
OPERATORS = re.compile(
    r"test_(averagepool_2d|basic_conv|batchnorm|clip|concat|conv_|convtranspose|depthtospace"
    r"|dropout|elu|flatten|gelu|gemm|globalaveragepool|globalmaxpool|group_norm|hardsigmoid"
    r"|hardswish|instancenorm|leakyrelu|lrn|matmul|maxpool_2d|mish|mul|pow|prelu|reduce_mean"
    r"|relu|reshape|resize|sigmoid|slice|softmax_|softplus|spacetodepth|split_|squeeze|swish"
    r"|tanh|tile|transpose|unsqueeze)"
)

# Refused with the node's name; an entry that starts to pass has to go.
REFUSED = {
    "test_batchnorm_epsilon_training_mode",
    "test_batchnorm_example_training_mode",
    "test_convtranspose_output_shape",
    "test_pow_types_float32_int32",
    "test_pow_types_float32_int64",
    "test_pow_types_float32_uint32",
    "test_pow_types_float32_uint64",
    "test_reshape_allowzero_reordered",
    "test_resize_downsample_scales_cubic",
    "test_resize_downsample_scales_cubic_A_n0p5_exclude_outside",
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_cubic_antialias",
    "test_resize_downsample_scales_linear",
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_linear_antialias",
    "test_resize_downsample_scales_linear_half_pixel_symmetric",
    "test_resize_downsample_scales_nearest",
    "test_resize_downsample_sizes_cubic_antialias",
    "test_resize_downsample_sizes_linear_antialias",
    "test_resize_downsample_sizes_nearest_not_larger",
    "test_resize_downsample_sizes_nearest_not_smaller",
    "test_resize_tf_crop_and_resize",
    "test_resize_tf_crop_and_resize_axes_2_3",
    "test_resize_tf_crop_and_resize_axes_3_2",
    "test_resize_tf_crop_and_resize_extrapolation_value",
    "test_resize_upsample_scales_linear_half_pixel_symmetric",
    "test_resize_upsample_sizes_nearest_not_larger",
    "test_resize_upsample_sizes_nearest_not_smaller",
}


def names() -> list[str]:
    found = []
    for folder in sorted(DATA.iterdir()):
        name = folder.name
        if OPERATORS.match(name) and "expanded" not in name and usable(folder):
            found.append(name)
    return found


def usable(folder: Path) -> bool:
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    kinds = [v.type.tensor_type.elem_type for v in (*graph.input[:1], *graph.output[:1])]
    return kinds == [TensorProto.FLOAT, TensorProto.FLOAT]


def tensor(path: Path) -> Array:
    proto = TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


@pytest.mark.parametrize("name", names())
def test_an_operator_is_right_or_refused(name: str) -> None:
    model = onnx.load(DATA / name / "model.onnx")
    if onnx_file.opset_of(model) < onnx_file.OLDEST_OPSET:
        pytest.skip("an operator set that we refuse")
    data = DATA / name / "test_data_set_0"
    first, *others = [tensor(data / f"input_{i}.pb") for i in range(len(model.graph.input))]
    for value, constant in zip(list(model.graph.input)[1:], others, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(constant, value.name))
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, 8)
    spec = ModelSpec(
        name,
        "1",
        InputSpec("", first.shape, Layout.NCHW),
        None,
        OutputSpec(model.graph.output[0].name),
        Simd.RELAXED,
    )
    try:
        result = Executor(model, spec).run(first)
    except errors.CompileError as error:
        assert name in REFUSED, error.message
        assert error.code != "internal" and error.node
        return
    assert name not in REFUSED, "passes now: take it off the list"
    np.testing.assert_allclose(result, tensor(data / "output_0.pb"), rtol=1e-3, atol=1e-5)
