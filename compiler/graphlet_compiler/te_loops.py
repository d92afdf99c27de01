"""Operators whose results depend on an order, as plain loops.

Indices that point outside of a tensor, which ONNX forbids, write its rim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from graphlet_compiler.graph import Node
from graphlet_compiler.te_call import Call, bounded, copied, flatten, statement, unflatten


def scatter_elements(call: Call) -> Any:
    """``ScatterElements``."""
    shape, indices = call.shape(0), call.shape(1)
    axis = call.axis()
    join = _joins(call.node)

    def body(inputs: Any, outputs: Any) -> list[Any]:
        data, places, updates = inputs

        def write() -> None:
            with ir.serial(0, math.prod(indices)) as step:
                at = unflatten(step, indices)
                index = bounded(places[step], shape[axis])
                at[axis] = index
                target = flatten(at, shape)
                outputs[0][target] = join(outputs[0][target], updates[step])

        return [copied(data, outputs[0], math.prod(shape)), statement(write)]

    return call.loops(call.values, body)


def scatter_nd(call: Call) -> Any:
    """``ScatterND``."""
    shape, indices = call.shape(0), call.shape(1)
    depth = indices[-1]
    run = math.prod(shape[depth:])
    join = _joins(call.node)

    def body(inputs: Any, outputs: Any) -> list[Any]:
        data, places, updates = inputs

        def write() -> None:
            with ir.serial(0, math.prod(indices[:-1])) as step, ir.serial(0, run) as inner:
                at = [bounded(places[step * depth + n], shape[n]) for n in range(depth)]
                target = flatten(at, shape[:depth]) * run + inner
                outputs[0][target] = join(outputs[0][target], updates[step * run + inner])

        return [copied(data, outputs[0], math.prod(shape)), statement(write)]

    return call.loops(call.values, body)


def _joins(node: Node) -> Callable[[Any, Any], Any]:
    """How an update meets what is there."""
    joins: dict[str, Callable[[Any, Any], Any]] = {
        "none": lambda old, new: new,
        "add": lambda old, new: old + new,
        "mul": lambda old, new: old * new,
        "max": tirx.max,
        "min": tirx.min,
    }
    return joins[node.attr("reduction", "none")]


def scan(call: Call) -> Any:
    """``CumSum`` and ``CumProd``."""
    given = call.constant(1)
    if given is None:
        raise NotImplementedError("an axis that is not constant")
    shape = call.shape()
    axis = int(given.item()) % len(shape)
    extent, inner = shape[axis], math.prod(shape[axis + 1 :])
    backwards, exclusive = call.node.attr("reverse", 0), call.node.attr("exclusive", 0)
    product = call.node.op == "CumProd"
    dtype = call.dtype()

    def body(inputs: Any, outputs: Any) -> list[Any]:
        (data,), (result,) = inputs, outputs

        def write() -> None:
            with (
                ir.serial(0, math.prod(shape[:axis])) as outer,
                ir.serial(0, inner) as column,
                ir.serial(0, extent) as step,
            ):
                row = extent - 1 - step if backwards else step
                before = row + 1 if backwards else row - 1
                here = (outer * extent + row) * inner + column
                last = (outer * extent + before) * inner + column
                with ir.If(step == 0):
                    with ir.Then():
                        first = tirx.const(1 if product else 0, dtype)
                        result[here] = first if exclusive else data[here]
                    with ir.Else():
                        new = data[last] if exclusive else data[here]
                        result[here] = result[last] * new if product else result[last] + new

        return [statement(write)]

    return call.loops(call.values[:1], body)


def top_k(call: Call) -> Any:
    """Selection: the next best value each time. Of equal ones the first comes first."""
    shape, result = call.shape(), call.result()
    axis = call.axis(-1)
    extent, count, inner = shape[axis], result[axis], math.prod(shape[axis + 1 :])
    largest = call.node.attr("largest", 1)
    names = [name for name in call.node.outputs if name]
    if len(names) != 2:
        raise NotImplementedError("one output without the other")

    def body(inputs: Any, outputs: Any) -> list[Any]:
        (data,), (values, places) = inputs, outputs

        def write() -> None:
            with (
                ir.serial(0, math.prod(shape[:axis])) as outer,
                ir.serial(0, inner) as column,
                ir.serial(0, count) as rank,
            ):
                here = (outer * count + rank) * inner + column
                last = (outer * count + tirx.max(rank - 1, 0)) * inner + column
                places[here] = tirx.const(-1, "int64")
                with ir.serial(0, extent) as step:
                    at = (outer * extent + step) * inner + column
                    value, index = data[at], step.astype("int64")
                    # Behind what was taken before, in the order that is wanted.
                    before = (values[last] > value) if largest else (values[last] < value)
                    same = tirx.all(values[last] == value, places[last] < index)
                    open_ = tirx.any(rank == 0, before, same)
                    better = (value > values[here]) if largest else (value < values[here])
                    none = places[here] < tirx.const(0, "int64")
                    with ir.If(tirx.all(open_, tirx.any(none, better))), ir.Then():
                        values[here] = value
                        places[here] = index

        return [statement(write)]

    return call.loops(call.values[:1], body)


def max_unpool(call: Call) -> Any:
    """``MaxUnpool``."""
    shape, result = call.shape(), call.result()
    node, rank = call.node, len(shape) - 2
    kernel = node.attr("kernel_shape")
    strides = node.attr("strides", (1,) * rank)
    pads = node.attr("pads", (0,) * 2 * rank)
    # What the indices count in, which `output_shape` may be larger than.
    inner = [
        (shape[d + 2] - 1) * strides[d] - pads[d] - pads[d + rank] + kernel[d] for d in range(rank)
    ]
    counted = (*shape[:2], *inner)
    dtype = call.dtype()

    def body(inputs: Any, outputs: Any) -> list[Any]:
        data, places = inputs

        def clear() -> None:
            with ir.serial(0, math.prod(result)) as step:
                outputs[0][step] = tirx.const(0, dtype)

        def write() -> None:
            with ir.serial(0, math.prod(shape)) as step:
                at = unflatten(bounded(places[step], math.prod(counted)), counted)
                inside = [bounded(i, extent) for i, extent in zip(at, result, strict=True)]
                outputs[0][flatten(inside, result)] = data[step]

        return [statement(clear), statement(write)]

    return call.loops(call.values[:2], body)


def max_pool(call: Call) -> Any:
    """A pool that tells where each maximum was."""
    node, shape, result = call.node, call.shape(), call.result()
    rank = len(shape) - 2
    kernel = node.attr("kernel_shape")
    strides, dilations = node.attr("strides", (1,) * rank), node.attr("dilations", (1,) * rank)
    if node.attr("auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
        raise NotImplementedError("indices with automatic padding")
    pads = node.attr("pads", (0,) * 2 * rank)
    columns = node.attr("storage_order", 0)

    def body(inputs: Any, outputs: Any) -> list[Any]:
        (data,), (values, places) = inputs, outputs

        def write() -> None:
            with ir.serial(0, math.prod(result)) as here:
                at = unflatten(here, result)
                places[here] = tirx.const(-1, "int64")
                with ir.serial(0, math.prod(kernel)) as tap:
                    taps = unflatten(tap, tuple(kernel))
                    spots = [
                        at[d + 2] * strides[d] - pads[d] + taps[d] * dilations[d]
                        for d in range(rank)
                    ]
                    inside = [tirx.all(s >= 0, s < shape[d + 2]) for d, s in enumerate(spots)]
                    clamped = [
                        tirx.max(tirx.min(s, shape[d + 2] - 1), 0) for d, s in enumerate(spots)
                    ]
                    source = flatten([*at[:2], *clamped], shape)
                    better = tirx.any(
                        places[here] < tirx.const(0, "int64"), data[source] > values[here]
                    )
                    with ir.If(tirx.all(*inside, better)), ir.Then():
                        values[here] = data[source]
                        order = range(rank)
                        number = at[0] * shape[1] + at[1]
                        offset: Any = tirx.const(0, "int32")
                        for d in reversed(order) if columns else order:
                            offset = offset * shape[d + 2] + clamped[d]
                        number = number * math.prod(shape[2:]) + offset
                        places[here] = number.astype("int64")

        return [statement(write)]

    return call.loops(call.values[:1], body)


def determinant(call: Call) -> Any:
    """Gauss's elimination with the largest pivots, on a copy on the function's stack."""
    shape = call.shape()
    side, batch = shape[-1], math.prod(shape[:-2])
    dtype = call.dtype()
    if side > 64:
        raise NotImplementedError(f"a matrix of {side} rows")

    def body(inputs: Any, outputs: Any) -> list[Any]:
        (data,), (result,) = inputs, outputs

        def write() -> None:
            with ir.serial(0, batch) as matrix:
                work = ir.buffer_proxy(ir.alloc_buffer([side * side], dtype, scope="local"))
                kept = ir.buffer_proxy(ir.alloc_buffer([1], dtype, scope="local"))
                pivot = ir.buffer_proxy(ir.alloc_buffer([1], "int32", scope="local"))
                with ir.serial(0, side * side) as step:
                    work[step] = data[matrix * side * side + step]
                result[matrix] = tirx.const(1, dtype)
                with ir.serial(0, side) as column:
                    pivot[0] = column
                    with ir.serial(0, side) as row:
                        larger = tirx.abs(work[row * side + column]) > tirx.abs(
                            work[pivot[0] * side + column]
                        )
                        with ir.If(tirx.all(row > column, larger)), ir.Then():
                            pivot[0] = row
                    with ir.If(pivot[0] != column), ir.Then():
                        result[matrix] = tirx.const(0, dtype) - result[matrix]
                        with ir.serial(0, side) as step:
                            kept[0] = work[column * side + step]
                            work[column * side + step] = work[pivot[0] * side + step]
                            work[pivot[0] * side + step] = kept[0]
                    result[matrix] = result[matrix] * work[column * side + column]
                    with ir.serial(0, side) as row:
                        below = row > column
                        solid = work[column * side + column] != tirx.const(0, dtype)
                        with ir.If(tirx.all(below, solid)), ir.Then():
                            kept[0] = work[row * side + column] / work[column * side + column]
                            with ir.serial(0, side) as step:
                                work[row * side + step] = (
                                    work[row * side + step] - kept[0] * work[column * side + step]
                                )

        return [statement(write)]

    return call.loops(call.values, body)
