"""Gives the heavy operators to the kernels of the operator library; what stays is TVM's."""

from __future__ import annotations

from dataclasses import dataclass

from graphlet_compiler import chains, simplify
from graphlet_compiler.geometry import pool_kernel
from graphlet_compiler.graph import Graph
from graphlet_compiler.rewrite import Rewrite

# Operators whose arithmetic dominates a network: one that no kernel takes runs several times
# slower and is reported.
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Refusal:
    """Why no kernel takes an operator."""

    reason: str


def lower(graph: Graph) -> dict[str, Refusal]:
    """Rewrites ``graph``; returns why each heavy operator that stays was not taken, by node."""
    rewrite = Rewrite(graph)
    # Backwards: of two convolutions that meet in an addition the later one takes it, when
    # the other's result exists already.
    for node in reversed(graph.nodes):
        if not rewrite.free(node) or node.domain or chains.take(rewrite, node):
            continue
        pool = pool_kernel(graph, node)
        if pool is not None:
            rewrite.put(node, [node], node, pool, [node.inputs[0]])
    rewrite.apply()
    simplify.split_batch_norms(graph)
    return {
        node.name: Refusal(chains.refusal(graph, node) or "no kernel takes this operator")
        for node in graph.nodes
        if node.op in HEAVY and node.kernel is None and not node.domain
    }
