"""Activations: operators that change each value by itself, as the kernels' last step."""

from __future__ import annotations

import numpy as np

from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.kernels import UNBOUNDED, Activation, Clamp

_CURVES = {
    "Sigmoid": Activation.SIGMOID,
    "HardSwish": Activation.HARD_SWISH,
    "Tanh": Activation.TANH,
}


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


def curve(node: Node) -> tuple[Activation, Clamp] | None:
    """Code and numbers of an activation that does more than clamp; ``None`` for anything else."""
    if node.domain:
        return None
    if node.op in _CURVES:
        return _CURVES[node.op], Clamp()
    if node.op == "Swish" and node.attr("alpha", 1.0) == 1.0:
        return Activation.SILU, Clamp()
    if node.op == "Gelu":
        exact = node.attr("approximate", "none") == "none"
        return Activation.GELU if exact else Activation.GELU_TANH, Clamp()
    if node.op == "HardSigmoid":
        slope, offset = node.attr("alpha", 0.2), node.attr("beta", 0.5)
        return Activation.HARD_SIGMOID, Clamp(float(slope), float(offset))
    return None
