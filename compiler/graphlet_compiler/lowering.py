"""Gives the heavy operators to the kernels of the operator library; what stays is TVM's."""

from __future__ import annotations

from dataclasses import dataclass

from graphlet_compiler import chains, elements, joins, patterns, simplify, values, views
from graphlet_compiler.activations import clamp_bounds
from graphlet_compiler.geometry import pool_kernel
from graphlet_compiler.graph import Graph, Node
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
    patterns.recognise(graph)
    views.canonicalise(graph)
    rewrite = Rewrite(graph)
    # Backwards: of two convolutions that meet in an addition the later one takes it, when
    # the other's result exists already.
    for node in reversed(graph.nodes):
        if rewrite.free(node) and not node.domain:
            chains.take(rewrite, node)
    for node in reversed(graph.nodes):
        if not rewrite.free(node) or node.domain:
            continue
        if not values.take(rewrite, node) and not elements.take(rewrite, node):
            _take_pool(rewrite, node)
    rewrite.apply()
    elements.take_alone(graph)
    joins.prepare(graph)
    views.resolve(graph)
    simplify.split_batch_norms(graph)
    return {
        node.name: Refusal(_reason(graph, node))
        for node in graph.nodes
        if node.op in HEAVY and node.kernel is None and not node.domain
    }


def _take_pool(rewrite: Rewrite, node: Node) -> None:
    """Replaces a pool, with padding before it if that may be."""
    graph = rewrite.graph
    pad = rewrite.sole_producer(node.inputs[0], ("Pad",)) if node.inputs else None
    if pad is not None and (node.op == "AveragePool" or _never_negative(rewrite, pad.inputs[0])):
        pool = pool_kernel(graph, node, pad)
        if pool is not None:
            rewrite.put(node, [pad, node], node, pool, pad.inputs[:1])
            return
    pool = pool_kernel(graph, node)
    if pool is not None:
        rewrite.put(node, [node], node, pool, node.inputs[:1])


def _never_negative(rewrite: Rewrite, name: str) -> bool:
    node = rewrite.producers.get(name)
    bounds = None if node is None or node.domain else clamp_bounds(rewrite.graph, node)
    return bounds is not None and bounds[0] >= 0


def _reason(graph: Graph, node: Node) -> str:
    reason = chains.refusal(graph, node)
    if node.op == "MatMul" and node.inputs[1] not in graph.constants:
        reason = values.refusal(graph, node)
    return reason or "no kernel takes this operator"
