"""The graph as a TVM module: calls of the operator library, and TVM functions for the rest."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from graphlet_compiler import joins, resampling, schedule, te_operators, tir
from graphlet_compiler.activations import clamp_bounds
from graphlet_compiler.errors import Detail, UnsupportedDtypeError, UnsupportedOperatorError
from graphlet_compiler.graph import Graph, Node, subgraphs

# What the runtime's tensors may hold.
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_DTYPES = (*_FLOATS, *_INTEGERS, "bool")

# TVM's messages can be pages long: the first line says what is wrong, programs follow.
_MAX_REASON = 200
# How TVM begins what a check of its own says; only what follows is for others.
_CHECK = re.compile(r"^Check failed:? *(\(.*?\) *)?(is false)?:? *")

# Marks the variables that calls of known nodes are bound to.
NODE_PREFIX = "graphlet_node_"
# The same for the graph's output, which is bound once more.
OUTPUT_PREFIX = "graphlet_output_"

# Operators whose result has a size that only its values decide.
_DYNAMIC = {"Compress", "NonMaxSuppression", "NonZero", "Unique", "AllClassNMS"}


_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def unsupported(graph: Graph) -> list[Detail]:
    """Every operator of the graph that cannot be expressed, by node."""
    known = onnx_frontend._get_convert_map()
    branching = {id(node) for node in subgraphs(graph.nodes)}
    found = []
    for node in graph.nodes:
        reason: str | None = None
        if id(node) in branching:
            reason = "a branch or loop"
        elif node.domain:
            reason = f"from the domain {node.domain}"
        elif node.op in _RANDOM:
            reason = "its result is random"
        elif node.op not in known and not te_operators.known(node):
            reason = "TVM does not know it"
        elif node.op in _DYNAMIC:
            reason = "the size of its result depends on values"
        elif (wrong := _WRONG.get(node.op)) is not None:
            reason = wrong(graph, node)
        if reason is not None:
            operator = f"{node.domain}.{node.op}" if node.domain else node.op
            found.append(Detail(f"`{node.name}`: {operator} ({reason})", node.name))
    return found


def _wrong_resize(graph: Graph, node: Node) -> str | None:
    return resampling.refusal(graph, node)


def _training(graph: Graph, node: Node) -> str | None:
    switch = node.input(2) if node.op == "Dropout" else None
    active = node.attr("training_mode", 0)
    if switch is not None:
        active = np.any(graph.constants.get(switch, np.ones(1)))
    return "in training mode" if active else None


# What TVM's importer takes but computes wrongly; found with ONNX's own node data.
_WRONG: dict[str, Callable[[Graph, Node], str | None]] = {
    "BatchNormalization": _training,
    "Dropout": _training,
    "Resize": _wrong_resize,
    "Upsample": _wrong_resize,
}


def check_dtypes(graph: Graph) -> None:
    """Refuses element types that the runtime does not know."""
    wrong = []
    for node in graph.nodes:
        for name in (*node.outputs, *node.inputs):
            dtype = graph.dtypes.get(name)
            if dtype is not None and str(dtype) not in _DTYPES:
                wrong.append(
                    Detail(
                        f"`{node.name}`: {node.op} of {dtype} (tensors have no such type)",
                        node.name,
                    )
                )
                break
    output = graph.dtypes.get(graph.output)
    if graph.image and output is not None and output != "float32":
        wrong.append(Detail(f"the output `{graph.output}` is {output}, not float32"))
    if wrong:
        raise UnsupportedDtypeError.of(wrong)


def import_graph(graph: Graph) -> tuple[Any, list[Node]]:
    """Builds a Relax module whose function `main` computes the graph.

    Calls that TVM will not touch bind variables named `graphlet_node_0` and so on; the
    list gives the node that each stands for. Every operator that TVM refuses is reported, not
    only the first.
    """
    importer = _Importer(graph)
    module = importer.build()
    if importer.refused:
        raise UnsupportedOperatorError.of(importer.refused)
    return module, importer.named


def fuse(module: Any, graph: Graph) -> Any:
    """Lowers what is left to TVM functions and fuses neighbours into one."""
    try:
        return _fuse(module, graph)
    except Exception as error:
        # TVM says what it could not lower, but not which node that came from.
        if blamed := _blame(graph):
            raise UnsupportedOperatorError.of(blamed) from error
        raise


def _fuse(module: Any, graph: Graph) -> Any:
    transform = relax.transform
    module = transform.LegalizeOps()(module)
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and value.op.name != "relax.call_tir":
                raise NotImplementedError(f"TVM has no compiled form of {value.op.name}")
    passes = (
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.DeadCodeElimination(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    )
    module = schedule.mark_views(tvm.transform.Sequential(passes)(module))
    return schedule.schedule(module, graph.tuner)


def _blame(graph: Graph) -> list[Detail]:
    """Lowers each node alone and reports those that fail."""
    found = []
    for node in graph.nodes:
        if node.kernel is not None:
            continue
        variable = next((i for i in node.inputs if i and i not in graph.constants), None)
        if variable is None:
            continue
        alone = replace(graph, nodes=[node], inputs=[variable], outputs=node.outputs[:1])
        alone.constants = {
            name: graph.constants[name]
            if name in graph.constants
            else np.zeros(graph.shapes[name], graph.dtypes[name])
            for name in node.inputs
            if name and name != variable
        }
        try:
            _fuse(import_graph(alone)[0], alone)
        except Exception as error:
            found.append(refusal(node, error))
    return found


def refusal(node: Node, error: Exception) -> Detail:
    """What TVM says of a node that it does not take, in one sentence."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    reason = _CHECK.sub("", first) or first or type(error).__name__
    if len(reason) > _MAX_REASON:
        reason = reason[:_MAX_REASON].rsplit(" ", 1)[0] + " …"
    return Detail(f"`{node.name}`: TVM does not take this {node.op}: {reason}", node.name)


