"""Gives the heavy operators to the kernels of the operator library.

Convolutions and dense layers take with them what follows: batch-norm, scale and bias are folded
into the weights in double precision, a residual addition and a clamp become arguments of the
call. Pooling goes to kernels too. What stays is compiled by TVM.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from graphlet_compiler import packing, simplify
from graphlet_compiler.graph import Array, Graph, Node, Shape
from graphlet_compiler.kernels import (
    UNBOUNDED,
    Clamp,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Geometry,
    GlobalAveragePool,
    KernelCall,
    MaxPool2d,
    WinogradConv2d,
)
from graphlet_compiler.packing import CONV_LANES

# Operators whose arithmetic dominates a network: one that no kernel takes runs several times
# slower and is reported.
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")

# Narrower maps leave too much of their tiles empty for the transformed weights, four times the
# plain ones, to be worth reading.
_WINOGRAD_WIDTH = 13

_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Refusal:
    """Why no kernel takes an operator."""

    reason: str


@dataclass
class _Chain:
    """A convolution or dense layer with what was fused into it so far."""

    head: Node
    tail: Node
    weight: Array  # [oc, icg, kh, kw] or [k, n]
    bias: Array
    clamp: Clamp = field(default_factory=Clamp)
    residual: str | None = None
    nodes: list[Node] = field(default_factory=list)

    @property
    def dense(self) -> bool:
        return self.weight.ndim == 2


def lower(graph: Graph) -> dict[str, Refusal]:
    """Rewrites ``graph``; returns why each heavy operator that stays was not taken, by node."""
    _Lowering(graph).run()
    simplify.split_batch_norms(graph)
    return {
        node.name: _refusal(graph, node)
        for node in graph.nodes
        if node.op in HEAVY and node.kernel is None and not node.domain
    }


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.uses: Counter[str] = graph.uses()
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self.replaced: dict[int, Node] = {}  # by the id of a chain's last node
        self.taken: set[int] = set()

    def run(self) -> None:
        # Backwards: of two convolutions that meet in an addition the later one takes it, when
        # the other's result exists already.
        for node in reversed(self.graph.nodes):
            if id(node) in self.taken or node.domain:
                continue
            chain = self._start(node)
            if chain is not None:
                self._extend(chain)
                self._replace(chain)
                continue
            pool = pool_kernel(self.graph, node)
            if pool is not None:
                self._put(node, [node], node.name, pool, [node.inputs[0]])
        nodes = []
        for node in self.graph.nodes:
            if id(node) in self.replaced:
                nodes.append(self.replaced[id(node)])
            elif id(node) not in self.taken:
                nodes.append(node)
        self.graph.nodes = nodes
        self.graph.prune()

    def _start(self, node: Node) -> _Chain | None:
        if node.op not in ("Conv", "Gemm", "MatMul"):
            return None
        if isinstance(_refusal_or_none(self.graph, node), Refusal):
            return None
        weight = np.asarray(self.graph.constants[node.inputs[1]], np.float64)
        third = node.input(2) if node.op != "MatMul" else None
        bias = None if third is None else np.asarray(self.graph.constants[third], np.float64)
        if node.op == "Gemm":
            weight = weight.T if node.attr("transB", 0) else weight
            weight = weight * node.attr("alpha", 1.0)
            bias = None if bias is None else bias * node.attr("beta", 1.0)
        width = weight.shape[0] if node.op == "Conv" else weight.shape[1]
        total = np.zeros(width) if bias is None else np.broadcast_to(bias.reshape(-1), (width,))
        return _Chain(node, node, weight, total.copy(), nodes=[node])

    def _extend(self, chain: _Chain) -> None:
        """Takes followers as long as the result has one reader and the kernel can do it."""
        while True:
            value = chain.tail.outputs[0]
            if self.uses[value] != 1 or value == self.graph.output:
                return
            follower = self.consumers[value][0]
            if id(follower) in self.taken or follower.domain or not follower.outputs:
                return
            if self.graph.shapes[follower.outputs[0]] != self.graph.shapes[value]:
                return
            if not self._absorb(chain, follower, value):
                return
            chain.tail = follower
            chain.nodes.append(follower)

    def _absorb(self, chain: _Chain, node: Node, value: str) -> bool:
        clamp = clamp_bounds(self.graph, node)
        if clamp is not None:
            chain.clamp = chain.clamp.then(*clamp)
            return True
        if chain.clamp.bounded:
            return False
        if node.op == "Add" and self._absorb_residual(chain, node, value):
            return True
        affine = self._affine(chain, node, value)
        if affine is None or (chain.residual is not None and np.any(affine[0] != 1.0)):
            return False
        scale, shift = affine
        chain.weight = chain.weight * (
            scale if chain.dense else scale.reshape((-1,) + (1,) * (chain.weight.ndim - 1))
        )
        chain.bias = chain.bias * scale + shift
        return True

    def _absorb_residual(self, chain: _Chain, node: Node, value: str) -> bool:
        other = node.inputs[1] if node.inputs[0] == value else node.inputs[0]
        if chain.dense or chain.residual is not None or other in self.graph.constants:
            return False
        if self.graph.shapes[other] != self.graph.shapes[value]:
            return False
        chain.residual = other
        return True

    def _affine(self, chain: _Chain, node: Node, value: str) -> tuple[Array, Array] | None:
        """Scale and shift per output channel that ``node`` applies to ``value``."""
        width = len(chain.bias)
        if node.op == "BatchNormalization":
            shape = self.graph.shapes[value]
            fits = node.inputs[0] == value and len(shape) >= 2 and shape[1] == width
            if chain.dense and len(shape) != 2:
                return None
            return simplify.batch_norm_affine(self.graph, node) if fits else None
        if node.op not in ("Add", "Sub", "Mul", "Div"):
            return None
        on_left = node.inputs[0] == value
        other = self.graph.constants.get(node.inputs[1] if on_left else node.inputs[0])
        if other is None or (not on_left and node.op in ("Sub", "Div")):
            return None
        per_channel = _per_channel(other, width, self.graph.shapes[value], chain.dense)
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

    def _replace(self, chain: _Chain) -> None:
        node = chain.head
        source = node.inputs[0]
        absorbed: list[Node] = []
        # A dense kernel reads rows wherever they lie: reshaping before it is not needed.
        if chain.dense:
            while (view := self._sole_producer(source, _VIEWS)) is not None:
                absorbed.append(view)
                source = view.inputs[0]
            shape = self.graph.shapes[node.inputs[0]]
            k, n = chain.weight.shape
            geometry: Geometry = Dense(int(np.prod(shape[:-1], dtype=np.int64)), k, n)
        else:
            pad = self._sole_producer(source, ("Pad",))
            extra = (0, 0) if pad is None else _zero_padding(self.graph, pad)
            if pad is not None and extra is not None:
                absorbed.append(pad)
                source = pad.inputs[0]
            geometry = conv_geometry(
                self.graph,
                node,
                self.graph.shapes[source],
                extra or (0, 0),
                pointwise_as_dense=chain.residual is None,
            )
        weight, bias = _pack(geometry, chain)
        constants = []
        for name, array in ((f"{node.name}.weight", weight), (f"{node.name}.bias", bias)):
            fresh = self.graph.fresh(name)
            self.graph.constants[fresh] = array
            self.graph.shapes[fresh], self.graph.dtypes[fresh] = array.shape, array.dtype
            constants.append(fresh)
        call = KernelCall(geometry, chain.clamp, chain.residual is not None)
        residual = [chain.residual] if chain.residual is not None else []
        inputs = [source, *constants, *residual]
        self._put(chain.tail, absorbed[::-1] + chain.nodes, node.name, call, inputs)

    def _sole_producer(self, name: str, ops: tuple[str, ...]) -> Node | None:
        node = self.producers.get(name)
        if node is None or node.op not in ops or node.domain or self.uses[name] != 1:
            return None
        return node

    def _put(
        self, tail: Node, nodes: list[Node], name: str, call: KernelCall, inputs: list[str]
    ) -> None:
        sources = tuple(dict.fromkeys(s for node in nodes for s in node.sources))
        self.replaced[id(tail)] = Node(
            nodes[0].op if len(nodes) == 1 else next(n.op for n in nodes if n.name == name),
            name,
            inputs,
            tail.outputs[:1],
            kernel=call,
            sources=sources,
        )
        self.taken.update(id(node) for node in nodes)


def clamp_bounds(graph: Graph, node: Node) -> tuple[float, float] | None:
    """Bounds of an activation that only clamps; ``None`` for anything else."""
    if node.op == "Relu":
        return 0.0, UNBOUNDED
    if node.op != "Clip":
        return None
    bounds = []
    for index, name, default in ((1, "min", -UNBOUNDED), (2, "max", UNBOUNDED)):
        tensor = node.input(index)
        if tensor is not None and tensor not in graph.constants:
            return None
        value = node.attr(name, default) if tensor is None else graph.constants[tensor].item()
        # ONNX Runtime takes a bound that is not a number as none.
        bounds.append(default if np.isnan(value) else float(value))
    return bounds[0], bounds[1]


def conv_geometry(
    graph: Graph,
    node: Node,
    source: Shape,
    extra: tuple[int, int] = (0, 0),
    *,
    pointwise_as_dense: bool = True,
) -> Geometry:
    """Which kernel a convolution takes, reading a tensor of shape ``source``.

    ``extra`` is padding at top and left from a separate operator before it.
    """
    n, ic, ih, iw = source
    oc, icg, kh, kw = graph.shapes[node.inputs[1]]
    _, _, oh, ow = graph.shapes[node.outputs[0]]
    sh, sw = node.attr("strides", (1, 1))
    dh, dw = node.attr("dilations", (1, 1))
    groups = ic // icg
    top, left = _leading_pads(graph, node, (kh, kw), (sh, sw), (dh, dw))
    pt, pl = top + extra[0], left + extra[1]
    if groups == ic == oc and groups > 1:
        return DepthwiseConv2d(n, ic, ih, iw, oh, ow, kh, kw, sh, sw, dh, dw, pt, pl)
    whole = (ih, iw, oh, ow, kh, kw, pt, pl, groups) == (1, 1, 1, 1, 1, 1, 0, 0, 1)
    if whole and pointwise_as_dense:
        return Dense(n, ic, oc)
    plain = Conv2d(n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, dh, dw, pt, pl, groups)
    return WinogradConv2d(n, ic, ih, iw, oc, oh, ow, pt, pl) if _gains(plain) else plain


def _gains(conv: Conv2d) -> bool:
    """Whether Winograd's method is faster."""
    window = (conv.kh, conv.kw, conv.sh, conv.sw, conv.dh, conv.dw, conv.groups)
    wide = min(conv.oh, conv.ow) >= _WINOGRAD_WIDTH
    # Transforms cost per channel, products per pair of channels.
    return window == (3, 3, 1, 1, 1, 1, 1) and wide and min(conv.ic, conv.oc) >= CONV_LANES


