"""TVM functions that the compiler writes itself: calls of the operator library, and copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as builder

from graphlet_compiler.graph import Shape
from graphlet_compiler.kernels import KernelCall

# TVM's kOpaque: nothing is fused into such a function.
_OPAQUE = 8


# The shape and element type of a tensor.
Kind = tuple[Shape, str]
# A tensor that a kernel reads, and the element at which it begins to.
Source = tuple[Kind, int]


def kernel_function(call: KernelCall, inputs: Sequence[Source], output: Kind) -> Any:
    """A function of ``inputs`` and ``output`` that calls the kernel and checks what it returns."""
    return kernels_function([(call, inputs)], [math.prod(output[0])], output)


def kernels_function(
    calls: Sequence[tuple[KernelCall, Sequence[Source]]], sizes: Sequence[int], output: Kind
) -> Any:
    """A function that calls kernels one after another, their results side by side in ``output``.

    It takes the inputs of all, in order; ``sizes`` are the elements of each result.
    """
    result = _buffer(output, "y")
    target = _flat(result)
    buffers: list[Any] = []
    body: list[Any] = []
    if len(calls) > 1:
        body.append(tirx.DeclBuffer(target, data=result.data))
    offset = 0
    for (call, inputs), size in zip(calls, sizes, strict=True):
        pointers = []
        for kind, begin in inputs:
            buffer = _buffer(kind, f"a{len(buffers)}")
            buffers.append(buffer)
            pointers.append(_pointer(buffer, begin, body))
        if call.geometry.takes_residual and not call.residual:
            pointers.append(tirx.reinterpret("handle", tirx.const(0, "uint64")))
        place = result.data if offset == 0 else tirx.address_of(target[offset])
        arguments = [tirx.const(extent, "int32") for extent in call.geometry.extents()]
        arguments += [tirx.const(number, "float32") for number in call.geometry.numbers()]
        if call.geometry.activates:
            arguments.append(tirx.const(int(call.activation), "int32"))
            arguments += [tirx.const(bound, "float32") for bound in (call.clamp.lo, call.clamp.hi)]
        status = tirx.call_extern("int32", call.symbol, *pointers, place, *arguments)
        # The function itself fails when the kernel does. An assertion would say so with a text,
        # but assertions are dropped when building (see codegen).
        fail = tirx.Evaluate(tirx.call_intrin("int32", "tirx.tvm_throw_last_error"))
        body.append(tirx.IfThenElse(status != 0, fail, None))
        offset += size
    return _function([*buffers, result], body[0] if len(body) == 1 else tirx.SeqStmt(body))


def concat_function(inputs: Sequence[Shape], axis: int, output: Shape) -> Any:
    """Concatenation as one plain copy per input.

    TVM's own asks for every element which input it comes from.
    """
    buffers = [_buffer((shape, "float32"), f"a{index}") for index, shape in enumerate(inputs)]
    result = _buffer((output, "float32"), "y")
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


def _buffer(kind: Kind, name: str) -> Any:
    return tirx.decl_buffer(*kind, name, elem_offset=0)


def _flat(buffer: Any) -> Any:
    size = math.prod(int(extent) for extent in buffer.shape)
    return tirx.decl_buffer([size], buffer.dtype, f"{buffer.name}_flat", elem_offset=0)


def _pointer(buffer: Any, begin: int, body: list[Any]) -> Any:
    """The address of an element; declares what it needs for that at the end of ``body``."""
    if begin == 0:
        return buffer.data
    flat = _flat(buffer)
    body.append(tirx.DeclBuffer(flat, data=buffer.data))
    return tirx.address_of(flat[begin])


def _function(buffers: Sequence[Any], body: Any) -> Any:
    return tirx.PrimFunc(buffers, body).with_attrs({"op_pattern": _OPAQUE, "tirx.noalias": True})


def loops_function(
    inputs: Sequence[Kind],
    outputs: Sequence[Kind],
    body: Callable[[list[Any], list[Any]], list[Any]],
) -> Any:
    """A function of plain loops; ``body`` reads and writes its tensors by flat indices."""
    buffers = [
        tirx.decl_buffer(shape, dtype, f"{kind}{index}", elem_offset=0)
        for kind, tensors in (("a", inputs), ("y", outputs))
        for index, (shape, dtype) in enumerate(tensors)
    ]
    views = [builder.buffer_proxy(buffer) for buffer in buffers]
    statements = body(views[: len(inputs)], views[len(inputs) :])
    return _function(buffers, statements[0] if len(statements) == 1 else tirx.SeqStmt(statements))
