"""A node that is computed by itself, with its values, and what the loops for that need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as ir

from graphlet_compiler import tir
from graphlet_compiler.graph import Array, Graph, Node, Shape


class Call:
    """A node that is to be computed, with the values of its inputs."""

    def __init__(self, graph: Graph, node: Node, builder: Any, values: Sequence[Any]) -> None:
        self.graph, self.node, self.builder, self.values = graph, node, builder, list(values)

    def shape(self, index: int = 0) -> Shape:
        """Extents of an input."""
        return self.graph.shapes[self.node.inputs[index]]

    def result(self, index: int = 0) -> Shape:
        """Extents of an output."""
        return self.graph.shapes[self.node.outputs[index]]

    def dtype(self, index: int = 0) -> str:
        """Element type of an output."""
        return str(self.graph.dtypes[self.node.outputs[index]])

    def axis(self, default: int = 0, rank: int | None = None) -> int:
        """The attribute `axis`, counted from the front."""
        return int(self.node.attr("axis", default)) % (rank or len(self.shape()))

    def constant(self, index: int) -> Array | None:
        """An input's value, if it is known."""
        name = self.node.input(index)
        return None if name is None else self.graph.constants.get(name)

    def expression(self, function: Callable[..., Any], *values: Any) -> Any:
        """A tensor expression of these values; of all inputs if none are given."""
        name = self.node.op.lower()
        return self.builder.call_te(function, *(values or self.values), primfunc_name_hint=name)

    def loops(self, values: Sequence[Any], body: Callable[..., list[Any]]) -> Any:
        """A function that writes all outputs; ``body`` gets flat views of inputs and outputs."""
        outputs = [name for name in self.node.outputs if name]
        kinds = [(self.graph.shapes[n], str(self.graph.dtypes[n])) for n in outputs]
        sources = [(_extents(value), str(value.ty.dtype)) for value in values]
        function = tir.loops_function(sources, kinds, body)
        name = f"graphlet_{self.node.op.lower()}"
        variable = self.builder.add_func(function.with_attr("global_symbol", name), name)
        types = [relax.TensorType(list(shape), dtype) for shape, dtype in kinds]
        return relax.call_tir(variable, list(values), types if len(types) > 1 else types[0])


def _extents(value: Any) -> Shape:
    return tuple(int(extent) for extent in value.ty.shape)


def bounded(index: Any, extent: int) -> Any:
    """An index, negative ones counted from the end, within ``extent``."""
    end = tirx.const(extent, index.ty.dtype)
    zero = tirx.const(0, index.ty.dtype)
    counted = tirx.if_then_else(index < zero, index + end, index)
    return tirx.max(tirx.min(counted, end - tirx.const(1, index.ty.dtype)), zero)


def statement(write: Callable[[], None]) -> Any:
    """What ``write`` writes with the IR builder: one loop, or one condition."""
    with IRBuilder() as builder:
        write()
        return builder.get()


def copied(source: Any, target: Any, count: int, dtype: str | None = None) -> Any:
    """A loop that copies values, in another type if one is given."""

    def write() -> None:
        with ir.serial(0, count) as step:
            target[step] = source[step] if dtype is None else source[step].astype(dtype)

    return statement(write)


def unflatten(step: Any, shape: Shape) -> list[Any]:
    """The index along each axis of the value at a flat index."""
    at, rest = [], step
    for extent in reversed(shape):
        at.append(tirx.floormod(rest, tirx.const(extent, rest.ty.dtype)))
        rest = tirx.floordiv(rest, tirx.const(extent, rest.ty.dtype))
    return at[::-1]


def flatten(at: Sequence[Any], shape: Shape) -> Any:
    """The flat index of a value."""
    total: Any = 0
    for index, extent in zip(at, shape, strict=True):
        total = total * extent + index
    return total
