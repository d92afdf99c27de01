"""What rewriting needs: who reads and writes each tensor, and which calls take whose place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.kernels import KernelCall


class Rewrite:
    """Replaces nodes by kernel calls, all at once in the end."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.uses: Counter[str] = graph.uses()
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self.replaced: dict[int, Node] = {}  # by the id of the last node of what a call replaces
        self.taken: set[int] = set()

    def free(self, node: Node) -> bool:
        """Whether no call has taken the node yet."""
        return id(node) not in self.taken

    def sole_producer(self, name: str, ops: tuple[str, ...]) -> Node | None:
        """The node that writes ``name``, if it is one of ``ops`` and has no other reader."""
        node = self.producers.get(name)
        if node is None or node.op not in ops or node.domain or self.uses[name] != 1:
            return None
        return node

    def sole_reader(self, node: Node) -> Node | None:
        """The node that reads ``node``'s result, if it is the only one and not taken."""
        value = node.outputs[0]
        if self.uses[value] != 1 or value in self.graph.outputs:
            return None
        reader = self.consumers[value][0]
        return None if not self.free(reader) or reader.domain or not reader.outputs else reader

    def put(
        self,
        tail: Node,
        nodes: Sequence[Node],
        head: Node,
        call: KernelCall,
        inputs: list[str],
    ) -> None:
        """Lets ``call`` compute ``tail``'s result in place of ``nodes``, under ``head``'s name."""
        sources = tuple(dict.fromkeys(s for node in nodes for s in node.sources))
        self.replaced[id(tail)] = Node(
            head.op, head.name, inputs, tail.outputs[:1], kernel=call, sources=sources
        )
        self.taken.update(id(node) for node in nodes)

    def apply(self) -> None:
        """Puts the calls where the last nodes of what they replace were."""
        nodes = []
        for node in self.graph.nodes:
            if id(node) in self.replaced:
                nodes.append(self.replaced[id(node)])
            elif self.free(node):
                nodes.append(node)
        self.graph.nodes = nodes
        self.graph.prune()
