"""The part of ``model.toml`` that the compiler carries out, read from the JSON of ``model-spec``.

Rust parses and validates the file; what reaches this module is checked again only where the
compiler depends on it. Every mistake is reported together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from graphlet_compiler.errors import (
    Detail,
    InvalidSpecError,
    MissingFileError,
    UnsupportedOptionError,
    from_os_error,
)


class Layout(Enum):
    """Order of the extents of the input tensor."""

    NCHW = "NCHW"
    NHWC = "NHWC"

    @property
    def channel_axis(self) -> int:
        """Which extent counts channels."""
        return 1 if self is Layout.NCHW else 3


class Simd(Enum):
    """Vector instructions that the module may use."""

    NONE = "none"
    SIMD128 = "simd128"
    RELAXED = "relaxed"


@dataclass(frozen=True)
class InputSpec:
    """The tensor the graph reads; an empty name means the only input."""

    name: str
    shape: tuple[int, ...]
    layout: Layout


@dataclass(frozen=True)
class OutputSpec:
    """The tensor the graph writes; an empty name means the only output."""

    name: str


@dataclass(frozen=True)
class ModelSpec:
    """What the compiler needs to know about a model."""

    name: str
    version: str
    input: InputSpec
    channels: int | None
    output: OutputSpec
    simd: Simd


E = TypeVar("E", bound=Enum)

# What the channel order says about the number of channels.
_CHANNELS = {"RGB": 3, "BGR": 3, "grey": 1, "gray": 1}


def load(path: Path) -> ModelSpec:
    """Reads a specification file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(f"no specification at `{path.name}`") from error
    except OSError as error:
        raise from_os_error(error, f"cannot read `{path.name}`") from error
    except UnicodeDecodeError as error:
        raise InvalidSpecError("the specification is not UTF-8") from error
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidSpecError(f"the specification is not JSON: {error}") from error
    return parse(value)


def parse(value: Any) -> ModelSpec:
    """Checks a specification that was read from JSON."""
    reader = _Reader()
    root = reader.table(value, "the specification")
    model = reader.table(root.get("model", {}), "model")
    source = reader.table(root.get("input", {}), "input")
    preprocess = reader.table(root.get("preprocess", {}), "preprocess")
    output = reader.table(root.get("output", {}), "output")
    compile_ = reader.table(root.get("compile", {}), "compile")

    shape = reader.shape(source.get("shape"))
    dtype = reader.text(source, "input.dtype", "float32")
    layout = reader.word(source, "input.layout", Layout, Layout.NCHW)
    simd = reader.word(compile_, "compile.simd", Simd, Simd.RELAXED)
    order = reader.text(preprocess, "preprocess.channels", "RGB")
    if order not in _CHANNELS:
        reader.wrong.append(Detail(f"preprocess.channels: `{order}` is not RGB, BGR or grey"))
    spec = ModelSpec(
        name=reader.text(model, "model.name", ""),
        version=reader.text(model, "model.version", ""),
        input=InputSpec(reader.text(source, "input.name", ""), shape, layout),
        channels=_CHANNELS.get(order),
        output=OutputSpec(reader.text(output, "output.name", "")),
        simd=simd,
    )
    if reader.wrong:
        raise InvalidSpecError.of(reader.wrong)

    refused = []
    if dtype != "float32":
        refused.append(Detail(f"input.dtype: `{dtype}` is not carried out yet, only `float32`"))
    if (threads := compile_.get("threads", 1)) != 1:
        refused.append(Detail(f"compile.threads: {threads} is not carried out yet, only 1"))
    if (quantisation := compile_.get("quantisation", "none")) != "none":
        refused.append(
            Detail(f"compile.quantisation: `{quantisation}` is not carried out yet, only `none`")
        )
    if refused:
        raise UnsupportedOptionError.of(refused)
    return spec


class _Reader:
    """Reads fields and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.wrong: list[Detail] = []

    def table(self, value: Any, name: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self.wrong.append(Detail(f"{name}: expected an object"))
        return {}

    def text(self, table: dict[str, Any], name: str, default: str) -> str:
        value = table.get(name.rpartition(".")[2], default)
        if isinstance(value, str):
            return value
        self.wrong.append(Detail(f"{name}: expected a string"))
        return default

    def word(self, table: dict[str, Any], name: str, words: type[E], default: E) -> E:
        value = self.text(table, name, str(default.value))
        try:
            return words(value)
        except ValueError:
            known = ", ".join(f"`{word.value}`" for word in words)
            self.wrong.append(Detail(f"{name}: `{value}` is not one of {known}"))
            return default

    def shape(self, value: Any) -> tuple[int, ...]:
        if (
            isinstance(value, list)
            and len(value) == 4
            and all(type(extent) is int and 0 < extent < 2**31 for extent in value)
        ):
            return tuple(value)
        self.wrong.append(
            Detail(
                "input.shape: expected four positive extents",
                hint="an image tensor is [batch, channels, height, width] or, with layout NHWC, "
                "[batch, height, width, channels]",
            )
        )
        return (1, 1, 1, 1)
