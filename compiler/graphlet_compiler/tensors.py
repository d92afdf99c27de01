"""Models that read and write tensors of any number and type, and know nothing of pictures.

The specification is JSON: ``{"name": ..., "version": ..., "simd": ..., "shapes": {input: [...]}}``,
all of it optional. ``shapes`` binds what the file leaves open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from graphlet_compiler import prepare
from graphlet_compiler.errors import (
    CorruptOnnxError,
    Detail,
    DynamicDimensionError,
    InvalidSpecError,
    MissingFileError,
    SpecMismatchError,
    UnsupportedDtypeError,
    from_os_error,
)
from graphlet_compiler.graph import Graph, Shape
from graphlet_compiler.onnx_facts import Extent, extents_of
from graphlet_compiler.spec import Simd


@dataclass(frozen=True)
class TensorSpec:
    """What the compiler has to be told about a model beyond its file."""

    name: str = ""
    version: str = ""
    simd: Simd = Simd.RELAXED
    shapes: Mapping[str, Shape] = field(default_factory=dict)


def load(path: Path) -> TensorSpec:
    """Reads a specification file."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise MissingFileError(f"no specification at `{path.name}`") from error
    except OSError as error:
        raise from_os_error(error, f"cannot read `{path.name}`") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidSpecError(f"the specification is not JSON: {error}") from error


def parse(value: Any) -> TensorSpec:
    """Checks a specification that was read from JSON."""
    if not isinstance(value, dict):
        raise InvalidSpecError("the specification: expected an object")
    wrong: list[Detail] = []
    shapes = value.get("shapes", {})
    if not isinstance(shapes, dict) or not all(_is_shape(shape) for shape in shapes.values()):
        wrong.append(Detail("shapes: expected extents by input name"))
        shapes = {}
    name, version = value.get("name", ""), value.get("version", "")
    if not isinstance(name, str) or not isinstance(version, str):
        wrong.append(Detail("name and version: expected strings"))
    simd = Simd.RELAXED
    try:
        simd = Simd(value.get("simd", simd.value))
    except ValueError:
        wrong.append(Detail(f"simd: `{value.get('simd')}` is not one of none, simd128, relaxed"))
    if wrong:
        raise InvalidSpecError.of(wrong)
    return TensorSpec(name, version, simd, {key: tuple(shape) for key, shape in shapes.items()})


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(e) is int and 0 <= e < 2**31 for e in value)


def open_graph(model: onnx.ModelProto, spec: TensorSpec) -> Graph:
    """Takes every input and output as the file declares it, and binds open extents."""
    graph = prepare.read_graph(model)
    graph.image = False
    declared = [i for i in model.graph.input if i.name not in graph.constants]
    graph.inputs = [value.name for value in declared]
    graph.outputs = [value.name for value in model.graph.output]
    graph.declared_outputs = list(graph.outputs)
    if not graph.outputs:
        raise CorruptOnnxError("the graph has no output")
    graph.prune()
    for value in declared:
        kind = value.type.tensor_type.elem_type
        if kind == onnx.TensorProto.UNDEFINED:
            what = value.type.WhichOneof("value") or "nothing"
            raise UnsupportedDtypeError(
                f"the input `{value.name}` is no tensor but {what.removesuffix('_type')}",
                node=value.name,
            )
        graph.dtypes[value.name] = onnx.helper.tensor_dtype_to_np_dtype(kind)
    graph.shapes.update(_bind(declared, spec.shapes))
    return graph


def _bind(
    declared: list[onnx.ValueInfoProto], shapes: Mapping[str, Shape]
) -> dict[str, tuple[int, ...]]:
    """The shape of every input: what the file says, else what the specification says.

    An extent that has a name is the same wherever the name stands.
    """
    names = ", ".join(f"`{value.name}`" for value in declared)
    known = {value.name: extents_of(value) for value in declared}
    wrong = [
        Detail(f"shapes: the graph has no input `{name}`", hint=f"its inputs: {names}")
        for name in shapes
        if name not in known
    ]
    symbols: dict[str, int] = {}
    for name, shape in shapes.items():
        extents = known.get(name)
        if extents is None:
            continue
        if len(extents) != len(shape) or any(
            isinstance(e, int) and e != s for e, s in zip(extents, shape, strict=False)
        ):
            wrong.append(
                Detail(f"shapes: `{name}` is {_text(extents)} in the file, not {list(shape)}")
            )
            continue
        for extent, size in zip(extents, shape, strict=True):
            if isinstance(extent, str) and extent and symbols.setdefault(extent, size) != size:
                wrong.append(
                    Detail(f"shapes: `{extent}` is {symbols[extent]} and, in `{name}`, {size}")
                )
    if wrong:
        raise SpecMismatchError.of(wrong)
    bound, open_ = {}, []
    for name, extents in known.items():
        if name in shapes:
            bound[name] = tuple(shapes[name])
            continue
        found = [symbols.get(e) if isinstance(e, str) else e for e in extents or []]
        if extents is None or any(extent is None for extent in found):
            open_.append(
                Detail(
                    f"the shape of the input `{name}` is open: {_text(extents)}",
                    name,
                    f"give it with --shape, such as {name}={_example(extents)}",
                )
            )
            continue
        bound[name] = tuple(extent for extent in found if extent is not None)
    if open_:
        raise DynamicDimensionError.of(open_)
    return bound


def _text(extents: list[Extent] | None) -> str:
    if extents is None:
        return "of unknown rank"
    return "[" + ", ".join(str(extent) or "?" for extent in extents) + "]"


def _example(extents: list[Extent] | None) -> str:
    sizes = [extent if isinstance(extent, int) else 1 for extent in extents or [1]]
    return ",".join(str(size) for size in sizes)
