"""ONNX's own node cases (``onnx/backend/test/data/node`` of its wheel) as models to be compiled.

A case is a model of one operator, its inputs and the outputs that it has to give. Inputs stay
inputs: only parameters that say how an operator works (shapes, axes, amounts, counts), and of those
only integers of rank 1 at most, scalars, and the factors of a resize, become constants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from graphlet_compiler.errors import MissingFileError, UnsupportedDtypeError
from graphlet_compiler.graph import Array, bodies

# Formal inputs, as the operators' schemas call them, that are parameters.
_PARAMETERS = frozenset(
    {
        "K",
        "M",
        "axes",
        "axis",
        "block_shape",
        "constant_value",
        "delta",
        "depth",
        "dft_length",
        "ends",
        "frame_length",
        "frame_step",
        "image_shape",
        "k",
        "limit",
        "lower_edge_hertz",
        "max_output_boxes_per_class",
        "num_mel_bins",
        "output_shape",
        "pads",
        "ratio",
        "repeats",
        "roi",
        "sample_rate",
        "scales",
        "shape",
        "size",
        "sizes",
        "split",
        "start",
        "starts",
        "steps",
        "training_mode",
        "upper_edge_hertz",
    }
)
# Operators of which the formal input has another name.
_ALSO = {("ConstantOfShape", 0), ("Loop", 1)}
# Rank-1 floats that are parameters.
_FLOATS = frozenset(("scales", "roi"))

# The result depends on shapes alone, so that what goes in is no parameter.
_SHAPES = ("Shape", "Size")


@dataclass(frozen=True)
class Case:
    """A case with its data."""

    name: str
    # With the parameters as constants.
    model: onnx.ModelProto
    # The operator that it is about.
    operator: str
    inputs: dict[str, Array]
    outputs: list[Array]
    baked: tuple[str, ...]


def folder() -> Path:
    """Where the wheel has its node cases."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"


def names() -> list[str]:
    """Every case, in alphabetical order."""
    return sorted(path.name for path in folder().iterdir() if (path / "model.onnx").is_file())


def read_model(name: str) -> onnx.ModelProto:
    """The model of a case."""
    try:
        return onnx.load(folder() / name / "model.onnx")
    except FileNotFoundError as error:
        raise MissingFileError(f"no node case `{name}`") from error


def open_case(name: str, model: onnx.ModelProto) -> Case:
    """A case with its data; ``model`` is its own."""
    data = folder() / name / "test_data_set_0"
    declared = list(model.graph.input)
    inputs = {v.name: _tensor(data / f"input_{i}.pb", v) for i, v in enumerate(declared)}
    outputs = [_tensor(data / f"output_{i}.pb", v) for i, v in enumerate(model.graph.output)]
    baked = _bake(model, inputs)
    runtime = {name: array for name, array in inputs.items() if name not in baked}
    return Case(name, model, operator(name, model), runtime, outputs, tuple(baked))


def operator(name: str, model: onnx.ModelProto) -> str:
    """What a case is about: its only operator, or for a function's body what the name says."""
    if len(model.graph.node) == 1:
        return str(model.graph.node[0].op_type)
    base = name.split("_expanded")[0]
    if base != name and (folder() / base / "model.onnx").is_file():
        return operator(base, onnx.load(folder() / base / "model.onnx", load_external_data=False))
    # Whatever comes last is what a case of several nodes shows.
    return str(model.graph.node[-1].op_type)


def _tensor(path: Path, value: onnx.ValueInfoProto) -> Array:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "nothing").removesuffix("_type")
        raise UnsupportedDtypeError(f"`{value.name}` is no tensor but {what}", node=value.name)
    if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        raise UnsupportedDtypeError(f"`{value.name}` holds strings", node=value.name)
    proto = onnx.TensorProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise MissingFileError(f"cannot read `{path.parent.parent.name}/{path.name}`") from error
    return onnx.numpy_helper.to_array(proto)


def _bake(model: onnx.ModelProto, inputs: dict[str, Array]) -> list[str]:
    """Makes the parameters among the inputs constants; gives their names."""
    roles = _roles(model)
    baked = [name for name in inputs if _is_parameter(roles.get(name, set()), inputs[name])]
    kept = [value for value in model.graph.input if value.name not in baked]
    for name in baked:
        model.graph.initializer.append(onnx.numpy_helper.from_array(inputs[name], name))
    del model.graph.input[:]
    model.graph.input.extend(kept)
    # Before version 4 every constant had to be an input as well.
    model.ir_version = max(model.ir_version, 4)
    return baked


def _is_parameter(roles: set[str], array: Array) -> bool:
    if not roles or array.ndim > 1:
        return False
    return array.ndim == 0 or array.dtype.kind in "iub" or bool(roles & _FLOATS)


def _roles(model: onnx.ModelProto) -> dict[str, set[str]]:
    """As what parameter each tensor is read, itself or by what is computed of it."""
    versions = {opset.domain: opset.version for opset in model.opset_import}
    roles: dict[str, set[str]] = {}
    _gather_roles(model.graph, versions, roles)
    return roles


def _gather_roles(
    graph: onnx.GraphProto, versions: dict[str, int], roles: dict[str, set[str]]
) -> None:
    for node in reversed(graph.node):
        inner = bodies(node.attribute)
        for body in inner:
            # A branch gives what the node gives.
            for value, name in zip(body.output, node.output, strict=False):
                roles.setdefault(value.name, set()).update(roles.get(name, set()))
            _gather_roles(body, versions, roles)
        if node.op_type in _SHAPES:
            passed: set[str] = set()
        else:
            passed = set().union(*(roles.get(name, set()) for name in node.output))
        formals = _formals(node, versions)
        for index, (name, formal) in enumerate(zip(node.input, formals, strict=False)):
            found = set(passed)
            if formal in _PARAMETERS or (node.op_type, index) in _ALSO:
                found.add(formal)
            if name and found:
                roles.setdefault(name, set()).update(found)


def _formals(node: onnx.NodeProto, versions: dict[str, int]) -> Iterable[str]:
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = versions.get(domain, 1)
    if not onnx.defs.has(node.op_type, version, domain):
        return [""] * len(node.input)
    names = [p.name for p in onnx.defs.get_schema(node.op_type, version, domain).inputs]
    return names + names[-1:] * (len(node.input) - len(names))
