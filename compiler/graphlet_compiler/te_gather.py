"""Operators that pick or move values, as tensor expressions.

Indices that point outside of a tensor, which ONNX forbids, read its rim.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import relax, te, tirx

from graphlet_compiler import tir
from graphlet_compiler.te_call import Call, bounded, copied


def gather(call: Call) -> Any:
    """``Gather``."""
    axis, rank = call.axis(), len(call.shape(1))
    extent = call.shape()[axis]

    def compute(data: Any, indices: Any) -> Any:
        def value(*at: Any) -> Any:
            place = bounded(indices(*at[axis : axis + rank]), extent)
            return data(*at[:axis], place, *at[axis + rank :])

        return te.compute(call.result(), value, name="gather")

    return call.expression(compute)


def gather_elements(call: Call) -> Any:
    """``GatherElements``."""
    axis = call.axis()
    extent = call.shape()[axis]

    def compute(data: Any, indices: Any) -> Any:
        def value(*at: Any) -> Any:
            return data(*at[:axis], bounded(indices(*at), extent), *at[axis + 1 :])

        return te.compute(call.result(), value, name="gather_elements")

    return call.expression(compute)


def gather_nd(call: Call) -> Any:
    """``GatherND``."""
    data_shape, index_shape = call.shape(0), call.shape(1)
    batch, depth = int(call.node.attr("batch_dims", 0)), index_shape[-1]
    outer = len(index_shape) - 1

    def compute(data: Any, indices: Any) -> Any:
        def value(*at: Any) -> Any:
            found = [bounded(indices(*at[:outer], n), data_shape[batch + n]) for n in range(depth)]
            return data(*at[:batch], *found, *at[outer:])

        return te.compute(call.result(), value, name="gather_nd")

    return call.expression(compute)


def one_hot(call: Call) -> Any:
    """``OneHot``."""
    result = call.result()
    axis = call.axis(-1, len(result))
    depth = result[axis]

    def compute(indices: Any, values: Any) -> Any:
        def value(*at: Any) -> Any:
            index = indices(*at[:axis], *at[axis + 1 :])
            zero = tirx.const(0, index.ty.dtype)
            counted = tirx.if_then_else(
                index < zero, index + tirx.const(depth, index.ty.dtype), index
            )
            hot = counted == at[axis].astype(index.ty.dtype)
            return tirx.if_then_else(hot, values(1), values(0))

        return te.compute(result, value, name="one_hot")

    return call.expression(compute, call.values[0], call.values[2])


def reverse_sequence(call: Call) -> Any:
    """``ReverseSequence``."""
    batch, time = int(call.node.attr("batch_axis", 1)), int(call.node.attr("time_axis", 0))
    extent = call.shape()[time]

    def compute(data: Any, lengths: Any) -> Any:
        def value(*at: Any) -> Any:
            length, place = lengths(at[batch]), at[time].astype(lengths.dtype)
            mirrored = bounded(length - tirx.const(1, lengths.dtype) - place, extent)
            place = tirx.if_then_else(place < length, mirrored, place)
            return data(*(place if axis == time else i for axis, i in enumerate(at)))

        return te.compute(call.result(), value, name="reverse_sequence")

    return call.expression(compute)


def tensor_scatter(call: Call) -> Any:
    """``TensorScatter``."""
    past, update = call.shape(0), call.shape(1)
    axis = call.axis(-2)
    circular = call.node.attr("mode", "linear") == "circular"

    def compute(cache: Any, new: Any, *starts: Any) -> Any:
        def value(*at: Any) -> Any:
            place = at[axis].astype("int64")
            if starts:
                place = place - starts[0](at[0]).astype("int64")
            if circular:
                place = tirx.floormod(place, tirx.const(past[axis], "int64"))
            zero, end = tirx.const(0, "int64"), tirx.const(update[axis], "int64")
            inside = tirx.all(place >= zero, place < end)
            kept = bounded(tirx.max(place, zero), update[axis])
            fresh = new(*at[:axis], kept, *at[axis + 1 :])
            return tirx.if_then_else(inside, fresh, cache(*at))

        return te.compute(call.result(), value, name="tensor_scatter")

    return call.expression(compute, *(value for value in call.values if value is not None))


def bit_cast(call: Call) -> Any:
    """``BitCast``."""
    dtype = call.dtype()

    def compute(data: Any) -> Any:
        def value(*at: Any) -> Any:
            bits = data(*at)
            # Truth values are bytes, which reinterpretation does not know as such.
            if str(data.dtype) == "bool":
                bits = bits.astype("uint8")
            if dtype == "bool":
                return bits.astype("uint8") != tirx.const(0, "uint8")
            return bits if str(bits.ty.dtype) == dtype else tirx.reinterpret(dtype, bits)

        return te.compute(call.result(), value, name="bit_cast")

    return call.expression(compute)


def halves_to_doubles(call: Call) -> Any:
    """``Cast`` of half precision to 64 bits: by a function of its own to 32, then the rest.

    In one function LLVM makes one step of the two, for which no runtime library has a routine.
    """
    shape, count = call.shape(), math.prod(call.shape())

    def body(inputs: Any, outputs: Any) -> list[Any]:
        return [copied(inputs[0], outputs[0], count, "float32")]

    source = str(call.values[0].ty.dtype)
    function = tir.loops_function([(shape, source)], [(shape, "float32")], body)
    name = "graphlet_widen"
    variable = call.builder.add_func(function.with_attr("global_symbol", name), name)
    wide = relax.call_tir(variable, [call.values[0]], relax.TensorType(list(shape), "float32"))
    return relax.op.astype(call.builder.emit(wide), "float64")


def slice_of_attributes(call: Call) -> Any:
    """A slice of before operator set 10, whose bounds are attributes."""
    node = call.node
    starts, ends = ([int(e) for e in node.attr(name)] for name in ("starts", "ends"))
    axes = [int(axis) % len(call.shape()) for axis in node.attr("axes") or range(len(starts))]
    extents = [call.shape()[axis] for axis in axes]
    # An end may be any large number.
    ends = [min(end, extent) for end, extent in zip(ends, extents, strict=True)]
    return relax.op.strided_slice(call.values[0], axes, starts, ends, [1] * len(axes))
