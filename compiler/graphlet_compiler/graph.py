"""The compiler's own view of a model: operators in order, constants as arrays, shapes known.

Weights stay out of the protobuf messages, so that models of any size can be rewritten and
shape-inferred without serialising them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from graphlet_compiler.kernels import KernelCall
from graphlet_compiler.tuning import Tuner

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass
class Node:
    """One operator of the graph.

    ``kernel`` is set once the operator, with what was fused into it, has become a call of the
    operator library; ``sources`` then lists the ONNX nodes it stands for.
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, onnx.AttributeProto] = field(default_factory=dict)
    domain: str = ""
    kernel: KernelCall | None = None
    sources: tuple[str, ...] = ()
    # Where in an input the values begin that a kernel reads, in elements, by the input's index.
    offsets: dict[int, int] = field(default_factory=dict)
    # Calls whose results this one lays side by side, made together with it.
    parts: tuple[Node, ...] = ()

    def attr(self, name: str, default: Any = None) -> Any:
        """Value of an attribute; strings arrive as ``str``."""
        proto = self.attributes.get(name)
        if proto is None:
            return default
        value = onnx.helper.get_attribute_value(proto)
        return value.decode() if isinstance(value, bytes) else value

    def set_attr(self, name: str, value: Any) -> None:
        """Sets an attribute."""
        self.attributes[name] = onnx.helper.make_attribute(name, value)

    def input(self, index: int) -> str | None:
        """Name of an input; ``None`` if it was left out."""
        return self.inputs[index] or None if index < len(self.inputs) else None

    def proto(self) -> onnx.NodeProto:
        """The node as ONNX writes it."""
        node = onnx.helper.make_node(
            self.op, self.inputs, self.outputs, name=self.name, domain=self.domain
        )
        node.attribute.extend(self.attributes.values())
        return node


@dataclass
class Graph:
    """A model: an image model has one input and one output, both ``float32``."""

    nodes: list[Node]
    constants: dict[str, Array]
    inputs: list[str]
    outputs: list[str]
    opset: int
    opsets: dict[str, int]
    ir_version: int
    # What the file calls the outputs; rewriting may let other tensors take their place.
    declared_outputs: list[str] = field(default_factory=list)
    # Whether it reads a picture; otherwise tensors of any type and number go in and come out.
    image: bool = True
    # Decides where a layer can be computed in several ways.
    tuner: Tuner = field(default_factory=Tuner)
    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)

    @property
    def input(self) -> str:
        """The input of an image model; the first one of any other."""
        return self.inputs[0] if self.inputs else ""

    @property
    def output(self) -> str:
        """The output of an image model; the first one of any other."""
        return self.outputs[0] if self.outputs else ""

    @property
    def declared_output(self) -> str:
        """What the file calls the output of an image model."""
        return self.declared_outputs[0] if self.declared_outputs else ""

    def uses(self) -> Counter[str]:
        """How often each tensor is read; an output of the graph counts as one reader."""
        count = Counter(name for node in self.nodes for name in node.inputs if name)
        count.update(name for node in subgraphs(self.nodes) for name in captured(node))
        count.update(self.outputs)
        return count

    def producers(self) -> dict[str, Node]:
        """Which node writes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def consumers(self) -> dict[str, list[Node]]:
        """Which nodes read each tensor."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                if name:
                    readers.setdefault(name, []).append(node)
        return readers

    def rename(self, old: str, new: str) -> None:
        """Lets every reader of ``old`` read ``new``."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
            for body in bodies(node.attributes.values()):
                for inner in body.node:
                    rename(inner, {old: new})
        self.outputs = [new if name == old else name for name in self.outputs]

    def prune(self) -> None:
        """Drops nodes and constants that no output depends on."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(name for name in node.inputs if name)
                needed.update(captured(node))
        self.nodes = kept[::-1]
        self.constants = {name: a for name, a in self.constants.items() if name in needed}

    def fresh(self, base: str) -> str:
        """A tensor name that is not taken."""
        taken = set(self.constants) | set(self.inputs) | self.producers().keys()
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        return name

    def add_constant(self, base: str, array: Array) -> str:
        """Adds a constant and gives the name that it got."""
        name = self.fresh(base)
        self.constants[name] = array
        self.shapes[name], self.dtypes[name] = array.shape, array.dtype
        return name


class Names:
    """Gives names that no tensor has, while a graph is being rewritten.

    What is written in one pass shares one of these: until the pass is over the graph does not know
    the new names.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._taken: set[str] | None = None

    def fresh(self, base: str) -> str:
        """A name, ``base`` if it is free."""
        if self._taken is None:
            graph = self._graph
            self._taken = set(graph.constants) | set(graph.inputs) | graph.producers().keys()
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    def constant(self, base: str, array: Array) -> str:
        """Adds a constant to the graph and gives the name that it got."""
        name = self.fresh(base)
        self._graph.constants[name] = array
        self._graph.shapes[name], self._graph.dtypes[name] = array.shape, array.dtype
        return name


def read_node(proto: onnx.NodeProto) -> Node:
    """An operator as the file has it."""
    name = proto.name or f"{proto.op_type}:{next(iter(proto.output), '')}"
    return Node(
        op=proto.op_type,
        name=name,
        inputs=list(proto.input),
        outputs=list(proto.output),
        attributes={a.name: a for a in proto.attribute},
        domain="" if proto.domain == "ai.onnx" else proto.domain,
        sources=(name,),
    )


def bodies(attributes: Iterable[onnx.AttributeProto]) -> list[onnx.GraphProto]:
    """The graphs among attributes: what a branch or loop consists of."""
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    found = [a for a in attributes if a.type in kinds]
    return [body for a in found for body in ((a.g,) if a.type == kinds[0] else a.graphs)]


def captured(node: Node) -> set[str]:
    """What the bodies of a branch or loop read beyond their own tensors."""
    return set().union(*(_captured(body) for body in bodies(node.attributes.values())))


def _captured(body: onnx.GraphProto) -> set[str]:
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    read = {value.name for value in body.output}
    for proto in body.node:
        own.update(proto.output)
        read.update(proto.input)
        for inner in bodies(proto.attribute):
            read |= _captured(inner)
    return read - own - {""}


def rename(proto: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Gives tensors of an operator other names, in the bodies that it has as well.

    ONNX lets no name of a body stand for two things.
    """
    for field_ in (proto.input, proto.output):
        for index, name in enumerate(field_):
            field_[index] = names.get(name, name)
    for body in bodies(proto.attribute):
        for inner in body.node:
            rename(inner, names)
        for value in body.output:
            value.name = names.get(value.name, value.name)


def subgraphs(nodes: Iterable[Node]) -> list[Node]:
    """Nodes with a graph of their own: branches and loops."""
    return [node for node in nodes if bodies(node.attributes.values())]
