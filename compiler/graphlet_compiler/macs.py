"""How much arithmetic each operator costs, counted in pairs of multiplication and addition."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.lowering import HEAVY, Refusal


@dataclass(frozen=True)
class Fallback:
    """A heavy operator that no kernel takes: it runs in TVM's plain loops."""

    node: str
    operator: str
    macs: int
    share: float
    reason: str

    def as_json(self) -> dict[str, str | int | float]:
        """The fields of the event and of the report."""
        return {
            "node": self.node,
            "operator": self.operator,
            "macs": self.macs,
            "share": self.share,
            "reason": self.reason,
        }


def of_node(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of one node; 0 for what only moves, adds or compares."""
    if node.kernel is not None:
        return node.kernel.geometry.macs
    if node.op not in HEAVY or node.domain:
        return 0
    source = graph.shapes[node.inputs[0]]
    weight = graph.shapes[node.inputs[1]]
    target = graph.shapes[node.outputs[0]]
    if node.op == "Conv":
        return math.prod(target) * math.prod(weight[1:])
    if node.op == "ConvTranspose":
        return math.prod(source) * math.prod(weight[1:])
    if node.op == "Gemm":
        return math.prod(target) * (source[0] if node.attr("transA", 0) else source[1])
    return math.prod(target) * source[-1]


def total(graph: Graph) -> int:
    """Multiply-accumulates of the whole graph."""
    return sum(of_node(graph, node) for node in graph.nodes)


def fallbacks(graph: Graph, refusals: dict[str, Refusal]) -> list[Fallback]:
    """What runs in slow loops, the heaviest first."""
    everything = total(graph)
    found = []
    for node in graph.nodes:
        if node.kernel is None and node.name in refusals and node.op in HEAVY:
            cost = of_node(graph, node)
            share = cost / everything if everything else 0.0
            found.append(Fallback(node.name, node.op, cost, share, refusals[node.name].reason))
    return sorted(found, key=lambda fallback: (-fallback.macs, fallback.node))
