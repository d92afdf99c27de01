"""Runs a compiled graph on this machine: the plain reference beside the module.

Kernels are computed with numpy from the very call that the compiled function makes, so that its
arguments and the packed weights are what is tested. TVM's own functions are built for the host.
Tensors lie where the storage plan puts them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import tvm
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from graphlet_compiler import (
    codegen,
    graph_json,
    importer,
    lowering,
    onnx_file,
    prepare,
    shapes,
    simplify,
)
from graphlet_compiler.errors import UnsupportedOperatorError
from graphlet_compiler.graph import Graph
from graphlet_compiler.graph_json import ExecutorGraph
from graphlet_compiler.kernels import (
    Activation,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalAveragePool,
    MaxPool2d,
    WinogradConv2d,
)
from graphlet_compiler.spec import ModelSpec

Array = NDArray[Any]


class Executor:
    """A model compiled for this machine."""

    def __init__(self, model: onnx.ModelProto, spec: ModelSpec) -> None:
        self.graph: Graph = prepare.open_graph(onnx_file.expand(model), spec)
        simplify.simplify(self.graph)
        if unsupported := importer.unsupported(self.graph):
            raise UnsupportedOperatorError.of(unsupported)
        shapes.require_static(self.graph)
        importer.check_dtypes(self.graph)
        self.refusals = lowering.lower(self.graph)
        module, named = importer.import_graph(self.graph)
        module = importer.fuse(module, self.graph)
        self.executor: ExecutorGraph = graph_json.from_module(module, self.graph.inputs, named)
        used = {n.function for n in self.executor.nodes if n.function is not None}
        self.functions = codegen.functions(module, used)
        plain = {n: f for n, f in self.functions.items() if not _kernel_calls(f)}
        self.host = (
            tvm.tirx.build(
                tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in plain.items()}),
                tvm.target.Target("llvm"),
            )
            if plain
            else None
        )

    def run(self, picture: Array) -> Array:
        """One inference, in storages that are full of rubbish at first."""
        ids, _ = self.executor.plan()
        entries = [t for n in self.executor.nodes for t in n.outputs]
        sizes: dict[int, int] = {}
        for storage, tensor in zip(ids, entries, strict=True):
            sizes[storage] = max(sizes.get(storage, 0), tensor.nbytes)
        memory = {storage: np.full(size, 0xFF, np.uint8) for storage, size in sizes.items()}
        rows: list[list[Array]] = []
        position = 0
        for node in self.executor.nodes:
            tensors = []
            for tensor in node.outputs:
                raw = memory[ids[position]][: tensor.nbytes]
                tensors.append(raw.view(tensor.dtype).reshape(tensor.shape))
                position += 1
            rows.append(tensors)
        for node, tensors in zip(self.executor.nodes, rows, strict=True):
            if node.function is None:
                value = self.executor.params.get(node.name)
                tensors[0][...] = picture if value is None else value
                continue
            inputs = [rows[index][output] for index, output in node.inputs]
            calls = _kernel_calls(self.functions[node.function])
            if calls:
                _run_kernels(calls, inputs, tensors[0])
            else:
                assert self.host is not None
                arguments = [tvm.runtime.tensor(a) for a in (*inputs, *tensors)]
                self.host[node.function](*arguments)
                for tensor, argument in zip(tensors, arguments[len(inputs) :], strict=True):
                    tensor[...] = argument.numpy()
        index, output = self.executor.head
        return rows[index][output].copy()


def _kernel_calls(function: Any) -> list[Any]:
    """The calls of the operator library in a function, if it makes any."""
    body = function.body
    steps = body.seq if isinstance(body, tvm.tirx.SeqStmt) else [body]
    calls = [getattr(getattr(step, "condition", None), "a", None) for step in steps]
    return [call for call in calls if call is not None and "call_extern" in str(call.op)]


def _run_kernels(calls: list[Any], inputs: list[Array], output: Array) -> None:
    flat = output.reshape(-1)
    places = [_place(call) for call in calls]
    for call, first, end in zip(calls, places, [*places[1:], len(flat)], strict=True):
        _run_kernel(call, inputs, flat[first:end])


def _place(call: Any) -> int:
    """Where in the output a call writes."""
    for argument in call.args:
        if "address_of" in str(argument):
            (index,) = argument.args[0].indices
            return int(index)
    return 0


def _run_kernel(call: Any, inputs: list[Array], output: Array) -> None:
    symbol, *arguments = call.args
    pointers: list[Array | None] = []
    numbers: list[float] = []
    for argument in arguments:
        text = str(argument)
        if "address_of" in text or text == "y.data":
            pointers.append(output)
        elif text.endswith(".data"):
            pointers.append(inputs[int(text.removesuffix(".data").removeprefix("a"))])
        elif "reinterpret" in text:
            pointers.append(None)
        else:
            numbers.append(float(argument.value))
    assert pointers[-1] is output
    _KERNELS[str(symbol.value)](pointers[:-1], numbers, output)


def _finished(value: Array, residual: Array | None, numbers: list[float], output: Array) -> None:
    total = value if residual is None else value + residual
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
    windows = _windows(x.reshape(g.n, g.ic, g.ih, g.iw), g)
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
    inside = x.reshape(g.n, g.ic, g.ih, g.iw)[:, :, :height, :width]
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
    windows = _windows(x.reshape(g.n, g.c, g.ih, g.iw), g)
    result = np.einsum("nchwij,cij->nchw", windows, weight.reshape(g.c, g.kh, g.kw))
    _finished(result + bias.reshape(1, g.c, 1, 1), residual, numbers, output)


def _dense(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    x, packed, bias = pointers
    assert x is not None and packed is not None and bias is not None
    g = Dense(*(int(value) for value in numbers[:-3]))
    weight = packed.reshape(-1, g.k, 32).transpose(1, 0, 2).reshape(g.k, -1)[:, : g.n]
    _finished(x.reshape(g.m, g.k) @ weight + bias[: g.n], None, numbers, output)


def _max_pool(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    g = MaxPool2d(*(int(value) for value in numbers))
    windows = _windows(x.reshape(g.n, g.c, g.ih, g.iw), g, fill=-np.inf)
    output[...] = windows.max((4, 5)).reshape(output.shape)


def _global_average(pointers: list[Array | None], numbers: list[float], output: Array) -> None:
    (x,) = pointers
    assert x is not None
    g = GlobalAveragePool(*(int(value) for value in numbers))
    output.reshape(-1)[...] = x.reshape(g.n * g.c, g.plane).mean(1)


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


_KERNELS = {
    "graphlet_conv2d_f32": _conv2d,
    "graphlet_conv2d_winograd_f32": _winograd,
    "graphlet_depthwise_conv2d_f32": _depthwise,
    "graphlet_dense_f32": _dense,
    "graphlet_max_pool2d_f32": _max_pool,
    "graphlet_global_avg_pool_f32": _global_average,
}
