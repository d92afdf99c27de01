"""The geometry of convolutions and pools as the kernels take it, and which kernel suits it."""

from __future__ import annotations

import numpy as np

from graphlet_compiler.graph import Graph, Node, Shape
from graphlet_compiler.kernels import (
    AveragePool2d,
    Conv2d,
    DepthwiseConv2d,
    Geometry,
    GlobalAveragePool,
    KernelCall,
    MaxPool2d,
)
from graphlet_compiler.packing import CONV_LANES

# Narrower maps leave too much of their tiles empty for the transformed weights, four times the
# plain ones, to be worth reading.
_WINOGRAD_WIDTH = 13


def conv_geometry(
    graph: Graph,
    node: Node,
    source: Shape,
    extra: tuple[int, int] = (0, 0),
    *,
    pointwise_as_dense: bool = True,
) -> Geometry:
    """Which kernel a convolution takes, reading a tensor of shape ``source``.

    Where several can, the graph's tuner decides.

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
    plain = Conv2d(n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, dh, dw, pt, pl, groups)
    whole = (ih, iw, oh, ow, kh, kw, pt, pl, groups) == (1, 1, 1, 1, 1, 1, 0, 0, 1)
    dense = whole and pointwise_as_dense
    default = "dense" if dense else "winograd" if _gains(plain) else "direct"
    return graph.tuner.conv(node.name, plain, default, dense=dense)


def _gains(conv: Conv2d) -> bool:
    """Whether Winograd's method is faster."""
    window = (conv.kh, conv.kw, conv.sh, conv.sw, conv.dh, conv.dw, conv.groups)
    wide = min(conv.oh, conv.ow) >= _WINOGRAD_WIDTH
    # Transforms cost per channel, products per pair of channels.
    return window == (3, 3, 1, 1, 1, 1, 1) and wide and min(conv.ic, conv.oc) >= CONV_LANES


def pool_kernel(graph: Graph, node: Node, pad: Node | None = None) -> KernelCall | None:
    """The kernel call for a pooling operator; ``None`` if TVM compiles it.

    ``pad`` is an operator before it that the call stands for as well: zeros around the plane, which
    a maximum may take for no values at all (as padding of its own is).
    """
    source, target = node.input(0), node.outputs[0]
    extra = (0, 0)
    if pad is not None:
        zeros = zero_padding(graph, pad)
        if zeros is None or any(node.attr("pads", ())) or node.attr("ceil_mode", 0):
            return None
        if node.op not in ("MaxPool", "AveragePool") or _pads_itself(node):
            return None
        source, extra = pad.inputs[0], zeros
    if source is None or graph.dtypes.get(source) != np.float32 or any(node.outputs[1:]):
        return None
    shape = graph.shapes[source]
    if len(shape) != 4 or node.domain:
        return None
    n, c, ih, iw = shape
    if pad is None and _averages_plane(graph, node, (ih, iw)):
        return KernelCall(GlobalAveragePool(n, c, ih * iw))
    if node.op == "GlobalMaxPool":
        return KernelCall(MaxPool2d(n, c, ih, iw, 1, 1, ih, iw, 1, 1, 0, 0))
    if node.op not in ("MaxPool", "AveragePool") or any(d != 1 for d in node.attr("dilations", ())):
        return None
    kh, kw = node.attr("kernel_shape")
    sh, sw = node.attr("strides", (1, 1))
    top, left = _leading_pads(graph, node, (kh, kw), (sh, sw), (1, 1))
    pt, pl = top + extra[0], left + extra[1]
    _, _, oh, ow = graph.shapes[target]
    # A window that lies in the padding alone has no largest value, and no mean.
    if pt >= kh or pl >= kw or pt < 0 or pl < 0:
        return None
    if (oh - 1) * sh - pt >= ih or (ow - 1) * sw - pl >= iw:
        return None
    window = (n, c, ih, iw, oh, ow, kh, kw, sh, sw, pt, pl)
    if node.op == "MaxPool":
        return KernelCall(MaxPool2d(*window))
    counts_padding = int(node.attr("count_include_pad", 0)) if pad is None else 1
    if (
        pad is None
        and counts_padding
        and not _stays_in_padding(node, (ih, iw), (oh, ow), (kh, kw), (sh, sw))
    ):
        return None
    return KernelCall(AveragePool2d(*window, counts_padding))


def _pads_itself(node: Node) -> bool:
    return node.attr("auto_pad", "NOTSET") not in ("NOTSET", "", "VALID")


def _stays_in_padding(
    node: Node,
    before: tuple[int, int],
    after: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
) -> bool:
    """Whether no window of a pool reaches beyond the padding, as ``ceil_mode`` allows."""
    if _pads_itself(node):
        return True
    pads = node.attr("pads", (0, 0, 0, 0))
    return all(
        (after[axis] - 1) * strides[axis] + kernel[axis]
        <= before[axis] + pads[axis] + pads[axis + 2]
        for axis in range(2)
    )


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


def zero_padding(graph: Graph, node: Node) -> tuple[int, int] | None:
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
