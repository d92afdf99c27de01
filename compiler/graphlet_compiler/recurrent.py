"""``RNN``, ``GRU`` and ``LSTM``, step by step (https://onnx.ai/onnx/operators, letters as there).

The number of steps is known, so that they are written out: each is a product with the weights of
what came before, and what of the input does not wait for it is one product for all steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphlet_compiler.errors import TooLargeError
from graphlet_compiler.graph import Node
from graphlet_compiler.parts import Parts

_MAX_STEPS = 512
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
# Activations without numbers of their own.
_PLAIN = {"Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"}

_Function = Callable[[str], str]


@dataclass
class _Direction:
    """What one direction computes with."""

    weights: str  # [input, gates * hidden]
    recurrent: str  # [hidden, gates * hidden]
    bias: str | None  # [gates * hidden] of the input
    recurrent_bias: str | None
    peepholes: str | None  # [3 * hidden]
    functions: list[_Function]
    backwards: bool


def refusal(node: Node) -> str | None:
    """Why the steps cannot be written out; ``None`` if they can."""
    names = [_text(name) for name in node.attr("activations", [])]
    if unknown := [name for name in names if name.capitalize() not in _PLAIN]:
        return f"activation {unknown[0]}"
    if node.attr("clip") is not None:
        return "a clip of what the gates read"
    return "coupled gates" if node.attr("input_forget", 0) else None


def write_out(parts: Parts) -> list[Node] | None:
    """The operators that take the place of a recurrent one."""
    graph, node = parts.graph, parts.node
    if refusal(node) is not None:
        return None
    batch_first = node.attr("layout", 0)
    source = parts("Transpose", node.inputs[0], perm=[1, 0, 2]) if batch_first else node.inputs[0]
    steps, batch = parts.shape(0)[:2][:: -1 if batch_first else 1]
    if steps > _MAX_STEPS:
        raise TooLargeError(
            f"`{node.name}` ({node.op}) has {steps} steps, more than the {_MAX_STEPS} that are "
            "written out",
            node=node.name,
        )
    directions, _, hidden = graph.shapes[node.inputs[2]]
    lengths = node.input(4)
    rows: list[str] = []
    states: list[str] = []
    cells: list[str] = []
    for number in range(directions):
        direction = _direction(parts, number, hidden)
        start = _initial(parts, 5, number, batch, hidden, batch_first)
        cell = None
        if node.op == "LSTM":
            cell = _initial(parts, 6, number, batch, hidden, batch_first)
        row, state, cell = _run(parts, source, direction, start, cell, lengths, (steps, hidden))
        rows.append(parts.axes("Unsqueeze", row, [1]))
        states.append(parts.axes("Unsqueeze", state, [0]))
        if cell is not None:
            cells.append(parts.axes("Unsqueeze", cell, [0]))
    whole = parts("Concat", *rows, axis=1)
    last = parts("Concat", *states, axis=0)
    inner = parts("Concat", *cells, axis=0) if cells else None
    if batch_first:
        whole = parts("Transpose", whole, perm=[2, 0, 1, 3])
        last = parts("Transpose", last, perm=[1, 0, 2])
        inner = None if inner is None else parts("Transpose", inner, perm=[1, 0, 2])
    return parts.results(whole, last, inner)


def _direction(parts: Parts, number: int, hidden: int) -> _Direction:
    node = parts.node
    width = _GATES[node.op] * hidden

    def of(index: int) -> str | None:
        name = node.input(index)
        if name is None:
            return None
        return parts.axes("Squeeze", parts.slice(name, 0, number, number + 1), [0])

    def turned(index: int) -> str:
        return parts("Transpose", of(index) or "", perm=[1, 0])

    both = of(3)
    names = [_text(name) for name in node.attr("activations", [])] or _DEFAULTS[node.op] * 2
    count = len(_DEFAULTS[node.op])
    word = node.attr("direction", "forward")
    return _Direction(
        turned(1),
        turned(2),
        None if both is None else parts.slice(both, 0, 0, width),
        None if both is None else parts.slice(both, 0, width, 2 * width),
        of(7) if node.op == "LSTM" else None,
        [_function(parts, name) for name in names[number * count :][:count]],
        word == "reverse" or number == 1,
    )


def _function(parts: Parts, name: str) -> _Function:
    return lambda value: parts(name.capitalize(), value)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _initial(
    parts: Parts, index: int, number: int, batch: int, hidden: int, batch_first: int
) -> str:
    name = parts.node.input(index)
    if name is None:
        return parts.constant(np.zeros((batch, hidden)), parts.dtype())
    axis = 1 if batch_first else 0
    return parts.axes("Squeeze", parts.slice(name, axis, number, number + 1), [axis])


def _run(
    parts: Parts,
    source: str,
    direction: _Direction,
    state: str,
    cell: str | None,
    lengths: str | None,
    extents: tuple[int, int],
) -> tuple[str, str, str | None]:
    """All states over time, the last one, and the last cell."""
    steps, hidden = extents
    read = parts("MatMul", source, direction.weights)
    if direction.bias is not None:
        read = parts("Add", read, direction.bias)
    rows: list[str] = [""] * steps
    zero = parts.constant(0, parts.dtype())
    for turn in range(steps):
        step = steps - 1 - turn if direction.backwards else turn
        here = parts.axes("Squeeze", parts.slice(read, 0, step, step + 1), [0])
        new, inner = _STEPS[parts.node.op](parts, direction, here, state, cell, hidden)
        row = new
        if lengths is not None:
            # A sequence that has ended keeps its state, and gives zeros.
            limit = parts.cast(lengths, np.int64)
            open_ = parts("Less", parts.integers(step), limit)
            open_ = parts.axes("Unsqueeze", open_, [1])
            row = parts("Where", open_, new, zero)
            new = parts("Where", open_, new, state)
            if inner is not None and cell is not None:
                inner = parts("Where", open_, inner, cell)
        state, cell = new, inner
        rows[step] = parts.axes("Unsqueeze", row, [0])
    return parts("Concat", *rows, axis=0), state, cell


def _rnn_step(
    parts: Parts, direction: _Direction, read: str, state: str, cell: str | None, hidden: int
) -> tuple[str, str | None]:
    return direction.functions[0](parts("Add", read, _recurrent(parts, direction, state))), None


def _gru_step(
    parts: Parts, direction: _Direction, read: str, state: str, cell: str | None, hidden: int
) -> tuple[str, str | None]:
    f, g = direction.functions
    if parts.node.attr("linear_before_reset", 0):
        fed = _recurrent(parts, direction, state)
        gates = f(parts("Add", *(parts.slice(v, 1, 0, 2 * hidden) for v in (read, fed))))
        z, r = (parts.slice(gates, 1, n * hidden, (n + 1) * hidden) for n in (0, 1))
        fed = parts("Mul", r, parts.slice(fed, 1, 2 * hidden, 3 * hidden))
    else:
        first = parts.slice(direction.recurrent, 1, 0, 2 * hidden)
        last = parts.slice(direction.recurrent, 1, 2 * hidden, 3 * hidden)
        fed = parts("MatMul", state, first)
        if direction.recurrent_bias is not None:
            fed = parts("Add", fed, parts.slice(direction.recurrent_bias, 0, 0, 2 * hidden))
        gates = f(parts("Add", parts.slice(read, 1, 0, 2 * hidden), fed))
        z, r = (parts.slice(gates, 1, n * hidden, (n + 1) * hidden) for n in (0, 1))
        fed = parts("MatMul", parts("Mul", r, state), last)
        if direction.recurrent_bias is not None:
            bias = parts.slice(direction.recurrent_bias, 0, 2 * hidden, 3 * hidden)
            fed = parts("Add", fed, bias)
    h = g(parts("Add", parts.slice(read, 1, 2 * hidden, 3 * hidden), fed))
    # (1 - z) h + z state
    kept = parts("Mul", z, parts("Sub", state, h))
    return parts("Add", h, kept), None


def _lstm_step(
    parts: Parts, direction: _Direction, read: str, state: str, cell: str | None, hidden: int
) -> tuple[str, str | None]:
    f, g, h = direction.functions
    cell = cell or ""
    gates = parts("Add", read, _recurrent(parts, direction, state))
    i, o, forget, c = (parts.slice(gates, 1, n * hidden, (n + 1) * hidden) for n in range(4))

    def peeped(gate: str, number: int, value: str) -> str:
        if direction.peepholes is None:
            return gate
        hole = parts.slice(direction.peepholes, 0, number * hidden, (number + 1) * hidden)
        return parts("Add", gate, parts("Mul", hole, value))

    i, forget = f(peeped(i, 0, cell)), f(peeped(forget, 2, cell))
    new = parts("Add", parts("Mul", forget, cell), parts("Mul", i, g(c)))
    return parts("Mul", f(peeped(o, 1, new)), h(new)), new


def _recurrent(parts: Parts, direction: _Direction, state: str) -> str:
    fed = parts("MatMul", state, direction.recurrent)
    if direction.recurrent_bias is None:
        return fed
    return parts("Add", fed, direction.recurrent_bias)


_STEPS = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}
