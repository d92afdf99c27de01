"""What a model will cost and where it will be slow, before any build."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from graphlet_compiler import lowering, macs, onnx_facts, onnx_file, prepare, shapes, simplify
from graphlet_compiler.errors import CompileError, Detail, UnsupportedOperatorError
from graphlet_compiler.graph import Graph
from graphlet_compiler.spec import ModelSpec


def check(spec: ModelSpec, onnx: Path) -> dict[str, Any]:
    """Operators, arithmetic, what is unsupported and what falls to slow loops.

    What can be told is told even when something is unsupported; only a file or a specification
    that cannot be read at all is an error.
    """
    model = onnx_file.load(onnx)
    operators = onnx_facts.operators(model)
    graph = prepare.open_graph(onnx_file.expand(model), spec)
    simplify.simplify(graph)
    from graphlet_compiler import importer

    answer: dict[str, Any] = {
        "input": {"name": graph.input, "shape": list(spec.input.shape)},
        "output": {"name": spec.output.name or graph.declared_output, "shape": None},
        "opset": graph.opset,
        "operators": operators,
        "params": sum(array.size for array in graph.constants.values()),
    }
    unsupported = importer.unsupported(graph)
    try:
        shapes.require_static(graph)
        importer.check_dtypes(graph)
    except CompileError as error:
        # Shapes behind an unsupported operator are unknown because of it.
        if not unsupported:
            raise
        known = {detail.node for detail in unsupported}
        unsupported += [d for d in error.details if d.node not in known and d.node is not None]
        return answer | _unsupported(unsupported) | _arithmetic(None, {})
    answer["output"]["shape"] = list(graph.shapes[graph.output])
    refusals = lowering.lower(graph)
    if not unsupported:
        try:
            importer.fuse(importer.import_graph(graph)[0], graph)
        except UnsupportedOperatorError as error:
            unsupported = list(error.details)
    return answer | _unsupported(unsupported) | _arithmetic(graph, refusals)


def _unsupported(details: list[Detail]) -> dict[str, Any]:
    return {
        "unsupported": [
            {"node": d.node or "", "reason": d.message.removeprefix(f"`{d.node}`: ")}
            for d in details
        ]
    }


def _arithmetic(graph: Graph | None, refusals: dict[str, lowering.Refusal]) -> dict[str, Any]:
    if graph is None:
        return {"macs": 0, "kernels": {}, "nodes": [], "fallbacks": []}
    total = macs.total(graph)
    nodes = []
    for node in graph.nodes:
        cost = macs.of_node(graph, node)
        if cost or node.kernel is not None:
            nodes.append(
                {
                    "name": node.name,
                    "operator": node.op,
                    "kernel": node.kernel.symbol if node.kernel is not None else None,
                    "macs": cost,
                    "share": cost / total if total else 0.0,
                }
            )
    kernels = Counter(node.kernel.symbol for node in graph.nodes if node.kernel is not None)
    return {
        "macs": total,
        "kernels": dict(sorted(kernels.items())),
        "nodes": nodes,
        "fallbacks": [fallback.as_json() for fallback in macs.fallbacks(graph, refusals)],
    }
