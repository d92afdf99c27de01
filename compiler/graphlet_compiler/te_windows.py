"""Operators that weigh what lies around a place, as tensor expressions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from graphlet_compiler import resampling
from graphlet_compiler.graph import Shape
from graphlet_compiler.te_call import Call, bounded


def resize(call: Call) -> Any:
    """``Resize`` and ``Upsample``, axis by axis."""
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


def roi_max(call: Call) -> Any:
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


def deformable(call: Call) -> Any:
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
                        n, c, bounded(tirx.max(row, 0), height), bounded(tirx.max(column, 0), width)
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


def col2im(call: Call) -> Any:
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
