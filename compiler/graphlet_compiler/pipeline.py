"""The compilation from file to artifacts, phase by phase."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphlet_compiler import (
    __version__,
    artifacts,
    lowering,
    macs,
    onnx_facts,
    onnx_file,
    prepare,
    shapes,
    simplify,
    tensors,
)
from graphlet_compiler.archive import archive
from graphlet_compiler.errors import UnsupportedOperatorError
from graphlet_compiler.events import Events
from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.macs import Fallback
from graphlet_compiler.spec import ModelSpec, Simd
from graphlet_compiler.tensors import TensorSpec
from graphlet_compiler.tuning import Tuner

if TYPE_CHECKING:
    import onnx

    from graphlet_compiler.graph_json import ExecutorGraph

_PHASES = ("load", "simplify", "lower", "import", "fuse", "build", "write")


@dataclass(frozen=True)
class Compiled:
    """Everything that one compilation makes, in memory."""

    files: dict[str, bytes]
    report: dict[str, Any]


def compile_to(
    spec: ModelSpec | TensorSpec,
    onnx: Path,
    out: Path,
    events: Events,
    simd: Simd | None = None,
    tuner: Tuner | None = None,
) -> None:
    """Compiles the model and writes the artifacts into ``out``."""
    events.plan(len(_PHASES))
    spec = spec if simd is None else replace(spec, simd=simd)
    compiled = compile_model(spec, onnx, events, tuner)
    events.phase("write")
    artifacts.write(out, compiled.files)
    report = compiled.report
    summary = ("input", "output", "macs", "activation_bytes", "param_bytes", "object_bytes")
    events.emit({"event": "done"} | {key: report[key] for key in summary})


def compile_model(
    spec: ModelSpec | TensorSpec, onnx: Path, events: Events, tuner: Tuner | None = None
) -> Compiled:
    """Compiles the model; the same input and choices give the same bytes."""
    events.phase("load")
    return compile_loaded(spec, onnx_file.load(onnx), events, tuner)


def compile_loaded(
    spec: ModelSpec | TensorSpec,
    model: onnx.ModelProto,
    events: Events,
    tuner: Tuner | None = None,
) -> Compiled:
    """The same for a model that was read and checked already."""
    operators = onnx_facts.operators(model)
    graph = open_model(spec, model, tuner)
    del model  # The weights live on as arrays.
    opened = import_opened(graph, events)
    from graphlet_compiler import codegen, graph_json, importer

    events.phase("fuse")
    module = importer.fuse(opened.module, graph)
    executor = graph_json.from_module(module, graph.inputs, opened.named)
    # A picture is put into the input for every request.
    executor.consumes_inputs = graph.image
    used = {node.function for node in executor.nodes if node.function is not None}

    events.phase("build")
    built = codegen.build_object(codegen.functions(module, used), spec.simd)
    files = {
        "graph.json": executor.to_json().encode(),
        "graph.params": codegen.params_bytes(executor.params),
        "graph.o": built,
        "libgraph_wasm32.a": archive("graph.o", built),
    }
    report = _report(spec, graph, executor, operators, opened.fallbacks, len(used), len(built))
    files["report.json"] = (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode()
    return Compiled(files, report)


@dataclass(frozen=True)
class Imported:
    """A model as a TVM module, before anything is built."""

    fallbacks: list[Fallback]
    module: Any
    # The nodes that calls of known functions stand for.
    named: list[Node]


def open_model(
    spec: ModelSpec | TensorSpec, model: onnx.ModelProto, tuner: Tuner | None = None
) -> Graph:
    """The compiler's own view of a model that was read and checked."""
    expanded = onnx_file.expand(model)
    if isinstance(spec, TensorSpec):
        graph = tensors.open_graph(expanded, spec)
    else:
        graph = prepare.open_graph(expanded, spec)
    graph.tuner = tuner or Tuner()
    return graph


def import_opened(graph: Graph, events: Events) -> Imported:
    """The first half of a compilation, in which most of what is unsupported is refused."""
    events.phase("simplify")
    simplify.simplify(graph)
    # TVM takes more than a second to import: not before the file has turned out to be sound.
    from graphlet_compiler import importer

    if unsupported := importer.unsupported(graph):
        raise UnsupportedOperatorError.of(unsupported)
    shapes.require_static(graph)
    importer.check_dtypes(graph)

    events.phase("lower")
    refusals = lowering.lower(graph)
    fallbacks = macs.fallbacks(graph, refusals)
    for fallback in fallbacks:
        events.emit({"event": "fallback"} | fallback.as_json())

    events.phase("import")
    module, named = importer.import_graph(graph)
    return Imported(fallbacks, module, named)


def versions() -> dict[str, str]:
    """What made the artifacts: two compilations are comparable only if these agree."""
    tools = {name: version(name) for name in ("apache-tvm", "onnx", "numpy")}
    return {"graphlet-compiler": __version__, **tools, "python": platform.python_version()}


def _report(
    spec: ModelSpec | TensorSpec,
    graph: Graph,
    executor: ExecutorGraph,
    operators: dict[str, int],
    fallbacks: list[Fallback],
    functions: int,
    object_bytes: int,
) -> dict[str, Any]:
    memory = executor.memory()
    inputs = [_tensor_json(graph, name, name) for name in graph.inputs]
    outputs = [
        _tensor_json(graph, name, declared)
        for name, declared in zip(graph.outputs, graph.declared_outputs, strict=True)
    ]
    return {
        "model": {"name": spec.name, "version": spec.version},
        "input": inputs[0] if inputs else None,
        "output": outputs[0],
        "inputs": inputs,
        "outputs": outputs,
        "simd": spec.simd.value,
        "opset": graph.opset,
        "operators": operators,
        "macs": macs.total(graph),
        "activation_bytes": memory.activations,
        "peak_bytes": memory.peak,
        "param_bytes": memory.params,
        "functions": functions,
        "object_bytes": object_bytes,
        "fallbacks": [fallback.as_json() for fallback in fallbacks],
        "nodes": [
            _call_json(node) | {"layers": _layers(node, graph.tuner)}
            for node in executor.nodes
            if node.function is not None
        ],
        "tuning": graph.tuner.as_json(),
        "versions": versions(),
    }


def _tensor_json(graph: Graph, name: str, declared: str) -> dict[str, Any]:
    return {"name": declared, "shape": list(graph.shapes[name]), "dtype": str(graph.dtypes[name])}


def _layers(node: Any, tuner: Tuner) -> list[str]:
    """The layers that a call computes, as far as there is something to choose."""
    origin = node.origin
    names = [] if origin is None else [part.name for part in origin.parts or (origin,)]
    found = [tuner.of_node.get(name) for name in names] + [tuner.of_function.get(node.function)]
    return sorted({layer for layer in found if layer is not None})


def _call_json(node: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": node.name,
        "function": node.function,
        "kernel": None,
        "macs": 0,
        "shape": [list(tensor.shape) for tensor in node.outputs],
        "bytes": sum(tensor.nbytes for tensor in node.outputs),
    }
    if node.origin is not None:
        value["onnx_nodes"] = list(node.origin.sources)
        if node.origin.kernel is not None:
            value["kernel"] = node.origin.kernel.symbol
            value["macs"] = node.origin.kernel.geometry.macs
            value["call"] = node.origin.kernel.describe()
        if node.origin.parts:
            calls = [part.kernel for part in node.origin.parts]
            value["kernel"] = " ".join(call.symbol for call in calls)
            value["macs"] = sum(call.geometry.macs for call in calls)
            value["calls"] = [call.describe() for call in calls]
    return value
