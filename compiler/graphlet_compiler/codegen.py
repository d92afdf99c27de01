"""TVM functions to one WebAssembly object."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from graphlet_compiler.errors import DiskFullError
from graphlet_compiler.graph import Array
from graphlet_compiler.spec import Simd

_WASM_HEADER = b"\0asm\1\0\0\0"

_FEATURES = {
    Simd.NONE: [],
    Simd.SIMD128: ["+simd128"],
    Simd.RELAXED: ["+simd128", "+relaxed-simd"],
}


def target(simd: Simd) -> Any:
    """LLVM for wasm32 with the vector instructions of ``simd``."""
    return tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": "wasm32-unknown-unknown-wasm",
            "mattr": _FEATURES[simd],
            "num-cores": 1,
            "vector-width": 128,
        }
    )


def functions(module: Any, used: set[str]) -> dict[str, Any]:
    """The functions that the graph calls, by name."""
    return {
        variable.name_hint: function
        for variable, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc) and variable.name_hint in used
    }


def build_object(compiled: dict[str, Any], simd: Simd) -> bytes:
    """Compiles the functions; each registers itself as ``__tvm_ffi_<name>``."""
    host = target(simd)
    module = tvm.IRModule(
        {name: f.with_attr("global_symbol", name) for name, f in sorted(compiled.items())}
    ).with_attr("system_lib_prefix", "")
    # TVM guards each function with checks of every argument's shape, strides and alignment.
    # They are nine tenths of a small function's code, and the graph that calls the functions
    # was made in the same compilation.
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        library = tirx.build(module, host.with_host(host))
    data = _written(library)
    if not _whole(data):
        # TVM does not notice when a write fails.
        raise DiskFullError(
            "the object was cut short while it was written to the temporary folder",
            hint="free some space there, or set TMPDIR to another folder",
        )
    return data


def _written(library: Any) -> bytes:
    """What TVM writes to a file, which is the only way it gives an object away."""
    if hasattr(os, "memfd_create"):
        # In memory: LLVM ends the process when a disk is full.
        descriptor = os.memfd_create("graph.o")
        with os.fdopen(descriptor, "rb") as file:
            library.write_to_file(f"/proc/self/fd/{descriptor}", "o")
            return file.read()
    with tempfile.TemporaryDirectory(prefix="graphlet-") as folder:
        path = Path(folder) / "graph.o"
        library.write_to_file(str(path), "o")
        return path.read_bytes()


def _whole(data: bytes) -> bool:
    """Whether the sections of a WebAssembly object end where the file does."""
    position = len(_WASM_HEADER)
    if data[:position] != _WASM_HEADER:
        return False
    while position < len(data):
        position += 1  # the section's kind
        size, shift = 0, 0
        while position < len(data):
            byte = data[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        position += size
    return position == len(data)


def params_bytes(params: dict[str, Array]) -> bytes:
    """Parameters in TVM's own file format."""
    tensors = {name: tvm.runtime.tensor(array) for name, array in params.items()}
    return bytes(tvm.runtime.save_param_dict(tensors))
