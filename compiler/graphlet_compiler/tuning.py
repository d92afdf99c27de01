"""Which of several ways a layer is computed: the default, or what a tuning log says.

A layer here is a shape: all nodes of one shape are computed in one way. ``graphlet tune`` times
the ways and writes the log (docs/tuning.md); the caller hands the choices that are good for this
build, by the layer's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from graphlet_compiler.errors import CompileError, from_os_error
from graphlet_compiler.kernels import Conv2d, Dense, Geometry, WinogradConv2d

T = TypeVar("T")


class InvalidChoicesError(CompileError):
    """The choices are not an object of texts."""

    code = "invalid_choices"


@dataclass(frozen=True)
class Layer:
    """What was chosen for a layer, and what there is to choose from, the default first."""

    choice: str
    offered: tuple[str, ...]


@dataclass
class Tuner:
    """Answers each layer's question, and remembers what was asked."""

    wanted: Mapping[str, str] = field(default_factory=dict)
    # Whether to find out what there is to choose from where that takes work.
    listing: bool = False
    layers: dict[str, Layer] = field(default_factory=dict)
    # The layers of each node of the graph, and of each function of TVM's own.
    of_node: dict[str, str] = field(default_factory=dict)
    of_function: dict[str, str] = field(default_factory=dict)

    def pick(self, layer: str, offered: Mapping[str, T]) -> T:
        """What the log wants of what is offered, else the first."""
        names = tuple(offered)
        wanted = self.wanted.get(layer, names[0])
        choice = wanted if wanted in offered else names[0]
        self.layers[layer] = Layer(choice, names)
        return offered[choice]

    def conv(self, node: str, plain: Conv2d, default: str, *, dense: bool) -> Geometry:
        """The kernel of a convolution; ``dense`` says that a dense layer would do."""
        kernels = conv_kernels(plain, dense=dense)
        if len(kernels) == 1:
            return kernels[default]
        layer = conv_layer(plain)
        self.of_node[node] = layer
        return self.pick(layer, {default: kernels[default]} | kernels)

    def loops(self, function: str, layer: str, variants: Mapping[str, Callable[[], T | None]]) -> T:
        """The loops of a function of TVM's own; a variant that changes nothing gives ``None``.

        The first variant always gives some.
        """
        names = list(variants)
        made: dict[str, T] = {}
        for name in names:
            if self.listing or name in (names[0], self.wanted.get(layer)):
                result = variants[name]()
                if result is not None:
                    made[name] = result
        if self.listing and len(made) == 1:
            return made[names[0]]
        self.of_function[function] = layer
        return self.pick(layer, made)

    def as_json(self) -> dict[str, Any]:
        """The report's part on tuning; choices for layers that were not asked for are listed."""
        unknown = []
        for layer, choice in sorted(self.wanted.items()):
            if layer not in self.layers:
                unknown.append({"layer": layer, "choice": choice, "reason": "no such layer"})
            elif choice not in self.layers[layer].offered:
                unknown.append({"layer": layer, "choice": choice, "reason": "no such variant"})
        return {
            "layers": {
                name: {"choice": layer.choice, "offered": list(layer.offered)}
                for name, layer in sorted(self.layers.items())
                if len(layer.offered) > 1
            },
            "unknown": unknown,
        }


def load(path: Path | None, *, listing: bool) -> Tuner:
    """Reads choices: a JSON object of layers and what they are to take."""
    if path is None:
        return Tuner(listing=listing)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidChoicesError(f"the choices are not JSON: {error}") from error
    except OSError as error:
        raise from_os_error(error, f"cannot read `{path.name}`") from error
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise InvalidChoicesError("the choices are not an object of texts")
    return Tuner(value, listing=listing)


def conv_layer(conv: Conv2d) -> str:
    """The name of a convolution's shape; strides and the like only where they are not 1."""
    source, target = (conv.n, conv.ic, conv.ih, conv.iw), (conv.oc, conv.oh, conv.ow)
    name = f"conv2d {_by(*source)} to {_by(*target)}, window {_by(conv.kh, conv.kw)}"
    for word, extents, usual in (
        ("stride", (conv.sh, conv.sw), 1),
        ("dilation", (conv.dh, conv.dw), 1),
        ("padding", (conv.pt, conv.pl), 0),
        ("groups", (conv.groups,), 1),
    ):
        if any(extent != usual for extent in extents):
            name += f", {word} {_by(*extents)}"
    return name


def _by(*extents: int) -> str:
    return "x".join(str(extent) for extent in extents)


def conv_kernels(conv: Conv2d, *, dense: bool) -> dict[str, Geometry]:
    """All kernels that compute a convolution, by the word that a log names them with."""
    found: dict[str, Geometry] = {"direct": conv}
    window = (conv.kh, conv.kw, conv.sh, conv.sw, conv.dh, conv.dw, conv.groups)
    if window == (3, 3, 1, 1, 1, 1, 1):
        found["winograd"] = WinogradConv2d(
            conv.n, conv.ic, conv.ih, conv.iw, conv.oc, conv.oh, conv.ow, conv.pt, conv.pl
        )
    if dense:
        found["dense"] = Dense(conv.n, conv.ic, conv.oc)
    return found
