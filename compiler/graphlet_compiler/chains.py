"""Convolutions and dense layers with what follows them, as one kernel call each.

Batch-norm, scale and bias are folded into the weights in double precision; a residual addition
and an activation become arguments of the call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphlet_compiler import packing, simplify
from graphlet_compiler.activations import clamp_bounds, curve
from graphlet_compiler.geometry import conv_geometry, zero_padding
from graphlet_compiler.graph import Array, Graph, Node, Shape
from graphlet_compiler.kernels import (
    Activation,
    Clamp,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Geometry,
    KernelCall,
    WinogradConv2d,
)
from graphlet_compiler.rewrite import Rewrite


@dataclass
class _Chain:
    """A convolution or dense layer with what was fused into it so far."""

    head: Node
    tail: Node
    weight: Array  # [oc, icg, kh, kw] or [k, n]
    bias: Array
    clamp: Clamp = field(default_factory=Clamp)
    activation: Activation = Activation.CLAMP
    residual: str | None = None
    nodes: list[Node] = field(default_factory=list)

    @property
    def dense(self) -> bool:
        return self.weight.ndim == 2


def take(rewrite: Rewrite, node: Node) -> bool:
    """Replaces a convolution or dense layer and what can be fused into it, if a kernel can."""
    if node.op not in ("Conv", "Gemm", "MatMul") or refusal(rewrite.graph, node) is not None:
        return False
    chain = _start(rewrite.graph, node)
    _extend(rewrite, chain)
    _replace(rewrite, chain)
    return True


def refusal(graph: Graph, node: Node) -> str | None:
    """Why no kernel takes a convolution or dense layer; ``None`` if one does."""
    if node.op == "ConvTranspose":
        return "transposed convolutions have no kernel"
    if any(graph.dtypes.get(name) != np.float32 for name in node.inputs if name):
        return "the kernels compute with float32 only"
    if node.inputs[1] not in graph.constants:
        return "the weights are not constant"
    third = node.input(2)
    if third is not None and third not in graph.constants:
        return "the bias is not constant"
    source, weight = graph.shapes[node.inputs[0]], graph.shapes[node.inputs[1]]
    if node.op == "Conv":
        if len(weight) != 4:
            return f"only 2-D convolutions have a kernel, this is {len(weight) - 2}-D"
        return "negative padding" if any(pad < 0 for pad in node.attr("pads", ())) else None
    if len(weight) != 2:
        return "the weights are not a matrix"
    if node.op == "Gemm" and node.attr("transA", 0):
        return "the input is transposed"
    if len(source) < 1 or 0 in source:
        return "the input is empty"
    width = weight[0] if node.op == "Gemm" and node.attr("transB", 0) else weight[1]
    if third is not None:
        bias = graph.constants[third]
        if bias.size not in (1, width) or (bias.size > 1 and bias.shape[-1] != width):
            return "the bias differs from row to row"
    return None


def _start(graph: Graph, node: Node) -> _Chain:
    weight = np.asarray(graph.constants[node.inputs[1]], np.float64)
    third = node.input(2) if node.op != "MatMul" else None
    bias = None if third is None else np.asarray(graph.constants[third], np.float64)
    if node.op == "Gemm":
        weight = weight.T if node.attr("transB", 0) else weight
        weight = weight * node.attr("alpha", 1.0)
        bias = None if bias is None else bias * node.attr("beta", 1.0)
    width = weight.shape[0] if node.op == "Conv" else weight.shape[1]
    total = np.zeros(width) if bias is None else np.broadcast_to(bias.reshape(-1), (width,))
    return _Chain(node, node, weight, total.copy(), nodes=[node])


def _extend(rewrite: Rewrite, chain: _Chain) -> None:
    """Takes followers as long as the result has one reader and the kernel can do it."""
    shapes = rewrite.graph.shapes
    while (follower := rewrite.sole_reader(chain.tail)) is not None:
        value = chain.tail.outputs[0]
        if shapes[follower.outputs[0]] != shapes[value]:
            return
        if not _absorb(rewrite.graph, chain, follower, value):
            return
        chain.tail = follower
        chain.nodes.append(follower)


def _absorb(graph: Graph, chain: _Chain, node: Node, value: str) -> bool:
    if chain.activation != Activation.CLAMP:
        return False
    clamp = clamp_bounds(graph, node)
    if clamp is not None:
        chain.clamp = chain.clamp.then(*clamp)
        return True
    if chain.clamp.bounded:
        return False
    activation = curve(node)
    if activation is not None:
        chain.activation, chain.clamp = activation
        return True
    if node.op == "Add" and _absorb_residual(graph, chain, node, value):
        return True
    affine = _affine(graph, chain, node, value)
    if affine is None or (chain.residual is not None and np.any(affine[0] != 1.0)):
        return False
    scale, shift = affine
    chain.weight = chain.weight * (
        scale if chain.dense else scale.reshape((-1,) + (1,) * (chain.weight.ndim - 1))
    )
    chain.bias = chain.bias * scale + shift
    return True


def _absorb_residual(graph: Graph, chain: _Chain, node: Node, value: str) -> bool:
    other = node.inputs[1] if node.inputs[0] == value else node.inputs[0]
    if chain.dense or chain.residual is not None or other in graph.constants:
        return False
    if graph.shapes[other] != graph.shapes[value]:
        return False
    chain.residual = other
    return True


def _affine(graph: Graph, chain: _Chain, node: Node, value: str) -> tuple[Array, Array] | None:
    """Scale and shift per output channel that ``node`` applies to ``value``."""
    width = len(chain.bias)
    if node.op == "BatchNormalization":
        shape = graph.shapes[value]
        fits = node.inputs[0] == value and len(shape) >= 2 and shape[1] == width
        if chain.dense and len(shape) != 2:
            return None
        return simplify.batch_norm_affine(graph, node) if fits else None
    if node.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    on_left = node.inputs[0] == value
    other = graph.constants.get(node.inputs[1] if on_left else node.inputs[0])
    if other is None or (not on_left and node.op in ("Sub", "Div")):
        return None
    per_channel = _per_channel(other, width, graph.shapes[value], chain.dense)
    if per_channel is None:
        return None
    one, zero = np.ones(width), np.zeros(width)
    if node.op == "Add":
        return one, per_channel
    if node.op == "Sub":
        return one, -per_channel
    if node.op == "Mul":
        return per_channel, zero
    return (1.0 / per_channel, zero) if np.all(per_channel != 0) else None


def _per_channel(constant: Array, width: int, shape: Shape, dense: bool) -> Array | None:
    """A constant operand as one value per output channel; ``None`` if it varies otherwise."""
    if constant.size == 1:
        return np.full(width, constant.reshape(-1)[0], np.float64)
    axis = len(shape) - 1 if dense else 1
    extents = (1,) * (len(shape) - constant.ndim) + constant.shape
    expected = tuple(width if index == axis else 1 for index in range(len(shape)))
    return constant.reshape(-1).astype(np.float64) if extents == expected else None


def _replace(rewrite: Rewrite, chain: _Chain) -> None:
    graph, node = rewrite.graph, chain.head
    source = node.inputs[0]
    absorbed: list[Node] = []
    if chain.dense:
        shape = graph.shapes[node.inputs[0]]
        k, n = chain.weight.shape
        geometry: Geometry = Dense(int(np.prod(shape[:-1], dtype=np.int64)), k, n)
    else:
        pad = rewrite.sole_producer(source, ("Pad",))
        extra = (0, 0) if pad is None else zero_padding(graph, pad)
        if pad is not None and extra is not None:
            absorbed.append(pad)
            source = pad.inputs[0]
        geometry = conv_geometry(
            graph,
            node,
            graph.shapes[source],
            extra or (0, 0),
            pointwise_as_dense=chain.residual is None,
        )
    weight, bias = _pack(geometry, chain)
    constants = [
        graph.add_constant(f"{node.name}.weight", weight),
        graph.add_constant(f"{node.name}.bias", bias),
    ]
    call = KernelCall(geometry, chain.clamp, chain.residual is not None, chain.activation)
    residual = [chain.residual] if chain.residual is not None else []
    inputs = [source, *constants, *residual]
    rewrite.put(chain.tail, absorbed[::-1] + chain.nodes, node, call, inputs)


def _pack(geometry: Geometry, chain: _Chain) -> tuple[Array, Array]:
    weight, bias = chain.weight, chain.bias
    if isinstance(geometry, Conv2d):
        return (
            packing.pack_conv(weight, geometry.groups),
            packing.pack_conv_bias(bias, geometry.groups),
        )
    if isinstance(geometry, WinogradConv2d):
        return packing.pack_winograd(weight), packing.pack_conv_bias(bias, 1)
    if isinstance(geometry, DepthwiseConv2d):
        return packing.pack_depthwise(weight), bias.astype(np.float32)
    matrix = weight if chain.dense else weight.reshape(weight.shape[0], -1).T
    return packing.pack_dense(matrix), packing.pack_dense_bias(bias)
