"""Fourier transforms as products with their matrices, which are constants."""

from __future__ import annotations

import math

import numpy as np

from graphlet_compiler.graph import Node
from graphlet_compiler.parts import Parts


def dft(parts: Parts) -> list[Node] | None:
    """``DFT``."""
    node, shape = parts.node, parts.shape()
    rank = len(shape)
    if parts.graph.opset >= 20:
        given = parts.constants_of(2)
        if node.input(2) is not None and given is None:
            return None
        axis = -2 if given is None else int(given.item())
    else:
        axis = int(node.attr("axis", 1))
    axis %= rank
    inverse, half = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    length = parts.constants_of(1)
    if node.input(1) is not None and length is None:
        return None
    whole = shape[axis]
    if inverse and half:
        whole = 2 * (shape[axis] - 1)
    count = whole if length is None else int(length.item())
    order = [a for a in range(rank - 1) if a != axis] + [axis]
    real = _component(parts, node.inputs[0], rank, 0, order)
    imaginary = _component(parts, node.inputs[0], rank, 1, order) if shape[-1] == 2 else None
    rows = _transformed(parts, real, imaginary, shape[axis], count, inverse, half)
    back = [order.index(a) for a in range(rank - 1)]
    columns = [parts.axes("Unsqueeze", parts("Transpose", r, perm=back), [rank - 1]) for r in rows]
    return parts.results(parts("Concat", *columns, axis=rank - 1))


def stft(parts: Parts) -> list[Node] | None:
    """``STFT``: the transforms of what lies in windows one behind another."""
    node, shape = parts.node, parts.shape()
    step, window, length = parts.constants_of(1), node.input(2), parts.constants_of(3)
    if step is None or (node.input(3) is not None and length is None):
        return None
    if length is not None:
        count = int(length.item())
    else:
        count = parts.graph.shapes[window][0] if window is not None else shape[1]
    frames = 1 + (shape[1] - count) // int(step.item())
    places = np.arange(frames)[:, None] * int(step.item()) + np.arange(count)
    index = parts.constant(places, np.int64)
    components = []
    for component in range(shape[2] if len(shape) == 3 else 1):
        signal = node.inputs[0]
        if len(shape) == 3:
            signal = parts.slice(signal, 2, component, component + 1)
            signal = parts.axes("Squeeze", signal, [2])
        framed = parts("Gather", signal, index, axis=1)
        components.append(framed if window is None else parts("Mul", framed, window))
    imaginary = components[1] if len(components) == 2 else None
    half = bool(node.attr("onesided", 1)) and imaginary is None
    rows = _transformed(parts, components[0], imaginary, count, count, False, half)
    columns = [parts.axes("Unsqueeze", row, [3]) for row in rows]
    return parts.results(parts("Concat", *columns, axis=3))


def _component(parts: Parts, value: str, rank: int, index: int, order: list[int]) -> str:
    one = parts.slice(value, rank - 1, index, index + 1)
    flat = parts.axes("Squeeze", one, [rank - 1])
    return parts("Transpose", flat, perm=order)


def _transformed(
    parts: Parts,
    real: str,
    imaginary: str | None,
    extent: int,
    count: int,
    inverse: bool,
    half: bool,
) -> list[str]:
    """Real and imaginary parts of the transform along the last axis, ``count`` values long."""
    dtype = parts.dtype()
    used = min(extent, count if not (inverse and half) else count // 2 + 1)
    results = count if inverse or not half else count // 2 + 1
    angles = 2 * math.pi * np.outer(np.arange(used), np.arange(results)) / count
    factor = np.ones((used, 1))
    if inverse and half:
        # What is not there mirrors what is, but for the first value and the middle one.
        factor[1:] = 2
        if count % 2 == 0 and used == count // 2 + 1:
            factor[-1] = 1
    factor = factor / count if inverse else factor
    cosine = parts.constant(np.cos(angles) * factor, dtype)
    sine = parts.constant(np.sin(angles) * factor * (1 if inverse else -1), dtype)

    def cut(value: str) -> str:
        last = len(parts.shape()) - 2
        return parts.slice(value, last, 0, used) if used < extent else value

    real = cut(real)
    imaginary = None if imaginary is None else cut(imaginary)
    upper, lower = parts("MatMul", real, cosine), parts("MatMul", real, sine)
    if imaginary is not None:
        upper = parts("Sub", upper, parts("MatMul", imaginary, sine))
        lower = parts("Add", lower, parts("MatMul", imaginary, cosine))
    return [upper] if inverse and half else [upper, lower]
