"""Weights in the order in which the kernels read them, packed once while compiling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

# Output channels that a convolution kernel computes at a time: two vectors of four.
CONV_LANES = 8
# Outputs that the dense kernel computes at a time.
DENSE_LANES = 32


def pack_conv(weight: Floats, groups: int) -> Floats:
    """``[oc, icg, kh, kw]`` to ``[groups, ceil(ocg / 8), icg * kh * kw, 8]``, tails zero."""
    oc = weight.shape[0]
    grouped = weight.reshape(groups, oc // groups, -1).astype(np.float32)
    padded = _pad(grouped, 1, CONV_LANES)
    blocks = padded.reshape(groups, -1, CONV_LANES, padded.shape[2])
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2))


def pack_conv_bias(bias: Floats, groups: int) -> Floats:
    """``[oc]`` to ``groups`` runs of ``ceil(ocg / 8) * 8`` values, tails zero."""
    grouped = bias.reshape(groups, -1).astype(np.float32)
    return np.ascontiguousarray(_pad(grouped, 1, CONV_LANES).reshape(-1))


def pack_winograd(weight: Floats) -> Floats:
    """``[oc, ic, 3, 3]`` to ``[36, ceil(oc / 8), ic, 8]``: each filter at 6x6 points."""
    oc, ic = weight.shape[:2]
    points = winograd_matrix()
    products = np.einsum("ia,ocab,jb->ijoc", points, weight.astype(np.float64), points)
    padded = _pad(products.reshape(36, oc, ic).astype(np.float32), 1, CONV_LANES)
    blocks = padded.reshape(36, -1, CONV_LANES, ic)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2))


def winograd_matrix() -> Floats:
    """A filter of three taps at the kernel's points: 0, 5/8, -5/8, 3/2, -3/2 and infinity."""
    inner, outer = 0.625, 1.5
    rows = []
    for point in (0.0, inner, -inner, outer, -outer):
        # The slope there of x (x^2 - inner^2) (x^2 - outer^2).
        slope = np.prod([point - p for p in (0, inner, -inner, outer, -outer) if p != point])
        rows.append([1 / slope, point / slope, point * point / slope])
    return np.array([*rows, [0.0, 0.0, 1.0]])


def pack_depthwise(weight: Floats) -> Floats:
    """``[c, 1, kh, kw]`` to ``[c, kh * kw]``."""
    return np.ascontiguousarray(weight.reshape(weight.shape[0], -1).astype(np.float32))


def pack_dense(weight: Floats) -> Floats:
    """``[k, n]`` to ``[ceil(n / 32), k, 32]``, tails zero."""
    padded = _pad(weight.astype(np.float32), 1, DENSE_LANES)
    blocks = padded.reshape(weight.shape[0], -1, DENSE_LANES)
    return np.ascontiguousarray(blocks.transpose(1, 0, 2))


def pack_dense_bias(bias: Floats) -> Floats:
    """``[n]`` to ``ceil(n / 32) * 32`` values, the tail zero."""
    return np.ascontiguousarray(_pad(bias.astype(np.float32), 0, DENSE_LANES))


def _pad(array: Floats, axis: int, multiple: int) -> Floats:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % multiple)
    return np.pad(array, widths)