class _Importer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.read = graph.uses()
        self.refused: list[Detail] = []
        # The frontend is driven node by node, so that a failure has the node's name and
        # constants never go through protobuf.
        self.frontend = onnx_frontend.ONNXGraphImporter({}, "float32")
        self.frontend.opset = graph.opset
        self.bb = self.frontend.bb
        self.values: dict[str, Any] = self.frontend._nodes
        self.functions: dict[Any, Any] = {}
        # Nodes that reach the executor's graph one to one, in the order of their numbers.
        self.named: list[Node] = []
        self.numbers: dict[str, int] = {}
        # Kernels that write straight into a concatenation, by the names of both results.
        self.joined = joins.joined(graph)
        self.deferred = {part.outputs[0] for parts in self.joined.values() for part in parts}

    def build(self) -> Any:
        graph, bb = self.graph, self.bb
        sources = [relax.Var(f"input_{i}", self._type(n)) for i, n in enumerate(graph.inputs)]
        self.values.update(zip(graph.inputs, sources, strict=True))
        for name, array in graph.constants.items():
            # Without the type it would make float32 of float64.
            self.values[name] = relax.const(array, str(array.dtype))
        with bb.function("main", sources):
            with bb.dataflow():
                for node in graph.nodes:
                    self._emit(node)
                results = [self._output(name) for name in graph.outputs]
            bb.emit_func_output(results[0] if len(results) == 1 else results)
        return bb.get()

    def _output(self, name: str) -> Any:
        number = self.numbers.get(name)
        hint = "" if number is None else f"{OUTPUT_PREFIX}{number}"
        return self.bb.emit_output(self.values[name], hint)

    def _emit(self, node: Node) -> None:
        if node.outputs[0] in self.deferred:
            return
        if (parts := self.joined.get(node.outputs[0])) is not None:
            self._join(node, parts)
        elif node.kernel is not None:
            sources = self._sources(node)
            kind = self._kind(node.outputs[0])
            key = (node.kernel, sources, kind)
            if key not in self.functions:
                function = tir.kernel_function(node.kernel, sources, kind)
                self.functions[key] = self._add(function, node.kernel.symbol.removesuffix("_f32"))
            self._call(node, self.functions[key])
        elif node.op == "Concat" and self._floats(node):
            inputs = [self.graph.shapes[name] for name in node.inputs]
            axis = int(node.attr("axis")) % len(inputs[0])
            output = self.graph.shapes[node.outputs[0]]
            concat = ("concat", tuple(inputs), axis)
            if concat not in self.functions:
                function = tir.concat_function(inputs, axis, output)
                self.functions[concat] = self._add(function, "graphlet_concat")
            self._call(node, self.functions[concat])
        else:
            self._convert(node)

    def _join(self, node: Node, parts: tuple[Node, ...]) -> None:
        shapes = self.graph.shapes
        calls = [(part.kernel, self._sources(part)) for part in parts if part.kernel]
        key = ("join", *calls)
        if key not in self.functions:
            sizes = [math.prod(shapes[part.outputs[0]]) for part in parts]
            function = tir.kernels_function(calls, sizes, self._kind(node.outputs[0]))
            self.functions[key] = self._add(function, "graphlet_join")
        sources = tuple(dict.fromkeys(s for n in (*parts, node) for s in n.sources))
        inputs = [name for part in parts for name in part.inputs]
        self._call(replace(node, inputs=inputs, sources=sources, parts=parts), self.functions[key])

    def _sources(self, node: Node) -> tuple[tir.Source, ...]:
        """What a kernel call reads."""
        return tuple((self._kind(n), node.offsets.get(i, 0)) for i, n in enumerate(node.inputs))

    def _convert(self, node: Node) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = self._results(node, self._expression(node))
            self._compare(node, results)
        except Exception as error:
            # The frontend raises whatever its asserts and lookups raise.
            self.refused.append(refusal(node, error))
            # Stand-ins of the right shape let the rest be looked at too.
            results = [self.bb.emit(self._zeros(name)) if name else None for name in node.outputs]
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                self.values[name] = result

    def _expression(self, node: Node) -> Any:
        if (bounds := clamp_bounds(self.graph, node)) is not None and node.op == "Clip":
            # Crossed bounds mean the upper one.
            return relax.op.clip(self.values[node.inputs[0]], min(bounds), bounds[1])
        values = [self.values[name] if name else None for name in node.inputs]
        own = te_operators.compute(self.graph, node, self.bb, values)
        if own is not None:
            return own
        inputs = onnx_frontend.onnx_input()
        inputs.extend(values)
        attributes = self.frontend._parse_attr(node.attributes.values())
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
        return self.frontend._convert_operator(node.op, inputs, attributes, self.graph.opset)

    def _results(self, node: Node, value: Any) -> Sequence[Any]:
        if not isinstance(value, relax.Tuple):
            value = self.bb.emit(value)
            if not isinstance(value.ty, relax.TupleType):
                return [value]
            return [
                self.bb.emit(relax.TupleGetItem(value, index))
                for index in range(len(value.ty.fields))
            ]
        return [self.bb.emit(field) for field in value.fields]

    def _compare(self, node: Node, results: Sequence[Any]) -> None:
        """TVM and ONNX have to agree on every shape: a wrong guess would compute nonsense."""
        for name in node.outputs[len(results) :]:
            if name in self.read:
                raise ValueError(f"it computes no output `{name}`")
        for name, result in zip(node.outputs, results, strict=False):
            if name not in self.read:
                continue
            shape = tuple(int(extent) for extent in result.ty.shape)
            expected = self.graph.shapes[name]
            if shape != expected or str(result.ty.dtype) != str(self.graph.dtypes[name]):
                raise ValueError(f"it would make {list(shape)} of what is {list(expected)}")

    def _call(self, node: Node, function: Any) -> None:
        arguments = [self.values[name] for name in node.inputs]
        call = relax.call_tir(function, arguments, self._type(node.outputs[0]))
        self.values[node.outputs[0]] = self.bb.emit(call, f"{NODE_PREFIX}{len(self.named)}")
        self.numbers[node.outputs[0]] = len(self.named)
        self.named.append(node)

    def _add(self, function: Any, base: str) -> Any:
        name = f"{base}_{sum(1 for known in self.functions)}"
        return self.bb.add_func(function.with_attr("global_symbol", name), name)

    def _floats(self, node: Node) -> bool:
        return all(self.graph.dtypes.get(name) == "float32" for name in node.inputs)

    def _kind(self, name: str) -> tir.Kind:
        return self.graph.shapes[name], str(self.graph.dtypes[name])

    def _type(self, name: str) -> Any:
        shape, dtype = self._kind(name)
        return relax.TensorType(list(shape), dtype)

    def _zeros(self, name: str) -> Any:
        return relax.op.zeros(list(self.graph.shapes[name]), str(self.graph.dtypes[name]))