def pool_kernel(graph: Graph, node: Node) -> KernelCall | None:
    """The kernel call for a pooling operator; ``None`` if TVM compiles it."""
    source, target = node.input(0), node.outputs[0]
    if source is None or graph.dtypes.get(source) != np.float32 or any(node.outputs[1:]):
        return None
    shape = graph.shapes[source]
    if len(shape) != 4 or node.domain:
        return None
    n, c, ih, iw = shape
    if _averages_plane(graph, node, (ih, iw)):
        return KernelCall(GlobalAveragePool(n, c, ih * iw))
    if node.op == "GlobalMaxPool":
        return KernelCall(MaxPool2d(n, c, ih, iw, 1, 1, ih, iw, 1, 1, 0, 0))
    if node.op != "MaxPool" or any(d != 1 for d in node.attr("dilations", ())):
        return None
    kh, kw = node.attr("kernel_shape")
    sh, sw = node.attr("strides", (1, 1))
    pt, pl = _leading_pads(graph, node, (kh, kw), (sh, sw), (1, 1))
    _, _, oh, ow = graph.shapes[target]
    # A window that lies in the padding alone has no largest value.
    if pt >= kh or pl >= kw or pt < 0 or pl < 0:
        return None
    return KernelCall(MaxPool2d(n, c, ih, iw, oh, ow, kh, kw, sh, sw, pt, pl))


