"""The graph executor's description of a model: nodes, storage plan, parameters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax

from graphlet_compiler import storage
from graphlet_compiler.errors import CompileError, NoInputError
from graphlet_compiler.graph import Array, Node, Shape
from graphlet_compiler.importer import NODE_PREFIX, OUTPUT_PREFIX
from graphlet_compiler.schedule import VIEW


@dataclass(frozen=True)
class Tensor:
    """One output of one node."""

    shape: Shape
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        size = int(tvm.DataType(self.dtype).bits + 7) // 8
        for extent in self.shape:
            size *= extent
        return size


@dataclass
class GraphNode:
    """A placeholder (input or parameter) or the call of one compiled function."""

    name: str
    outputs: list[Tensor]
    function: str | None = None
    # The operator that the call stands for; TVM's fused functions stand for several.
    origin: Node | None = None
    inputs: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Memory:
    """Bytes that running the graph takes."""

    activations: int  # all storages that calls write
    peak: int  # what is needed at the fullest step: no plan can do with less
    params: int


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which storage (0 is the arena), and at which byte of it."""

    storage: int
    offset: int


@dataclass
class ExecutorGraph:
    """Calls in order, as the graph executor runs them."""

    nodes: list[GraphNode]
    heads: list[tuple[int, int]]
    params: dict[str, Array]
    # Whether inputs are set before every run, so that kernels may write to their places later.
    consumes_inputs: bool = False

    @property
    def head(self) -> tuple[int, int]:
        """The output of an image model; the first one of any other."""
        return self.heads[0]

    def plan(self) -> tuple[list[Place], list[storage.Lifetime]]:
        """Where each node's outputs lie, in order, and the lifetimes of those in the arena.

        Parameters keep a storage of their own, and so does an input that is not consumed.
        """
        lifetimes: dict[tuple[int, int], storage.Lifetime] = {}
        last = dict.fromkeys(self.heads, len(self.nodes))
        for step, node in enumerate(self.nodes):
            for entry in node.inputs:
                last[entry] = max(last.get(entry, 0), step)
        consumed = set(self.consumed())
        for step, node in enumerate(self.nodes):
            if node.function is not None or step in consumed:
                first = 0 if step in consumed else step
                for index, tensor in enumerate(node.outputs):
                    entry = (step, index)
                    lifetimes[entry] = storage.Lifetime(
                        tensor.nbytes, first, max(step, last.get(entry, step))
                    )
        offsets = storage.plan(list(lifetimes.values())).offsets
        arena = {entry: Place(0, o) for entry, o in zip(lifetimes, offsets, strict=True)}
        places: list[Place] = []
        outside = 0
        for step, node in enumerate(self.nodes):
            for index in range(len(node.outputs)):
                if (step, index) in arena:
                    places.append(arena[(step, index)])
                else:
                    outside += 1
                    places.append(Place(outside, 0))
        return places, list(lifetimes.values())

    def consumed(self) -> list[int]:
        """The inputs that need their place only until their last reader, as node numbers."""
        if not self.consumes_inputs:
            return []
        kept = {index for index, _ in self.heads} | {
            index for index, node in enumerate(self.nodes) if node.name in self.params
        }
        read = {index for node in self.nodes for index, _ in node.inputs}
        return [
            index
            for index, node in enumerate(self.nodes)
            if node.function is None and index in read - kept
        ]

    def memory(self) -> Memory:
        """How large the plan is."""
        _, lifetimes = self.plan()
        return Memory(
            storage.plan(lifetimes).total,
            storage.peak(lifetimes),
            sum(array.nbytes for array in self.params.values()),
        )

    def to_json(self) -> str:
        """The graph runtime's schema; the same graph gives the same text."""
        places, _ = self.plan()
        rows = [0]
        for node in self.nodes:
            rows.append(rows[-1] + len(node.outputs))
        entries = [tensor for node in self.nodes for tensor in node.outputs]
        consumed = [rows[index] for index in self.consumed()]
        value: dict[str, Any] = {
            "nodes": [_node_json(node) for node in self.nodes],
            "arg_nodes": [i for i, node in enumerate(self.nodes) if node.function is None],
            "heads": [[*head, 0] for head in self.heads],
            "node_row_ptr": rows,
            "attrs": {
                "storage_id": ["list_int", [place.storage for place in places]],
                "storage_offset": ["list_int", [place.offset for place in places]],
                "shape": ["list_shape", [list(tensor.shape) for tensor in entries]],
                "dltype": ["list_str", [tensor.dtype for tensor in entries]],
            },
        }
        if consumed:
            value["attrs"]["consumed"] = ["list_int", consumed]
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _node_json(node: GraphNode) -> dict[str, Any]:
    inputs = [[index, output, 0] for index, output in node.inputs]
    if node.function is None:
        return {"op": "null", "name": node.name, "inputs": inputs}
    attributes = {
        "func_name": node.function,
        "num_inputs": str(len(inputs)),
        "num_outputs": str(len(node.outputs)),
        "flatten_data": "0",
    }
    return {"op": "tvm_op", "name": node.name, "inputs": inputs, "attrs": attributes}


def from_module(module: Any, inputs: Sequence[str], named: Sequence[Node]) -> ExecutorGraph:
    """Reads the straight sequence of calls that the fused module's `main` is."""
    return _Reader(module, inputs, named).read()


