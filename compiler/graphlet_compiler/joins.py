"""Concatenations whose inputs are written where they belong at once, instead of being copied there.

A kernel's result is one piece of memory; so are the channels of one image behind another.
"""

from __future__ import annotations

import math

import numpy as np

from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.kernels import Activate, KernelCall


def prepare(graph: Graph) -> None:
    """Lets every input of a concatenation that kernels can write into be written by a kernel."""
    uses, producers = graph.uses(), graph.producers()
    nodes: list[Node] = []
    for node in graph.nodes:
        if _joins(graph, node):
            sources = [_written(graph, producers, uses, name) for name in node.inputs]
            if any(source is not None for source in sources):
                for index, source in enumerate(sources):
                    if source is None:
                        nodes.append(_copy(graph, node, index))
                    else:
                        node.inputs[index] = source.outputs[0]
        nodes.append(node)
    graph.nodes = nodes
    graph.prune()


def joined(graph: Graph) -> dict[str, tuple[Node, ...]]:
    """The kernel calls that write the inputs of a concatenation, by its result.

    Only where all inputs are such, and nothing else reads them.
    """
    uses, producers = graph.uses(), graph.producers()
    found = {}
    for node in graph.nodes:
        if not _joins(graph, node):
            continue
        parts = [_written(graph, producers, uses, name) for name in node.inputs]
        kernels = tuple(part for part in parts if part is not None)
        if len(kernels) == len(parts):
            found[node.outputs[0]] = kernels
    return found


def _joins(graph: Graph, node: Node) -> bool:
    """Whether a concatenation's inputs lie one behind the other in its result."""
    if node.op != "Concat" or node.kernel is not None or node.domain or len(node.inputs) < 2:
        return False
    if graph.dtypes.get(node.outputs[0]) != np.float32 or 0 in graph.shapes[node.outputs[0]]:
        return False
    shape = graph.shapes[node.outputs[0]]
    return math.prod(shape[: int(node.attr("axis")) % len(shape)]) == 1


def _written(
    graph: Graph, producers: dict[str, Node], uses: dict[str, int], name: str
) -> Node | None:
    """The kernel call that writes a tensor, which only one node reads; through reshapes."""
    node = producers.get(name)
    while node is not None and uses[name] == 1:
        if node.kernel is not None:
            return node
        if node.op != "Reshape" or node.domain:
            return None
        name = node.inputs[0]
        node = producers.get(name)
    return None


def _copy(graph: Graph, node: Node, index: int) -> Node:
    source = node.inputs[index]
    target = graph.fresh(f"{node.outputs[0]}.part{index}")
    graph.shapes[target], graph.dtypes[target] = graph.shapes[source], graph.dtypes[source]
    call = KernelCall(Activate(math.prod(graph.shapes[source])))
    node.inputs[index] = target
    return Node("Identity", node.name, [source], [target], kernel=call, sources=node.sources)
