"""ONNX's own test data for the operators that image networks are made of.

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
def test_an_operator_is_right(name: str) -> None:
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
    except errors.NoInputError:
        return  # It gives back what it got, or nothing at all.
    np.testing.assert_allclose(result, tensor(data / "output_0.pb"), rtol=1e-3, atol=1e-5)
