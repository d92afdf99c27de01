"""The graph as a TVM module: calls of the operator library, and TVM functions for the rest."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from graphlet_compiler import tir
from graphlet_compiler.errors import Detail, UnsupportedDtypeError, UnsupportedOperatorError
from graphlet_compiler.graph import Graph, Node, Shape, subgraphs
from graphlet_compiler.lowering import clamp_bounds

# What the runtime's tensors may hold.
_DTYPES = ("float32", "int64", "int32", "uint8", "int8", "bool")

# Marks the variables that calls of known nodes are bound to.
NODE_PREFIX = "graphlet_node_"

# Operators whose result has a size that only its values decide.
_DYNAMIC = {"Compress", "NonMaxSuppression", "NonZero", "Unique", "AllClassNMS"}


def unsupported(graph: Graph) -> list[Detail]:
    """Every operator of the graph that cannot be expressed, by node."""
    known = onnx_frontend._get_convert_map()
    branching = {id(node) for node in subgraphs(graph.nodes)}
    found = []
    for node in graph.nodes:
        if node.kernel is not None:
            continue
        if id(node) in branching:
            found.append(Detail(f"`{node.name}`: {node.op} (a branch or loop)", node.name))
        elif node.domain:
            found.append(Detail(f"`{node.name}`: {node.domain}.{node.op}", node.name))
        elif node.op not in known or node.op in _DYNAMIC:
            found.append(Detail(f"`{node.name}`: {node.op}", node.name))
    return found


def check_dtypes(graph: Graph) -> None:
    """Refuses element types that the runtime does not know."""
    wrong = []
    for node in graph.nodes:
        for name in (*node.outputs, *node.inputs):
            dtype = graph.dtypes.get(name)
            if dtype is not None and str(dtype) not in _DTYPES:
                wrong.append(Detail(f"`{node.name}` ({node.op}): `{name}` is {dtype}", node.name))
                break
    output = graph.dtypes.get(graph.output)
    if output is not None and output != "float32":
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


def fuse(module: Any) -> Any:
    """Lowers what is left to TVM functions and fuses neighbours into one."""
    transform = relax.transform
    passes = (
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.DeadCodeElimination(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    )
    return tvm.transform.Sequential(passes)(module)


class _Importer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
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

    def build(self) -> Any:
        graph, bb = self.graph, self.bb
        source = relax.Var("input", self._type(graph.input))
        self.values[graph.input] = source
        for name, array in graph.constants.items():
            self.values[name] = relax.const(array)
        with bb.function("main", [source]):
            with bb.dataflow():
                for node in graph.nodes:
                    self._emit(node)
                result = bb.emit_output(self.values[graph.output])
            bb.emit_func_output(result)
        return bb.get()

    def _emit(self, node: Node) -> None:
        if node.kernel is not None:
            inputs = [self.graph.shapes[name] for name in node.inputs]
            output = self.graph.shapes[node.outputs[0]]
            key = (node.kernel, tuple(inputs), output)
            if key not in self.functions:
                function = tir.kernel_function(node.kernel, inputs, output)
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

    def _convert(self, node: Node) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = self._results(node, self._expression(node))
            self._compare(node, results)
        except Exception as error:
            # The frontend raises whatever its asserts and lookups raise.
            reason = " ".join(str(error).split()) or type(error).__name__
            self.refused.append(
                Detail(f"`{node.name}`: TVM does not take this {node.op}: {reason}", node.name)
            )
            # Stand-ins of the right shape let the rest be looked at too.
            results = [self.bb.emit(self._zeros(name)) for name in node.outputs]
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                self.values[name] = result

    def _expression(self, node: Node) -> Any:
        if (bounds := clamp_bounds(self.graph, node)) is not None and node.op == "Clip":
            lo, hi = bounds
            return relax.op.clip(self.values[node.inputs[0]], lo, hi)
        inputs = onnx_frontend.onnx_input()
        inputs.extend(self.values[name] if name else None for name in node.inputs)
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
        for name, result in zip(node.outputs, results, strict=False):
            if not name:
                continue
            shape = tuple(int(extent) for extent in result.ty.shape)
            expected = self.graph.shapes[name]
            if shape != expected or str(result.ty.dtype) != str(self.graph.dtypes[name]):
                raise ValueError(f"it would make {list(shape)} of what is {list(expected)}")

    def _call(self, node: Node, function: Any) -> None:
        arguments = [self.values[name] for name in node.inputs]
        call = relax.call_tir(function, arguments, self._type(node.outputs[0]))
        self.values[node.outputs[0]] = self.bb.emit(call, f"{NODE_PREFIX}{len(self.named)}")
        self.named.append(node)

    def _add(self, function: Any, base: str) -> Any:
        name = f"{base}_{sum(1 for known in self.functions)}"
        return self.bb.add_func(function.with_attr("global_symbol", name), name)

    def _floats(self, node: Node) -> bool:
        return all(self.graph.dtypes.get(name) == "float32" for name in node.inputs)

    def _type(self, name: str) -> Any:
        shape: Shape = self.graph.shapes[name]
        return relax.TensorType(list(shape), str(self.graph.dtypes[name]))

    def _zeros(self, name: str) -> Any:
        return relax.op.zeros(list(self.graph.shapes[name]), str(self.graph.dtypes[name]))
