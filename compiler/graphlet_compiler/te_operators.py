"""Operators that TVM's importer lacks or gets wrong, as tensor expressions and plain loops.

Each function gives a Relax call that computes a node's outputs. Expressions are fused with their
neighbours like TVM's own; loops, where results depend on an order, are not. Indices that point
outside of a tensor, which ONNX forbids, read and write its rim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as ir

from graphlet_compiler import resampling, tir
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


def _place(index: Any, extent: int) -> Any:
    """An index, negative ones counted from the end, within ``extent``."""
    end = tirx.const(extent, index.ty.dtype)
    zero = tirx.const(0, index.ty.dtype)
    counted = tirx.if_then_else(index < zero, index + end, index)
    return tirx.max(tirx.min(counted, end - tirx.const(1, index.ty.dtype)), zero)


def _gather(call: Call) -> Any:
    axis, rank = call.axis(), len(call.shape(1))
    extent = call.shape()[axis]

    def compute(data: Any, indices: Any) -> Any:
        def value(*at: Any) -> Any:
            place = _place(indices(*at[axis : axis + rank]), extent)
            return data(*at[:axis], place, *at[axis + rank :])

        return te.compute(call.result(), value, name="gather")

    return call.expression(compute)


def _gather_elements(call: Call) -> Any:
    axis = call.axis()
    extent = call.shape()[axis]

    def compute(data: Any, indices: Any) -> Any:
        def value(*at: Any) -> Any:
            return data(*at[:axis], _place(indices(*at), extent), *at[axis + 1 :])

        return te.compute(call.result(), value, name="gather_elements")

    return call.expression(compute)


def _gather_nd(call: Call) -> Any:
    data_shape, index_shape = call.shape(0), call.shape(1)
    batch, depth = int(call.node.attr("batch_dims", 0)), index_shape[-1]
    outer = len(index_shape) - 1

    def compute(data: Any, indices: Any) -> Any:
        def value(*at: Any) -> Any:
            found = [_place(indices(*at[:outer], n), data_shape[batch + n]) for n in range(depth)]
            return data(*at[:batch], *found, *at[outer:])

        return te.compute(call.result(), value, name="gather_nd")

    return call.expression(compute)


def _one_hot(call: Call) -> Any:
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


def _reverse_sequence(call: Call) -> Any:
    batch, time = int(call.node.attr("batch_axis", 1)), int(call.node.attr("time_axis", 0))
    extent = call.shape()[time]

    def compute(data: Any, lengths: Any) -> Any:
        def value(*at: Any) -> Any:
            length, place = lengths(at[batch]), at[time].astype(lengths.dtype)
            mirrored = _place(length - tirx.const(1, lengths.dtype) - place, extent)
            place = tirx.if_then_else(place < length, mirrored, place)
            return data(*(place if axis == time else i for axis, i in enumerate(at)))

        return te.compute(call.result(), value, name="reverse_sequence")

    return call.expression(compute)


def _tensor_scatter(call: Call) -> Any:
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
            kept = _place(tirx.max(place, zero), update[axis])
            fresh = new(*at[:axis], kept, *at[axis + 1 :])
            return tirx.if_then_else(inside, fresh, cache(*at))

        return te.compute(call.result(), value, name="tensor_scatter")

    return call.expression(compute, *(value for value in call.values if value is not None))


def _bit_cast(call: Call) -> Any:
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


def _resize(call: Call) -> Any:
    source, result = call.shape(), call.result()
    value = call.values[0]
    dtype = call.dtype()
    nearest = call.node.attr("mode", "nearest") == "nearest"
    # Weights of halves and integers would lose too much.
    working = dtype if nearest or dtype in ("float32", "float64") else "float32"
    if working != dtype:
        value = call.builder.emit(relax.op.astype(value, working))
    shape = list(source)
    for axis, taps in resampling.axes(call.graph, call.node):
        shape[axis] = result[axis]
        value = call.builder.emit(_resample(call, value, axis, tuple(shape), taps, working))
    if working == dtype:
        return value
    if not dtype.startswith(("float", "bfloat")):
        info = np.iinfo(np.dtype(dtype))
        value = relax.op.clip(relax.op.round(value), float(info.min), float(info.max))
    return relax.op.astype(value, dtype)


def _resample(
    call: Call, value: Any, axis: int, shape: Shape, taps: resampling.Taps, dtype: str
) -> Any:
    count = taps.places.shape[1]
    places = relax.const(taps.places.astype(np.int32), "int32")
    weights = relax.const(taps.weights.astype(dtype), dtype)
    offsets = relax.const(taps.offsets.astype(dtype), dtype)

    def compute(data: Any, place: Any, weight: Any, offset: Any) -> Any:
        if count == 1 and taps.copies:

            def pick(*at: Any) -> Any:
                return data(*at[:axis], place(at[axis], 0), *at[axis + 1 :])

            return te.compute(shape, pick, name="resample")
        tap = te.reduce_axis((0, count), name="tap")

        def total(*at: Any) -> Any:
            near = data(*at[:axis], place(at[axis], tap), *at[axis + 1 :])
            return te.sum(near * weight(at[axis], tap), axis=tap)

        summed = te.compute(shape, total, name="resample")
        if not taps.offsets.any():
            return summed
        return te.compute(shape, lambda *at: summed(*at) + offset(at[axis]), name="shifted")

    return call.expression(compute, value, places, weights, offsets)


def _roi_max(call: Call) -> Any:
    """The greatest of the weighted corners, as ONNX's mode `max` of `RoiAlign` has it."""
    _, _, height, width = call.shape()
    _, _, rows, columns = call.result()
    node = call.node
    scale = float(node.attr("spatial_scale", 1.0))
    half = 0.5 if node.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel" else 0
    ratio = int(node.attr("sampling_ratio", 0))
    if ratio <= 0:
        raise NotImplementedError("mode max with a number of samples that depends on the region")

    def compute(data: Any, regions: Any, batches: Any) -> Any:
        v = te.reduce_axis((0, ratio), name="v")
        u = te.reduce_axis((0, ratio), name="u")

        def bound(region: Any, index: int) -> Any:
            return regions(region, index) * scale - half

        def position(region: Any, cell: Any, sample: Any, first: int, cells: int) -> Any:
            begin, end = bound(region, first), bound(region, first + 2)
            length = end - begin if half else tirx.max(end - begin, tirx.const(1.0, "float32"))
            step = length / tirx.const(float(cells), "float32")
            part = (sample.astype("float32") + 0.5) / tirx.const(float(ratio), "float32")
            return begin + (cell.astype("float32") + part) * step

        def value(region: Any, channel: Any, i: Any, j: Any) -> Any:
            batch = batches(region).astype("int32")
            y = position(region, i, v, 1, rows)
            x = position(region, j, u, 0, columns)
            outside = tirx.any(y < -1.0, y > float(height), x < -1.0, x > float(width))
            (y0, y1, fy), (x0, x1, fx) = _corners(y, height), _corners(x, width)
            corners = [
                data(batch, channel, a, b) * (p * q)
                for a, p in ((y0, 1.0 - fy), (y1, fy))
                for b, q in ((x0, 1.0 - fx), (x1, fx))
            ]
            greatest = corners[0]
            for corner in corners[1:]:
                greatest = tirx.max(greatest, corner)
            inside = tirx.if_then_else(outside, tirx.const(0.0, "float32"), greatest)
            return te.max(inside, axis=[v, u])

        return te.compute(call.result(), value, name="roi_max")

    return call.expression(compute)


