"""Loops of the functions that stay TVM's own: one pass over memory, over runs that vectors fit.

TVM fuses neighbouring operators into one function but leaves each a loop nest of its own, with
its result in memory between them. Here what only moves or maps values is computed where it is
read, and loops that walk all tensors alike become one, which LLVM then turns into vectors of four.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, s_tir, sym, tirx

from graphlet_compiler import loops
from graphlet_compiler.tuning import Tuner

# Beyond so many operations a value is not computed again for each that reads it.
_CHEAP = 8


# Marks functions whose result is their argument in another shape.
VIEW = "graphlet_view"


def mark_views(module: Any) -> Any:
    """Marks the functions that only reshape, so that no call needs to be made for them."""
    functions = {
        variable: function.with_attr(VIEW, True) if _reshapes(function) else function
        for variable, function in module.functions.items()
    }
    return tvm.IRModule(functions, attrs=module.attrs)


def _reshapes(function: Any) -> bool:
    if not _has_blocks(function) or len(function.params) != 2:
        return False
    # The analysis takes the first part of a tensor for a reshape of it.
    before, after = (math.prod(int(e) for e in param.shape) for param in function.params)
    return before == after and bool(relax.analysis.has_reshape_pattern(function))


def schedule(module: Any, tuner: Tuner) -> Any:
    """The module with the loops of every function of TVM's own rewritten."""
    functions = {
        variable: _tuned(variable.name_hint, function, tuner) if _has_blocks(function) else function
        for variable, function in module.functions.items()
    }
    return tvm.IRModule(functions, attrs=module.attrs)


def _tuned(name: str, function: Any, tuner: Tuner) -> Any:
    if function.attrs.get(VIEW, False):
        return function  # Never called.
    variants = loops.variants(function, lambda: _schedule(function))
    return tuner.loops(name, loops.layer(name, function), variants)


def _has_blocks(function: Any) -> bool:
    attributes = function.attrs if isinstance(function, tirx.PrimFunc) else None
    return attributes is not None and bool(attributes.get("s_tir", False))


def _schedule(function: Any) -> Any:
    plan = s_tir.Schedule(tvm.IRModule({"main": function}), debug_mask="none")
    for block in _blocks(plan)[:-1]:
        if _maps(plan, block) and all(_maps(plan, reader) for reader in plan.get_consumers(block)):
            _inline(plan, block)
    for block in _blocks(plan):
        if _maps(plan, block):
            _fuse(plan, block)
    return plan.mod["main"]


def _blocks(plan: Any) -> list[Any]:
    return list(plan.get_child_blocks(plan.get_sblock("root")))


def _maps(plan: Any, block: Any) -> bool:
    """Whether each value of the block's result is computed by itself."""
    return all(v.iter_type == tirx.IterVar.DataPar for v in plan.get(block).iter_vars)


def _inline(plan: Any, block: Any) -> None:
    if len(plan.get_consumers(block)) > 1 and _operations(plan.get(block).body) > _CHEAP:
        return
    try:
        plan.compute_inline(block)
    except s_tir.ScheduleError:
        # Read at other places than it is written at, as by a scan: it stays where it is.
        return


def _operations(body: Any) -> int:
    count = 0

    def visit(node: Any) -> None:
        nonlocal count
        if isinstance(node, tvm.ir.Call):
            count += _CHEAP
        count += isinstance(node, tvm.ir.prim.expr.BinaryOpExpr)

    tvm_ffi.structural_walk(body, visit)
    return count


def _fuse(plan: Any, block: Any) -> None:
    """Makes one loop of as many inner loops as walk every tensor without a jump."""
    loops = plan.get_loops(block)
    extents = [int(plan.get(loop).extent) for loop in loops]
    variables = [v.var for v in plan.get(block).iter_vars]
    if len(loops) != len(variables) or any(plan.get(loop).kind != 0 for loop in loops):
        return
    strides = _strides(plan.get(block).body, variables)
    first = len(loops) - 1
    while first > 0 and all(_continues(s, extents, first) for s in strides):
        first -= 1
    if first < len(loops) - 1:
        plan.fuse(*loops[first:])


def _continues(strides: list[int] | None, extents: list[int], axis: int) -> bool:
    """Whether the loop before ``axis`` goes on where that of ``axis`` ends."""
    if strides is None:
        return False
    return extents[axis - 1] == 1 or strides[axis - 1] == strides[axis] * extents[axis]


def _strides(body: Any, variables: list[Any]) -> list[list[int] | None]:
    """For each access, how far a step of each variable moves it; ``None`` if that varies.

    Also ``None`` if a variable decides more than where something lies, as at the rim of a pad.
    """
    accesses: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        if isinstance(node, tvm.ir.TensorLoad):
            accesses.append((node.source, node.indices))
        elif isinstance(node, tirx.BufferStore):
            accesses.append((node.buffer, node.indices))

    tvm_ffi.structural_walk(body, visit)
    inside = sum(_occurrences(i, variables) for _, indices in accesses for i in indices)
    if inside != _occurrences(body, variables):
        return [None]
    return [_stride(buffer, indices, variables) for buffer, indices in accesses]


def _occurrences(value: Any, variables: list[Any]) -> int:
    count = 0

    def visit(node: Any) -> None:
        nonlocal count
        count += any(node.same_as(variable) for variable in variables)

    tvm_ffi.structural_walk(value, (tirx.Var, visit))
    return count


def _stride(buffer: Any, indices: Any, variables: list[Any]) -> list[int] | None:
    total, step = [0] * len(variables), 1
    pairs = list(zip(indices, buffer.shape, strict=True))
    for index, extent in reversed(pairs):
        line = sym.detect_linear_equation(index, variables)
        if not line:
            return None
        for position, factor in enumerate(line[:-1]):
            total[position] += int(factor) * step
        step *= int(extent)
    return total