def _averages_plane(graph: Graph, node: Node, plane: tuple[int, int]) -> bool:
    if node.op == "GlobalAveragePool":
        return True
    if node.op == "AveragePool":
        return (
            tuple(node.attr("kernel_shape")) == plane
            and not any(node.attr("pads", ()))
            and node.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID")
            and all(d == 1 for d in node.attr("dilations", ()))
            and graph.shapes[node.outputs[0]][2:] == (1, 1)
        )
    if node.op != "ReduceMean":
        return False
    given = node.input(1)
    axes = node.attr("axes") if given is None else graph.constants.get(given)
    return axes is not None and sorted(int(axis) % 4 for axis in axes) == [2, 3]


def _refusal(graph: Graph, node: Node) -> Refusal:
    return _refusal_or_none(graph, node) or Refusal("no kernel takes this operator")


def _refusal_or_none(graph: Graph, node: Node) -> Refusal | None:
    """Why no kernel takes a convolution or dense layer; ``None`` if one does."""
    if node.op == "ConvTranspose":
        return Refusal("transposed convolutions have no kernel")
    if any(graph.dtypes.get(name) != np.float32 for name in node.inputs if name):
        return Refusal("the kernels compute with float32 only")
    if node.inputs[1] not in graph.constants:
        return Refusal("the weights are not constant")
    third = node.input(2)
    if third is not None and third not in graph.constants:
        return Refusal("the bias is not constant")
    source, weight = graph.shapes[node.inputs[0]], graph.shapes[node.inputs[1]]
    if node.op == "Conv":
        if len(weight) != 4:
            return Refusal(f"only 2-D convolutions have a kernel, this is {len(weight) - 2}-D")
        if any(pad < 0 for pad in node.attr("pads", ())):
            return Refusal("negative padding")
        return None
    if len(weight) != 2:
        return Refusal("the weights are not a matrix")
    if node.op == "Gemm" and node.attr("transA", 0):
        return Refusal("the input is transposed")
    if len(source) < 1 or 0 in source:
        return Refusal("the input is empty")
    width = weight[0] if node.op == "Gemm" and node.attr("transB", 0) else weight[1]
    if third is not None:
        bias = graph.constants[third]
        if bias.size not in (1, width) or (bias.size > 1 and bias.shape[-1] != width):
            return Refusal("the bias differs from row to row")
    return None


