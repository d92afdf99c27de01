"""Other loops for a function of TVM's own than those of `schedule`: what `graphlet tune` tries."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

# Lanes of a 128-bit vector of float32.
_LANES = 4
# Windows of at most so many values are worth a straight line of code.
_WINDOW = 32


def variants(plain: Any, scheduled: Callable[[], Any]) -> dict[str, Callable[[], Any | None]]:
    """Ways to compute what ``plain`` computes; one that does not differ gives ``None``.

    ``fused`` is the default, what ``scheduled`` makes of it; ``plain`` are TVM's loops as they
    are; in ``vectors`` and ``wide`` the innermost loop is cut into one vector and four; in
    ``unrolled`` the loops over a window are a straight line, in ``swapped`` they stand outside a
    row of results; in ``inlined`` what is only moved is not written down before a reduction.
    """
    scheduled = functools.cache(scheduled)
    made: list[Any] = []

    def fresh(function: Any | None) -> Any | None:
        if function is None or any(tvm_ffi.structural_equal(function, m) for m in made):
            return None
        made.append(function)
        return function

    def changed(change: Callable[[Any, Any], bool]) -> Callable[[], Any | None]:
        return lambda: fresh(_changed(scheduled(), change))

    return {
        "fused": lambda: fresh(scheduled()),
        "plain": lambda: fresh(plain),
        "vectors": changed(lambda plan, block: _vectorise(plan, block, _LANES)),
        "wide": changed(lambda plan, block: _vectorise(plan, block, 4 * _LANES)),
        "unrolled": changed(_unroll),
        "swapped": changed(_swap),
        "inlined": changed(_inline),
    }


def layer(name: str, function: Any) -> str:
    """The name of a function's work: its operators, its tensors, and a digest of its loops."""
    tensors = [_tensor(parameter) for parameter in function.params]
    operators = re.sub(r"_?\d+(?=_|$)", "", name)
    # Which names the graph around it gave to variables does not matter to the hash.
    digest = f"{tvm_ffi.structural_hash(function) % 2**32:08x}"
    return f"tvm {operators} {', '.join(tensors)} ({digest})"


def _tensor(buffer: Any) -> str:
    extents = "x".join(str(int(extent)) for extent in buffer.shape)
    return f"{buffer.dtype}[{extents}]"


def _changed(function: Any, change: Callable[[Any, Any], bool]) -> Any | None:
    plan = s_tir.Schedule(tvm.IRModule({"main": function}), debug_mask="none")
    blocks = list(plan.get_child_blocks(plan.get_sblock("root")))
    try:
        # All of them: `any` would stop at the first.
        done = [change(plan, block) for block in blocks]
    except s_tir.ScheduleError:
        return None
    return plan.mod["main"] if any(done) else None


def _vectorise(plan: Any, block: Any, lanes: int) -> bool:
    """Cuts the innermost loop, if each of its steps is a value of its own."""
    loops = _serial(plan, block)
    if not loops or not _belongs(plan, block, loops[-1]):
        return False
    if int(plan.get(loops[-1]).extent) % lanes != 0:
        return False
    *_, vector = plan.split(loops[-1], [None, lanes])
    plan.vectorize(vector)
    return True


def _unroll(plan: Any, block: Any) -> bool:
    """Writes out the loops of a reduction over a small window."""
    window = [loop for loop in _serial(plan, block) if not _belongs(plan, block, loop)]
    if not 1 < math.prod(int(plan.get(loop).extent) for loop in window) <= _WINDOW:
        return False
    for loop in window:
        plan.unroll(loop)
    return True


def _swap(plan: Any, block: Any) -> bool:
    """Lets a reduction go through its window once for a row of results."""
    loops = _serial(plan, block)
    window = [loop for loop in loops if not _belongs(plan, block, loop)]
    first = len(loops) - len(window)
    if not window or first == 0 or any(_belongs(plan, block, loop) for loop in loops[first:]):
        return False
    plan.reorder(*window, loops[first - 1])
    plan.decompose_reduction(block, window[0])
    return True


def _inline(plan: Any, block: Any) -> bool:
    """Computes the values of a block where they are read."""
    if not plan.get_consumers(block) or not all(
        _belongs(plan, block, loop) for loop in plan.get_loops(block)
    ):
        return False
    plan.compute_inline(block)
    return True


def _serial(plan: Any, block: Any) -> list[Any]:
    return [loop for loop in plan.get_loops(block) if plan.get(loop).kind == 0]


def _belongs(plan: Any, block: Any, loop: Any) -> bool:
    """Whether a loop runs over values of the block's result, not over what makes one of them."""
    body, variable = plan.get(plan.get_loops(block)[-1]).body, plan.get(loop).loop_var
    return all(
        axis.iter_type == tirx.IterVar.DataPar
        for axis, value in zip(body.block.iter_vars, body.iter_values, strict=True)
        if _reads(value, variable)
    )


def _reads(value: Any, variable: Any) -> bool:
    found = False

    def visit(node: Any) -> None:
        nonlocal found
        found = found or bool(node.same_as(variable))

    tvm_ffi.structural_walk(value, (tirx.Var, visit))
    return found
