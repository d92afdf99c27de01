"""TVM functions to one WebAssembly object."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from graphlet_compiler.graph import Array
from graphlet_compiler.spec import Simd

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
    with tempfile.TemporaryDirectory(prefix="graphlet-") as folder:
        path = Path(folder) / "graph.o"
        library.write_to_file(str(path))
        return path.read_bytes()


def params_bytes(params: dict[str, Array]) -> bytes:
    """Parameters in TVM's own file format."""
    tensors = {name: tvm.runtime.tensor(array) for name, array in params.items()}
    return bytes(tvm.runtime.save_param_dict(tensors))
