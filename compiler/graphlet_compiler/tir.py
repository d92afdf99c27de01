"""TVM functions that the compiler writes itself: calls of the operator library, and copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import tirx

from graphlet_compiler.graph import Shape
from graphlet_compiler.kernels import KernelCall

# TVM's kOpaque: nothing is fused into such a function.
_OPAQUE = 8


def kernel_function(call: KernelCall, inputs: Sequence[Shape], output: Shape) -> Any:
    """A function of ``inputs`` and ``output`` that calls the kernel and checks what it returns."""
    buffers = [_buffer(shape, f"a{index}") for index, shape in enumerate(inputs)]
    result = _buffer(output, "y")
    pointers = [buffer.data for buffer in buffers]
    if call.geometry.takes_residual and not call.residual:
        pointers.append(tirx.reinterpret("handle", tirx.const(0, "uint64")))
    arguments = [tirx.const(extent, "int32") for extent in call.geometry.extents()]
    if call.geometry.clamps:
        arguments += [tirx.const(bound, "float32") for bound in (call.clamp.lo, call.clamp.hi)]
    status = tirx.call_extern("int32", call.symbol, *pointers, result.data, *arguments)
    # The function itself fails when the kernel does. An assertion would say so with a text, but
    # assertions are dropped when building (see codegen).
    fail = tirx.Evaluate(tirx.call_intrin("int32", "tirx.tvm_throw_last_error"))
    return _function([*buffers, result], tirx.IfThenElse(status != 0, fail, None))


def concat_function(inputs: Sequence[Shape], axis: int, output: Shape) -> Any:
    """Concatenation as one plain copy per input.

    TVM's own asks for every element which input it comes from.
    """
    buffers = [_buffer(shape, f"a{index}") for index, shape in enumerate(inputs)]
    result = _buffer(output, "y")
    target, outer = _flat(result), math.prod(output[:axis])
    row = math.prod(output[axis:])
    body, offset = [tirx.DeclBuffer(target, data=result.data)], 0
    for buffer, shape in zip(buffers, inputs, strict=True):
        source, run = _flat(buffer), math.prod(shape[axis:])
        body.append(tirx.DeclBuffer(source, data=buffer.data))
        i, j = tirx.Var("i", "int32"), tirx.Var("j", "int32")
        store = tirx.BufferStore(
            target, tirx.BufferLoad(source, [i * run + j]), [i * row + offset + j]
        )
        inner = tirx.For(j, 0, run, tirx.ForKind.SERIAL, store)
        body.append(tirx.For(i, 0, outer, tirx.ForKind.SERIAL, inner))
        offset += run
    return _function([*buffers, result], tirx.SeqStmt(body))


def _buffer(shape: Shape, name: str) -> Any:
    return tirx.decl_buffer(shape, "float32", name, elem_offset=0)


def _flat(buffer: Any) -> Any:
    size = math.prod(int(extent) for extent in buffer.shape)
    return tirx.decl_buffer([size], "float32", f"{buffer.name}_flat", elem_offset=0)


def _function(buffers: Sequence[Any], body: Any) -> Any:
    return tirx.PrimFunc(buffers, body).with_attrs({"op_pattern": _OPAQUE, "tirx.noalias": True})