def _corners(place: Any, extent: int) -> tuple[Any, Any, Any]:
    """Both neighbours of a position, and how far it is from the first."""
    inside = tirx.max(tirx.min(place, float(extent - 1)), 0.0)
    low = tirx.floor(inside).astype("int32")
    high = tirx.min(low + 1, extent - 1)
    return low, high, inside - low.astype("float32")


def _deformable(call: Call) -> Any:
    """``DeformConv``: a convolution that reads beside its places, by offsets that are inputs."""
    node = call.node
    batch, channels, height, width = call.shape(0)
    filters, depth, kh, kw = call.shape(1)
    _, _, rows, columns = call.result()
    sh, sw = node.attr("strides", (1, 1))
    dh, dw = node.attr("dilations", (1, 1))
    top, left = node.attr("pads", (0, 0, 0, 0))[:2]
    groups, parts = int(node.attr("group", 1)), int(node.attr("offset_group", 1))
    dtype = call.dtype()
    bias = call.values[3] if len(call.values) > 3 else None
    mask = call.values[4] if len(call.values) > 4 else None

    def compute(data: Any, weight: Any, offset: Any, *more: Any) -> Any:
        rest = list(more)
        shift = rest.pop(0) if bias is not None else None
        share = rest.pop(0) if mask is not None else None

        def sample(n: Any, c: Any, ky: Any, kx: Any, i: Any, j: Any) -> Any:
            part = tirx.floordiv(c, channels // parts)
            tap = (part * kh + ky) * kw + kx
            y = (i * sh - top + ky * dh).astype(dtype) + offset(n, 2 * tap, i, j)
            x = (j * sw - left + kx * dw).astype(dtype) + offset(n, 2 * tap + 1, i, j)
            y0, x0 = tirx.floor(y), tirx.floor(x)
            total = tirx.const(0.0, dtype)
            one = tirx.const(1.0, dtype)
            for a, p in ((y0, one - (y - y0)), (y0 + one, y - y0)):
                for b, q in ((x0, one - (x - x0)), (x0 + one, x - x0)):
                    row, column = a.astype("int32"), b.astype("int32")
                    inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
                    near = data(
                        n, c, _place(tirx.max(row, 0), height), _place(tirx.max(column, 0), width)
                    )
                    total = total + tirx.if_then_else(
                        inside, near * (p * q), tirx.const(0.0, dtype)
                    )
            return total if share is None else total * share(n, tap, i, j)

        samples = te.compute((batch, channels, kh, kw, rows, columns), sample, name="samples")
        c = te.reduce_axis((0, depth), name="c")
        ky, kx = te.reduce_axis((0, kh), name="ky"), te.reduce_axis((0, kw), name="kx")

        def value(n: Any, f: Any, i: Any, j: Any) -> Any:
            first = tirx.floordiv(f, filters // groups) * depth
            product = samples(n, first + c, ky, kx, i, j) * weight(f, c, ky, kx)
            return te.sum(product, axis=[c, ky, kx])

        summed = te.compute(call.result(), value, name="deformable")
        if shift is None:
            return summed
        return te.compute(call.result(), lambda n, f, i, j: summed(n, f, i, j) + shift(f))

    return call.expression(compute, *(value for value in call.values if value is not None))


def _col2im(call: Call) -> Any:
    """Adds overlapping blocks up: each place looks for the blocks that it is in."""
    image, block = call.constant(1), call.constant(2)
    if image is None or block is None:
        raise NotImplementedError("shapes that are not constant")
    rank = len(image)
    strides = call.node.attr("strides", (1,) * rank)
    dilations = call.node.attr("dilations", (1,) * rank)
    pads = call.node.attr("pads", (0,) * 2 * rank)
    counts = [
        (int(image[d]) + pads[d] + pads[d + rank] - dilations[d] * (int(block[d]) - 1) - 1)
        // strides[d]
        + 1
        for d in range(rank)
    ]
    blocks = math.prod(int(extent) for extent in block)

    def compute(data: Any) -> Any:
        taps = [te.reduce_axis((0, int(extent)), name=f"k{d}") for d, extent in enumerate(block)]

        def value(n: Any, c: Any, *at: Any) -> Any:
            row, column = tirx.const(0, "int32"), tirx.const(0, "int32")
            inside: list[Any] = []
            for d in range(rank):
                reach = at[d].astype("int32") + pads[d] - taps[d] * dilations[d]
                turn = tirx.floordiv(reach, strides[d])
                inside += [
                    tirx.floormod(reach, strides[d]) == 0,
                    turn >= 0,
                    turn < counts[d],
                ]
                row = row * int(block[d]) + taps[d]
                column = column * counts[d] + tirx.max(tirx.min(turn, counts[d] - 1), 0)
            found = data(n, c * blocks + row, column)
            zero = tirx.const(0, data.dtype)
            return te.sum(tirx.if_then_else(tirx.all(*inside), found, zero), axis=taps)

        return te.compute(call.result(), value, name="col2im")

    return call.expression(compute, call.values[0])


def _scatter_elements(call: Call) -> Any:
    shape, indices = call.shape(0), call.shape(1)
    axis = call.axis()
    join = _joins(call.node)

    def body(inputs: Any, outputs: Any) -> list[Any]:
        data, places, updates = inputs

        def write() -> None:
            with ir.serial(0, math.prod(indices)) as step:
                at = _unflatten(step, indices)
                index = _place(places[step], shape[axis])
                at[axis] = index
                target = _flatten(at, shape)
                outputs[0][target] = join(outputs[0][target], updates[step])

        return [_copied(data, outputs[0], math.prod(shape)), _statement(write)]

    return call.loops(call.values, body)


def _scatter_nd(call: Call) -> Any:
    shape, indices = call.shape(0), call.shape(1)
    depth = indices[-1]
    run = math.prod(shape[depth:])
    join = _joins(call.node)

    def body(inputs: Any, outputs: Any) -> list[Any]:
        data, places, updates = inputs

        def write() -> None:
            with ir.serial(0, math.prod(indices[:-1])) as step, ir.serial(0, run) as inner:
                at = [_place(places[step * depth + n], shape[n]) for n in range(depth)]
                target = _flatten(at, shape[:depth]) * run + inner
                outputs[0][target] = join(outputs[0][target], updates[step * run + inner])

        return [_copied(data, outputs[0], math.prod(shape)), _statement(write)]

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


def _scan(call: Call) -> Any:
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

        return [_statement(write)]

    return call.loops(call.values[:1], body)


def _top_k(call: Call) -> Any:
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

        return [_statement(write)]

    return call.loops(call.values[:1], body)


def _max_unpool(call: Call) -> Any:
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
                at = _unflatten(_place(places[step], math.prod(counted)), counted)
                inside = [_place(i, extent) for i, extent in zip(at, result, strict=True)]
                outputs[0][_flatten(inside, result)] = data[step]

        return [_statement(clear), _statement(write)]

    return call.loops(call.values[:2], body)


def _max_pool(call: Call) -> Any:
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
                at = _unflatten(here, result)
                places[here] = tirx.const(-1, "int64")
                with ir.serial(0, math.prod(kernel)) as tap:
                    taps = _unflatten(tap, tuple(kernel))
                    spots = [
                        at[d + 2] * strides[d] - pads[d] + taps[d] * dilations[d]
                        for d in range(rank)
                    ]
                    inside = [tirx.all(s >= 0, s < shape[d + 2]) for d, s in enumerate(spots)]
                    clamped = [
                        tirx.max(tirx.min(s, shape[d + 2] - 1), 0) for d, s in enumerate(spots)
                    ]
                    source = _flatten([*at[:2], *clamped], shape)
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

        return [_statement(write)]

    return call.loops(call.values[:1], body)


def _det(call: Call) -> Any:
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

        return [_statement(write)]

    return call.loops(call.values, body)


def _statement(write: Callable[[], None]) -> Any:
    with IRBuilder() as builder:
        write()
        return builder.get()


def _copied(source: Any, target: Any, count: int) -> Any:
    def write() -> None:
        with ir.serial(0, count) as step:
            target[step] = source[step]

    return _statement(write)


def _unflatten(step: Any, shape: Shape) -> list[Any]:
    at, rest = [], step
    for extent in reversed(shape):
        at.append(tirx.floormod(rest, tirx.const(extent, rest.ty.dtype)))
        rest = tirx.floordiv(rest, tirx.const(extent, rest.ty.dtype))
    return at[::-1]


def _flatten(at: Sequence[Any], shape: Shape) -> Any:
    total: Any = 0
    for index, extent in zip(at, shape, strict=True):
        total = total * extent + index
    return total


def _slice(call: Call) -> Any:
    """A slice of before operator set 10, whose bounds are attributes."""
    node = call.node
    starts, ends = ([int(e) for e in node.attr(name)] for name in ("starts", "ends"))
    axes = [int(axis) % len(call.shape()) for axis in node.attr("axes") or range(len(starts))]
    extents = [call.shape()[axis] for axis in axes]
    # An end may be any large number.
    ends = [min(end, extent) for end, extent in zip(ends, extents, strict=True)]
    return relax.op.strided_slice(call.values[0], axes, starts, ends, [1] * len(axes))


def _has_indices(call: Call) -> bool:
    return len(call.node.outputs) > 1 and bool(call.node.outputs[1])


_OPERATORS: dict[str, Callable[[Call], Any]] = {
    "BitCast": _bit_cast,
    "Col2Im": _col2im,
    "CumProd": _scan,
    "CumSum": _scan,
    "DeformConv": _deformable,
    "Det": _det,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "MaxUnpool": _max_unpool,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
    "TopK": _top_k,
}
# Those that TVM computes too, but not in every form.
_FORMS: dict[str, tuple[Callable[[Call], bool], Callable[[Call], Any]]] = {
    "MaxPool": (_has_indices, _max_pool),
    "Resize": (lambda call: resampling.needed(call.graph, call.node), _resize),
    "RoiAlign": (lambda call: call.node.attr("mode", "avg") == "max", _roi_max),
    "Slice": (lambda call: "starts" in call.node.attributes, _slice),
    "Upsample": (lambda call: resampling.needed(call.graph, call.node), _resize),
}


def known(node: Node) -> bool:
    """Whether this module computes the operator in some form."""
    return not node.domain and (node.op in _OPERATORS or node.op in _FORMS)


def compute(graph: Graph, node: Node, builder: Any, values: Sequence[Any]) -> Any | None:
    """A call that computes the node; ``None`` if that is left to TVM."""
    call = Call(graph, node, builder, values)
    if node.domain:
        return None
    if node.op in _OPERATORS:
        return _OPERATORS[node.op](call)
    applies, function = _FORMS.get(node.op, (None, None))
    if applies is None or function is None or not applies(call):
        return None
    return function(call)
