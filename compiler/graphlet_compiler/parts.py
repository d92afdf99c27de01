"""Writes operators in the place of another one, in the words of the file's own operator set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from graphlet_compiler.graph import Array, Graph, Names, Node, Shape

# Since these operator sets axes are an input and no attribute.
_AXES_AS_INPUT = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
_AXES_AS_INPUT_ELSE = 18


class Parts:
    """The operators that take a node's place, in order."""

    def __init__(self, graph: Graph, node: Node, names: Names) -> None:
        self.graph, self.node, self.names = graph, node, names
        self.nodes: list[Node] = []

    def shape(self, index: int = 0) -> Shape:
        """Extents of an input of the node."""
        return self.graph.shapes[self.node.inputs[index]]

    def dtype(self, index: int = 0) -> np.dtype[Any]:
        """Element type of an input of the node."""
        return self.graph.dtypes[self.node.inputs[index]]

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operator and gives its result."""
        return self.several(op, 1, *inputs, **attributes)[0]

    def several(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds an operator with several results."""
        targets = [self.names.fresh(f"{self.node.name}.{op.lower()}") for _ in range(count)]
        made = Node(op, self.node.name, list(inputs), targets, sources=self.node.sources)
        for name, value in attributes.items():
            made.set_attr(name, value)
        self.nodes.append(made)
        return targets

    def constant(self, value: Any, dtype: Any) -> str:
        """A constant."""
        array = np.asarray(value).astype(dtype)
        return self.names.constant(f"{self.node.name}.constant", array)

    def integers(self, *values: int) -> str:
        """A constant list of integers."""
        return self.constant(np.asarray(values, np.int64), np.int64)

    def cast(self, value: str, dtype: Any) -> str:
        """The values in another type."""
        return self("Cast", value, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, value: str, *extents: int) -> str:
        """The values in another shape; 0 keeps an extent, -1 takes what is left."""
        return self("Reshape", value, self.integers(*extents))

    def axes(self, op: str, value: str, axes: Sequence[int], **attributes: Any) -> str:
        """A reduction, ``Squeeze`` or ``Unsqueeze`` over these axes."""
        if self.graph.opset >= _AXES_AS_INPUT.get(op, _AXES_AS_INPUT_ELSE):
            return self(op, value, self.integers(*axes), **attributes)
        return self(op, value, axes=list(axes), **attributes)

    def slice(self, value: str, axis: int, begin: int, end: int) -> str:
        """A part along an axis."""
        if self.graph.opset < 10:
            return self("Slice", value, starts=[begin], ends=[end], axes=[axis])
        return self("Slice", value, self.integers(begin), self.integers(end), self.integers(axis))

    def results(self, *values: str | None) -> list[Node]:
        """The operators, with these values as the node's outputs."""
        for value, target in zip(values, self.node.outputs, strict=False):
            if target and value is not None:
                self.nodes.append(
                    Node("Identity", self.node.name, [value], [target], sources=self.node.sources)
                )
        return self.nodes

    def constants_of(self, index: int) -> Array | None:
        """Value of an input of the node, if it is known."""
        name = self.node.input(index)
        return None if name is None else self.graph.constants.get(name)