def _leading_pads(
    graph: Graph,
    node: Node,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> tuple[int, int]:
    """Padding at top and left; what is needed at bottom and right follows from the output."""
    mode = node.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = node.attr("pads", (0, 0, 0, 0))
        return int(pads[0]), int(pads[1])
    if mode == "VALID":
        return 0, 0
    before, after = graph.shapes[node.inputs[0]][2:], graph.shapes[node.outputs[0]][2:]
    leading = []
    for axis in range(2):
        reach = (after[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(reach - before[axis], 0)
        leading.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return leading[0], leading[1]


def _zero_padding(graph: Graph, node: Node) -> tuple[int, int] | None:
    """Rows above and columns to the left that a ``Pad`` adds, if zeros in the plane are all."""
    amounts, value, axes = node.input(1), node.input(2), node.input(3)
    pads = node.attr("pads") if amounts is None else graph.constants.get(amounts)
    fill = node.attr("value", 0.0) if value is None else graph.constants.get(value)
    if pads is None or fill is None or node.attr("mode", "constant") != "constant":
        return None
    if np.any(fill != 0) or axes is not None or len(pads) != 8 or min(pads) < 0:
        return None
    if any(pads[index] for index in (0, 1, 4, 5)):
        return None
    return int(pads[2]), int(pads[3])


def _per_channel(constant: Array, width: int, shape: Shape, dense: bool) -> Array | None:
    """A constant operand as one value per output channel; ``None`` if it varies otherwise."""
    if constant.size == 1:
        return np.full(width, constant.reshape(-1)[0], np.float64)
    axis = len(shape) - 1 if dense else 1
    extents = (1,) * (len(shape) - constant.ndim) + constant.shape
    expected = tuple(width if index == axis else 1 for index in range(len(shape)))
    return constant.reshape(-1).astype(np.float64) if extents == expected else None


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
