"""Activations: operators that change each value by itself, as the kernels' last step."""

from __future__ import annotations

import numpy as np

from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.kernels import UNBOUNDED


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
