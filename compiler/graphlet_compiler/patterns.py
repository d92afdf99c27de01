"""Finds operators that exporters write as chains of simpler ones, and writes them as one again.

Activations are found by what they compute, not by how they are spelled: the arithmetic around an
``Erf``, ``Tanh``, ``Sigmoid`` or ``Clip`` is multiplied out to a polynomial and compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from graphlet_compiler.activations import clamp_bounds
from graphlet_compiler.graph import Array, Graph, Node

# Constants that exporters round differently are equal up to this share.
_TOLERANCE = 1e-4

# More terms than any activation has.
_MAX_TERMS = 6

# A sum of products of tensors: the names of a product's factors, sorted, and its coefficient.
_Terms = dict[tuple[str, ...], float]

# https://arxiv.org/abs/1606.08415, section 2: the exact form and its approximation by tanh.
_ERF_ARGUMENT = {1: math.sqrt(0.5)}
_TANH_ARGUMENT = {1: math.sqrt(2 / math.pi), 3: math.sqrt(2 / math.pi) * 0.044715}


def recognise(graph: Graph) -> None:
    """Rewrites chains of float32 operators as ``LayerNormalization``, ``Gelu``, ``Swish``,
    ``HardSwish`` and ``HardSigmoid``.

    ``Swish`` with one input is that of operator set 24; the others may be younger than the graph's
    operator set as well.
    """
    finder = _Finder(graph)
    # Backwards, so that the whole of a chain is seen before its parts.
    for node in graph.nodes[::-1]:
        if id(node) in finder.absorbed or node.domain or not _computes_floats(graph, node):
            continue
        found = finder.activation(node) or finder.layer_norm(node)
        if found is not None:
            finder.replace(found)
    graph.prune()


@dataclass
class _Found:
    """An operator, the tensors that it reads, and the nodes that it stands for."""

    op: str
    inputs: list[str]
    nodes: list[Node]
    attributes: Mapping[str, float | int | str] = field(default_factory=dict)


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.uses = graph.uses()
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self.order = {id(node): index for index, node in enumerate(graph.nodes)}
        self.absorbed: set[int] = set()

    def replace(self, found: _Found) -> None:
        """Puts the operator in the place of its last node, which is ``found.nodes[0]``."""
        last = found.nodes[0]
        ordered = sorted(found.nodes, key=lambda node: self.order[id(node)])
        sources = tuple(dict.fromkeys(s for node in ordered for s in node.sources))
        attributes = {
            name: onnx.helper.make_attribute(name, value)
            for name, value in found.attributes.items()
        }
        fresh = Node(found.op, last.name, found.inputs, last.outputs, attributes, sources=sources)
        self.graph.nodes[self.order[id(last)]] = fresh
        self.producers[last.outputs[0]] = fresh
        self.absorbed.update(id(node) for node in found.nodes)

    # Activations.

    def activation(self, root: Node) -> _Found | None:
        """The activation whose last step is ``root``, if it is one."""
        if root.op not in ("Mul", "Div"):
            return None
        nodes: list[Node] = [root]
        terms = self._expand(root.outputs[0], nodes, root=True)
        found = None
        if len(terms) == 1:
            ((factors, coefficient),) = terms.items()
            if len(factors) == 2:
                found = self._gated(factors, coefficient, nodes)
            elif len(factors) == 1:
                found = self._hard_sigmoid(factors[0], coefficient, nodes)
        elif len(terms) == 2:
            found = self._gelu(terms, nodes)
        if found is None:
            return None
        shapes = self.graph.shapes
        return found if shapes[found.inputs[0]] == shapes[root.outputs[0]] else None

    def _gated(
        self, factors: tuple[str, ...], coefficient: float, nodes: list[Node]
    ) -> _Found | None:
        """A tensor times a squashed copy of itself."""
        for x, gate in (factors, factors[::-1]):
            node = self._single(gate)
            if node is None:
                continue
            if node.op == "Sigmoid" and node.inputs == [x] and _close(coefficient, 1):
                return _Found("Swish", [x], [*nodes, node])
            if node.op == "HardSigmoid" and node.inputs == [x] and _close(coefficient, 1):
                line = (node.attr("alpha", 0.2), node.attr("beta", 0.5))
                if _close(line[0], 1 / 6) and _close(line[1], 0.5):
                    return _Found("HardSwish", [x], [*nodes, node])
            inner = [*nodes, node]
            ramp = self._ramp(node, coefficient, inner)
            if ramp is None or ramp[0] != x:
                continue
            if _close(ramp[1], 1 / 6) and _close(ramp[2], 0.5):
                return _Found("HardSwish", [x], inner)
        return None

    def _hard_sigmoid(self, clip: str, coefficient: float, nodes: list[Node]) -> _Found | None:
        node = self._single(clip)
        # Without a factor it is a clamp, which is cheaper.
        if node is None or _close(coefficient, 1):
            return None
        inner = [*nodes, node]
        ramp = self._ramp(node, coefficient, inner)
        if ramp is None:
            return None
        x, alpha, beta = ramp
        return _Found("HardSigmoid", [x], inner, {"alpha": alpha, "beta": beta})

    def _ramp(
        self, node: Node, coefficient: float, nodes: list[Node]
    ) -> tuple[str, float, float] | None:
        """``(x, a, b)`` if ``coefficient`` times the node is ``min(max(a x + b, 0), 1)``."""
        bounds = clamp_bounds(self.graph, node)
        if bounds is None or bounds[0] != 0 or not _close(bounds[1] * coefficient, 1):
            return None
        terms = self._expand(node.inputs[0], nodes)
        line = {factors: value * coefficient for factors, value in terms.items()}
        offset = line.pop((), 0.0)
        if len(line) != 1:
            return None
        ((factors, slope),) = line.items()
        return (factors[0], slope, offset) if len(factors) == 1 else None

    def _gelu(self, terms: _Terms, nodes: list[Node]) -> _Found | None:
        """``x / 2 + x f / 2`` with ``f`` an error function or hyperbolic tangent of ``x``."""
        plain, gated = sorted(terms, key=len)
        if (len(plain), len(gated)) != (1, 2) or plain[0] not in gated:
            return None
        if not all(_close(value, 0.5) for value in terms.values()):
            return None
        x = plain[0]
        node = self._single(gated[1] if gated[0] == x else gated[0])
        if node is None or node.op not in ("Erf", "Tanh"):
            return None
        inner = [*nodes, node]
        argument = self._expand(node.inputs[0], inner)
        wanted = _ERF_ARGUMENT if node.op == "Erf" else _TANH_ARGUMENT
        if argument.keys() != {(x,) * degree for degree in wanted}:
            return None
        if not all(_close(argument[(x,) * degree], value) for degree, value in wanted.items()):
            return None
        form = "none" if node.op == "Erf" else "tanh"
        return _Found("Gelu", [x], inner, {"approximate": form})

    def _expand(self, name: str, nodes: list[Node], *, root: bool = False) -> _Terms:
        """Multiplies out the arithmetic that makes ``name``; what it goes through joins ``nodes``.

        A tensor with other readers is not gone through: it has to be computed anyway.
        """
        atom: _Terms = {(name,): 1.0}
        node = self.producers.get(name) if root else self._single(name)
        if node is None or node.op not in ("Add", "Sub", "Mul", "Div", "Neg", "Pow"):
            return atom
        passed: list[Node] = [] if root else [node]
        operands = []
        for source in node.inputs:
            constant = self.graph.constants.get(source)
            if constant is None:
                if self.graph.shapes[source] != self.graph.shapes[name]:
                    return atom
                operands.append(self._expand(source, passed))
            elif constant.size == 1:
                operands.append({(): float(constant.reshape(-1)[0])})
            else:
                return atom
        terms = _combine(node.op, operands)
        if terms is None or len(terms) > _MAX_TERMS:
            return atom
        nodes.extend(passed)
        return terms

    # Normalisation.

    def layer_norm(self, root: Node) -> _Found | None:
        """The layer norm whose division ``root`` is, with the scale and shift that follow."""
        parts = self._deviation_over_root(root)
        if parts is None:
            return None
        deviation, spread = parts
        centred = self._centred(deviation)
        variance = self._variance(spread)
        if centred is None or variance is None:
            return None
        x, mean = centred
        squared, epsilon, nodes = variance
        again = centred if squared == deviation else self._centred(squared)
        if again is None or again[0] != x:
            return None
        axis = self._trailing_axes(mean, x)
        if axis is None or axis != self._trailing_axes(again[1], x):
            return None
        if axis != self._trailing_axes(nodes[-1], squared):
            return None
        nodes += [mean, again[1], self.producers[deviation], self.producers[squared]]
        scale, shift, followers = self._scale_and_shift(root, self.graph.shapes[x][axis:])
        unique = list({id(node): node for node in [*followers[::-1], root, *nodes]}.values())
        inputs = [x, scale, shift]
        return _Found("LayerNormalization", inputs, unique, {"axis": axis, "epsilon": epsilon})

    def _deviation_over_root(self, node: Node) -> tuple[str, Node] | None:
        """What is divided, and the square root that it is divided by."""
        if node.op == "Div":
            root = self.producers.get(node.inputs[1])
            return (node.inputs[0], root) if root is not None and root.op == "Sqrt" else None
        if node.op != "Mul":
            return None
        for deviation, inverse in (node.inputs, node.inputs[::-1]):
            reciprocal = self.producers.get(inverse)
            if reciprocal is not None and reciprocal.op == "Reciprocal":
                root = self.producers.get(reciprocal.inputs[0])
                if root is not None and root.op == "Sqrt":
                    return deviation, root
        return None

    def _centred(self, name: str) -> tuple[str, Node] | None:
        """``(x, mean)`` if ``name`` is ``x`` without its mean."""
        node = self.producers.get(name)
        if node is None or node.op != "Sub":
            return None
        mean = self.producers.get(node.inputs[1])
        if mean is None or mean.op != "ReduceMean" or mean.inputs[0] != node.inputs[0]:
            return None
        return node.inputs[0], mean

    def _variance(self, root: Node) -> tuple[str, float, list[Node]] | None:
        """What is squared under the root, epsilon, and the nodes; the mean is the last."""
        total = self.producers.get(root.inputs[0])
        if total is None or total.op != "Add":
            return None
        for inner, added in (total.inputs, total.inputs[::-1]):
            epsilon, mean = self.graph.constants.get(added), self.producers.get(inner)
            if epsilon is None or epsilon.size != 1 or mean is None or mean.op != "ReduceMean":
                continue
            square = self.producers.get(mean.inputs[0])
            if square is None:
                continue
            exponent = self.graph.constants.get(square.inputs[-1])
            if square.op == "Pow" and exponent is not None and np.all(exponent == 2):
                pass
            elif square.op != "Mul" or square.inputs[0] != square.inputs[1]:
                continue
            return square.inputs[0], float(epsilon.reshape(-1)[0]), [root, total, square, mean]
        return None

    def _trailing_axes(self, mean: Node, source: str) -> int | None:
        """The first of the axes that are averaged, if all that follow are averaged too."""
        rank = len(self.graph.shapes[source])
        given = mean.input(1)
        axes = mean.attr("axes") if given is None else self.graph.constants.get(given)
        if axes is None or not mean.attr("keepdims", 1):
            return None
        first = sorted(int(axis) % rank for axis in axes)
        return first[0] if first and first == list(range(first[0], rank)) else None

    def _scale_and_shift(
        self, root: Node, normalised: tuple[int, ...]
    ) -> tuple[str, str, list[Node]]:
        factor: Array = np.ones(normalised, np.float32)
        offset: Array = np.zeros(normalised, np.float32)
        followers: list[Node] = []
        tail = root
        for op in ("Mul", "Add"):
            value = tail.outputs[0]
            if self.uses[value] != 1 or value in self.graph.outputs:
                break
            follower = self.consumers[value][0]
            other = follower.inputs[1 if follower.inputs[0] == value else 0]
            constant = self.graph.constants.get(other)
            if follower.op != op or constant is None:
                continue
            try:
                spread = np.broadcast_to(constant, normalised).astype(np.float32)
            except ValueError:
                break
            if op == "Mul":
                factor = spread
            else:
                offset = spread
            followers.append(follower)
            tail = follower
        return (
            self.graph.add_constant(f"{root.name}.scale", factor),
            self.graph.add_constant(f"{root.name}.shift", offset),
            followers,
        )

    def _single(self, name: str) -> Node | None:
        """The node that writes ``name``, if only one node reads it."""
        return self.producers.get(name) if self.uses[name] == 1 else None


def _combine(op: str, operands: list[_Terms]) -> _Terms | None:
    first, second = operands[0], operands[-1]
    if op == "Neg":
        return {factors: -value for factors, value in first.items()}
    if op in ("Add", "Sub"):
        sign = 1.0 if op == "Add" else -1.0
        total = dict(first)
        for factors, value in second.items():
            total[factors] = total.get(factors, 0.0) + sign * value
        return total
    if op == "Mul":
        return _product(first, second)
    constant = second.get((), 0.0) if second.keys() <= {()} else None
    if op == "Div" and constant:
        return {factors: value / constant for factors, value in first.items()}
    if op == "Pow" and constant in (2.0, 3.0):
        squared = _product(first, first)
        return squared if constant == 2.0 else _product(squared, first)
    return None


def _product(left: _Terms, right: _Terms) -> _Terms:
    total: _Terms = {}
    for a, x in left.items():
        for b, y in right.items():
            factors = tuple(sorted((*a, *b)))
            total[factors] = total.get(factors, 0.0) + x * y
    return total


def _close(value: float, wanted: float) -> bool:
    return math.isclose(value, wanted, rel_tol=_TOLERANCE)


def _computes_floats(graph: Graph, node: Node) -> bool:
    return graph.dtypes.get(node.outputs[0]) == np.float32
