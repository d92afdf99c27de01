"""Runs a compiled graph on this machine: the plain reference beside the module.

Kernels are computed with numpy from the very call that the compiled function makes, so that its
arguments and the packed weights are what is tested. TVM's own functions are built for the host.
Tensors lie where the storage plan puts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import tvm
from numpy.typing import NDArray
from numpy_kernels import KERNELS

from graphlet_compiler import (
    codegen,
    graph_json,
    importer,
    lowering,
    pipeline,
    shapes,
    simplify,
)
from graphlet_compiler.errors import UnsupportedOperatorError
from graphlet_compiler.graph import Graph
from graphlet_compiler.graph_json import ExecutorGraph
from graphlet_compiler.spec import ModelSpec
from graphlet_compiler.tensors import TensorSpec
from graphlet_compiler.tuning import Tuner

Array = NDArray[Any]


class Executor:
    """A model compiled for this machine."""

    def __init__(
        self, model: onnx.ModelProto, spec: ModelSpec | TensorSpec, tuner: Tuner | None = None
    ) -> None:
        self.graph: Graph = pipeline.open_model(spec, model, tuner)
        simplify.simplify(self.graph)
        if unsupported := importer.unsupported(self.graph):
            raise UnsupportedOperatorError.of(unsupported)
        shapes.require_static(self.graph)
        importer.check_dtypes(self.graph)
        self.refusals = lowering.lower(self.graph)
        module, named = importer.import_graph(self.graph)
        module = importer.fuse(module, self.graph)
        self.executor: ExecutorGraph = graph_json.from_module(module, self.graph.inputs, named)
        self.executor.consumes_inputs = self.graph.image
        used = {n.function for n in self.executor.nodes if n.function is not None}
        self.functions = codegen.functions(module, used)
        plain = {n: f for n, f in self.functions.items() if not _kernel_calls(f)}
        self.host = (
            tvm.tirx.build(
                tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in plain.items()}),
                tvm.target.Target("llvm"),
            )
            if plain
            else None
        )

    def run(self, *inputs: Array) -> Array:
        """The first output of one inference, in storages that are full of rubbish at first."""
        places, _ = self.executor.plan()
        entries = [t for n in self.executor.nodes for t in n.outputs]
        sizes: dict[int, int] = {}
        for place, tensor in zip(places, entries, strict=True):
            end = place.offset + tensor.nbytes
            sizes[place.storage] = max(sizes.get(place.storage, 0), end)
        memory = {storage: np.full(size, 0xFF, np.uint8) for storage, size in sizes.items()}
        rows: list[list[Array]] = []
        remaining = iter(places)
        for node in self.executor.nodes:
            tensors = []
            for tensor in node.outputs:
                place = next(remaining)
                raw = memory[place.storage][place.offset :][: tensor.nbytes]
                tensors.append(raw.view(tensor.dtype).reshape(tensor.shape))
            rows.append(tensors)
        given = dict(zip(self.graph.inputs, inputs, strict=True)) | self.executor.params
        for node, tensors in zip(self.executor.nodes, rows, strict=True):
            if node.function is None:
                tensors[0][...] = given[node.name]
                continue
            read = [rows[index][output] for index, output in node.inputs]
            calls = _kernel_calls(self.functions[node.function])
            if calls:
                _run_kernels(calls, read, tensors[0])
            else:
                assert self.host is not None
                # Views make tensors arrive in other shapes; the function takes its own.
                shapes = [[int(e) for e in p.shape] for p in self.functions[node.function].params]
                arguments = [
                    tvm.runtime.tensor(array.reshape(shape))
                    for array, shape in zip((*read, *tensors), shapes, strict=True)
                ]
                self.host[node.function](*arguments)
                for tensor, argument in zip(tensors, arguments[len(read) :], strict=True):
                    tensor[...] = argument.numpy().reshape(tensor.shape)
        index, output = self.executor.head
        return rows[index][output].copy()


def _kernel_calls(function: Any) -> list[Any]:
    """The calls of the operator library in a function, if it makes any."""
    body = function.body
    steps = body.seq if isinstance(body, tvm.tirx.SeqStmt) else [body]
    calls = [getattr(getattr(step, "condition", None), "a", None) for step in steps]
    return [call for call in calls if call is not None and "call_extern" in str(call.op)]


def _run_kernels(calls: list[Any], inputs: list[Array], output: Array) -> None:
    flat = output.reshape(-1)
    places = [_place(call) for call in calls]
    for call, first, end in zip(calls, places, [*places[1:], len(flat)], strict=True):
        _run_kernel(call, inputs, flat[first:end])


def _place(call: Any) -> int:
    """Where in the output a call writes."""
    return max(_address(argument)[1] for argument in call.args if _writes(argument))


def _writes(argument: Any) -> bool:
    return _address(argument)[0].split("_")[0] == "y"


def _address(argument: Any) -> tuple[str, int]:
    """The buffer and the element that an argument points at; an empty name if it does not."""
    text = str(argument)
    if "address_of" in text:
        load = argument.args[0]
        return str(load.source.name), int(load.indices[0])
    return (text.removesuffix(".data"), 0) if text.endswith(".data") else ("", 0)


def _run_kernel(call: Any, inputs: list[Array], output: Array) -> None:
    symbol, *arguments = call.args
    pointers: list[Array | None] = []
    numbers: list[float] = []
    for argument in arguments:
        name, begin = _address(argument)
        if _writes(argument):
            pointers.append(output)
        elif name:
            number = int(name.removesuffix("_flat").removeprefix("a"))
            pointers.append(inputs[number].reshape(-1)[begin:])
        elif "reinterpret" in str(argument):
            pointers.append(None)
        else:
            numbers.append(float(argument.value))
    assert pointers[-1] is output
    KERNELS[str(symbol.value)](pointers[:-1], numbers, output)
