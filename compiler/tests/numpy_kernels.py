"""The kernels by their definitions: what a call of the operator library computes, with numpy.

Each takes its tensors from the addresses that the call gives (flat, and perhaps longer than what
is read), the call's numbers, and the output to fill, flat too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from graphlet_compiler.kernels import (
    SUFFIXES,
    Activation,
    AveragePool2d,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalAveragePool,
    MatMul,
    MaxPool2d,
    Softmax,
    Transpose,
    WinogradConv2d,
)

Array = NDArray[Any]
Kernel = Callable[[list[Array | None], list[float], Array], None]


def _finished(value: Array, residual: Array | None, numbers: list[float], output: Array) -> None:
    total = value if residual is None else value + _shaped(residual, *value.shape)
    output.reshape(-1)[...] = _activated(total, *numbers[-3:]).reshape(-1)


def _activated(x: Array, code: float, lo: float, hi: float) -> Array:
    match Activation(int(code)):
        case Activation.CLAMP:
            return np.clip(x, lo, hi)
        case Activation.SIGMOID:
            return 1 / (1 + np.exp(-x))
        case Activation.SILU:
            return x / (1 + np.exp(-x))
        case Activation.HARD_SIGMOID:
            return np.clip(lo * x + hi, 0, 1)
        case Activation.HARD_SWISH:
            return x * np.clip(x / 6 + 0.5, 0, 1)
        case Activation.GELU:
            return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        case Activation.GELU_TANH:
            return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case Activation.TANH:
            return np.tanh(x)


def _conv2d(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    x, packed, bias, residual = pointers
    assert x is not None and packed is not None and bias is not None
    g = Conv2d(*(int(value) for value in numbers[:-3]))
    ocg, icg = g.oc // g.groups, g.ic // g.groups
    lanes = packed.reshape(g.groups, -1, icg, g.kh, g.kw, 8).transpose(0, 1, 5, 2, 3, 4)
    weight = lanes.reshape(g.groups, -1, icg, g.kh, g.kw)[:, :ocg]
    biases = bias.reshape(g.groups, -1)[:, :ocg].reshape(1, g.oc, 1, 1)
    windows = _windows(_shaped(x, g.n, g.ic, g.ih, g.iw), g)
    parts = [
        np.einsum(
            "nchwij,ocij->nohw",
            windows[:, group * icg : (group + 1) * icg],
            weight[group],
            optimize=True,
        )
        for group in range(g.groups)
    ]
    _finished(np.concatenate(parts, 1) + biases, residual, numbers, output)


def _winograd(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    """By the definition: tiles and weights at 6x6 points, and back."""
    x, packed, bias, residual = pointers
    assert x is not None and packed is not None and bias is not None
    g = WinogradConv2d(*(int(value) for value in numbers[:-3]))
    weight = packed.reshape(36, -1, g.ic, 8).transpose(0, 1, 3, 2).reshape(36, -1, g.ic)[:, : g.oc]
    down, across = -(-g.oh // 4), -(-g.ow // 4)
    padded = np.zeros((g.n, g.ic, down * 4 + 2, across * 4 + 2))
    height, width = min(g.ih, down * 4 + 2 - g.pt), min(g.iw, across * 4 + 2 - g.pl)
    inside = _shaped(x, g.n, g.ic, g.ih, g.iw)[:, :, :height, :width]
    padded[:, :, g.pt : g.pt + height, g.pl : g.pl + width] = inside
    tiles = sliding_window_view(padded, (6, 6), (2, 3))[:, :, ::4, ::4]
    points = np.array([0, 0.625, -0.625, 1.5, -1.5])
    # A polynomial with these roots but one, and with all of them: what multiplies a tile.
    to = [[*np.poly(np.delete(points, i))[::-1].tolist(), 0.0] for i in range(5)]
    to.append(np.poly(points)[::-1].tolist())
    back = np.array([[*points**power, float(power == 3)] for power in range(4)])
    inputs = np.einsum("ia,nchwab,jb->ijnchw", to, tiles, to, optimize=True)
    products = np.einsum(
        "koc,knchw->knohw", weight, inputs.reshape(36, *inputs.shape[2:]), optimize=True
    )
    products = products.reshape(6, 6, *products.shape[1:])
    result = np.einsum("ai,ijnohw,bj->nohawb", back, products, back, optimize=True)
    result = result.reshape(g.n, g.oc, down * 4, across * 4)[:, :, : g.oh, : g.ow]
    _finished(result + bias[: g.oc].reshape(1, -1, 1, 1), residual, numbers, output)


def _depthwise(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    x, weight, bias, residual = pointers
    assert x is not None and weight is not None and bias is not None
    g = DepthwiseConv2d(*(int(value) for value in numbers[:-3]))
    windows = _windows(_shaped(x, g.n, g.c, g.ih, g.iw), g)
    result = np.einsum("nchwij,cij->nchw", windows, weight.reshape(g.c, g.kh, g.kw))
    _finished(result + bias.reshape(1, g.c, 1, 1), residual, numbers, output)


def _dense(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    x, packed, bias = pointers
    assert x is not None and packed is not None and bias is not None
    g = Dense(*(int(value) for value in numbers[:-3]))
    weight = packed.reshape(-1, g.k, 32).transpose(1, 0, 2).reshape(g.k, -1)[:, : g.n]
    _finished(_shaped(x, g.m, g.k) @ weight + bias[: g.n], None, numbers, output)


def _max_pool(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    g = MaxPool2d(*(int(value) for value in numbers))
    windows = _windows(_shaped(x, g.n, g.c, g.ih, g.iw), g, fill=-np.inf)
    output[...] = windows.max((4, 5)).reshape(output.shape)


def _global_average(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    g = GlobalAveragePool(*(int(value) for value in numbers))
    output.reshape(-1)[...] = _shaped(x, g.n * g.c, g.plane).mean(1)


def _average_pool(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    g = AveragePool2d(*(int(value) for value in numbers))
    total = _windows(_shaped(x, g.n, g.c, g.ih, g.iw), g).sum((4, 5))
    inside = _windows(np.ones((1, 1, g.ih, g.iw)), g).sum((4, 5))
    output[...] = (total / (g.kh * g.kw if g.count_include_pad else inside)).reshape(output.shape)


def _activation(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    output[...] = _activated(x[: int(numbers[0])], *numbers[1:])


def _softmax(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    g = Softmax(*(int(value) for value in numbers))
    rows = _shaped(x, g.rows, g.n)
    shares = np.exp(rows - rows.max(1, keepdims=True))
    output[...] = (shares / shares.sum(1, keepdims=True)).reshape(-1)


def _layer_norm(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    x, scale, bias = pointers
    assert x is not None and scale is not None
    rows, n = int(numbers[0]), int(numbers[1])
    values = _shaped(x, rows, n).astype(np.float64)
    centred = values - values.mean(1, keepdims=True)
    norm = centred / np.sqrt((centred**2).mean(1, keepdims=True) + numbers[2])
    output[...] = (norm * scale[:n] + (0 if bias is None else bias[:n])).reshape(-1)


def _matmul(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    a, b = pointers
    assert a is not None and b is not None
    g = MatMul(*(int(value) for value in numbers[:-1]), alpha=numbers[-1])
    for index in range(g.batch):
        left = _shaped(a[index * g.m * g.k :], g.m, g.k)
        right = b[index * g.b_stride :]
        right = _shaped(right, g.n, g.k).T if g.transpose_b else _shaped(right, g.k, g.n)
        place = output[index * g.m * g.n : (index + 1) * g.m * g.n]
        place[...] = (g.alpha * (left @ right)).reshape(-1)


def _transpose(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    g = Transpose(*(int(value) for value in numbers))
    output[...] = _shaped(x, g.d0, g.d1, g.d2, g.d3).transpose(0, 2, 1, 3).reshape(-1)


def _joined(join: Callable[[Array, Array], Any]) -> Kernel:
    def run(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
        a, b = pointers
        assert a is not None and b is not None
        extents = [int(value) for value in numbers]
        output[...] = np.reshape(join(_shaped(a, *extents[:6]), _shaped(b, *extents[6:])), -1)

    return run


def _argmax(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    output[...] = _shaped(x, *(int(value) for value in numbers)).argmax(1).reshape(-1)


def _shaped(x: Array, *shape: int) -> Array:
    """What a kernel reads from an address on."""
    return x.reshape(-1)[: math.prod(shape)].reshape(shape)


def _windows(x: Array, g: Any, fill: float = 0.0) -> Array:
    """Every window of every output position: [n, c, oh, ow, kh, kw]."""
    dh, dw = getattr(g, "dh", 1), getattr(g, "dw", 1)
    reach_h, reach_w = (g.kh - 1) * dh + 1, (g.kw - 1) * dw + 1
    bottom = max((g.oh - 1) * g.sh + reach_h - g.ih - g.pt, 0)
    right = max((g.ow - 1) * g.sw + reach_w - g.iw - g.pl, 0)
    padded = np.pad(x, ((0, 0), (0, 0), (g.pt, bottom), (g.pl, right)), constant_values=fill)
    windows = sliding_window_view(padded, (reach_h, reach_w), (2, 3))
    strided = windows[:, :, :: g.sh, :: g.sw, ::dh, ::dw]
    return np.asarray(strided[:, :, : g.oh, : g.ow])


KERNELS: dict[str, Kernel] = {
    "graphlet_conv2d_f32": _conv2d,
    "graphlet_conv2d_winograd_f32": _winograd,
    "graphlet_depthwise_conv2d_f32": _depthwise,
    "graphlet_dense_f32": _dense,
    "graphlet_max_pool2d_f32": _max_pool,
    "graphlet_global_avg_pool_f32": _global_average,
    "graphlet_avg_pool2d_f32": _average_pool,
    "graphlet_activation_f32": _activation,
    "graphlet_softmax_f32": _softmax,
    "graphlet_layer_norm_f32": _layer_norm,
    "graphlet_matmul_f32": _matmul,
    "graphlet_transpose_f32": _transpose,
    **{
        f"graphlet_{name}_{suffix}": kernel
        for suffix in SUFFIXES.values()
        for name, kernel in (
            ("add", _joined(np.add)),
            ("mul", _joined(np.multiply)),
            ("equal", _joined(np.equal)),
            ("equal_count", _joined(lambda a, b: np.count_nonzero(a == b))),
            ("argmax", _argmax),
        )
    },
}