class _Reader:
    def __init__(self, module: Any, inputs: Sequence[str], named: Sequence[Node]) -> None:
        self.module = module
        self.main = module["main"]
        self.named = named
        self.nodes: list[GraphNode] = []
        self.params: dict[str, Array] = {}
        self.entries: dict[Any, tuple[int, int]] = {}
        self.tuples: dict[Any, list[tuple[int, int]]] = {}
        self.constants: dict[tuple[str, Shape, bytes], tuple[int, int]] = {}
        # The executor finds inputs and parameters by name: each name stands for one node.
        self.taken = set(inputs) | {node.name for node in named}
        self.inputs = set(inputs)
        self.given: Counter[str] = Counter()
        # Tensors that are outputs of the graph in the shape that they have.
        self.fixed: set[tuple[int, int]] = set()
        for name, parameter in zip(inputs, self.main.params, strict=True):
            self.entries[parameter] = self._append(GraphNode(name, [_tensor(parameter.ty)]))

    def read(self) -> ExecutorGraph:
        bindings = [b for block in self.main.body.blocks for b in block.bindings]
        results = self._results(bindings)
        for binding in bindings:
            value = binding.value
            if isinstance(value, relax.Call) and value.op.name == "relax.call_tir":
                if not self._view(binding.var, value, binding.var in results):
                    self._call(binding.var, value)
                if binding.var in results and binding.var in self.entries:
                    self.fixed.add(self.entries[binding.var])
            elif isinstance(value, relax.TupleGetItem):
                self.entries[binding.var] = self.tuples[value.tuple_value][value.index]
            elif isinstance(value, relax.Tuple):
                self.tuples[binding.var] = [self._entry(field) for field in value.fields]
            elif isinstance(value, relax.Var | tvm.ir.GenericConst):
                self.entries[binding.var] = self._entry(value)
            else:
                raise CompileError(f"TVM left a {type(value).__name__} in the graph")
        heads = self._heads(self.main.body.body)
        if all(self.nodes[index].function is None for index, _ in heads):
            raise NoInputError("the graph computes nothing")
        return ExecutorGraph(self.nodes, heads, self.params)

    def _results(self, bindings: list[Any]) -> set[Any]:
        """The variables whose values are the graph's outputs."""
        result = self.main.body.body
        found = set(result.fields) if isinstance(result, relax.Tuple) else {result}
        for binding in reversed(bindings):
            if binding.var in found:
                if isinstance(binding.value, relax.Var):
                    found.add(binding.value)
                elif isinstance(binding.value, relax.Tuple):
                    found.update(binding.value.fields)
        return found

    def _view(self, var: Any, call: Any, is_output: bool) -> bool:
        """Lets a reshape's readers read what it reads; no function minds a tensor's shape."""
        attributes = self.module[call.args[0]].attrs
        if attributes is None or not attributes.get(VIEW, False):
            return False
        entry = self._entry(call.args[1].fields[0])
        node = self.nodes[entry[0]]
        if is_output:
            # Here the shape is seen: it is that of the only output with this value.
            if node.function is None or entry in self.fixed:
                return False
            node.outputs[entry[1]] = _tensor(var.ty)
        self.entries[var] = entry
        return True

    def _heads(self, result: Any) -> list[tuple[int, int]]:
        if isinstance(result, relax.Tuple):
            return [self._entry(field) for field in result.fields]
        if isinstance(result.ty, relax.TupleType):
            return self.tuples[result]
        return [self._entry(result)]

    def _call(self, var: Any, call: Any) -> None:
        function, arguments = call.args[0].name_hint, call.args[1].fields
        inputs = [self._entry(argument) for argument in arguments]
        several = isinstance(var.ty, relax.TupleType)
        types = list(var.ty.fields) if several else [var.ty]
        origin = self._origin(var)
        if origin is None:
            name = self._fresh(f"{function}_{len(self.nodes)}")
        elif self.given[origin.name] or origin.name in self.inputs:
            name = self._fresh(f"{origin.name}_{len(self.nodes)}")
        else:
            name = origin.name
        self.given[name] += 1
        node = GraphNode(name, [_tensor(t) for t in types], function, origin, inputs)
        index, _ = self._append(node)
        if several:
            self.tuples[var] = [(index, output) for output in range(len(types))]
        else:
            self.entries[var] = (index, 0)

    def _origin(self, var: Any) -> Node | None:
        for prefix in (NODE_PREFIX, OUTPUT_PREFIX):
            number = str(var.name).removeprefix(prefix)
            if number != var.name:
                return self.named[int(number)]
        return None

    def _entry(self, value: Any) -> tuple[int, int]:
        if not isinstance(value, tvm.ir.GenericConst):
            return self.entries[value]
        array = value.value.numpy()
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.constants:
            name = self._fresh(f"p{len(self.params)}")
            self.params[name] = array
            tensor = Tensor(tuple(array.shape), str(array.dtype))
            self.constants[key] = self._append(GraphNode(name, [tensor]))
        return self.constants[key]

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _append(self, node: GraphNode) -> tuple[int, int]:
        self.nodes.append(node)
        return len(self.nodes) - 1, 0


def _tensor(type_: Any) -> Tensor:
    return Tensor(tuple(int(extent) for extent in type_.shape), str(type_.dtype))
