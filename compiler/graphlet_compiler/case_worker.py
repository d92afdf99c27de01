"""Compiles node cases one after another: importing TVM takes longer than compiling one.

Each line of standard input names a case. Its artifacts are written into the folder, with the data
of its inputs and outputs as ``input_0.bin`` and so on (little-endian, row-major), and one JSON
object answers on standard output.
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from graphlet_compiler import artifacts, node_cases, onnx_file, pipeline
from graphlet_compiler.errors import CompileError
from graphlet_compiler.events import Events
from graphlet_compiler.graph import Array
from graphlet_compiler.tensors import TensorSpec


def serve(lines: Iterable[str], out: Path, events: Events, *, importing: bool = False) -> None:
    """Answers until the input ends; ``importing`` stops before anything is built."""
    for line in lines:
        name = line.strip()
        if name:
            events.emit({"event": "case", "case": name} | _answer(name, out, importing))


def _answer(name: str, out: Path, importing: bool) -> dict[str, Any]:
    operator = ""
    try:
        model = node_cases.read_model(name)
        operator = node_cases.operator(name, model)
        return {"operator": operator} | _compile(node_cases.open_case(name, model), out, importing)
    except CompileError as error:
        code, node, message = error.code, error.node or "", error.message
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        code, node, message = "internal", "", f"{type(error).__name__}: {error}"
    return {"operator": operator, "code": code, "node": node, "message": " ".join(message.split())}


def _compile(case: node_cases.Case, out: Path, importing: bool) -> dict[str, Any]:
    onnx_file.check_opset(case.model)
    onnx_file.check(case.model)
    spec = TensorSpec(case.name, shapes={name: a.shape for name, a in case.inputs.items()})
    silent = Events(io.StringIO())
    if importing:
        pipeline.import_opened(pipeline.open_model(spec, case.model), silent)
        return {"code": ""}
    compiled = pipeline.compile_loaded(spec, case.model, silent)
    files = dict(compiled.files)
    inputs = [(name, case.inputs[name]) for name in case.inputs]
    for kind, arrays in (("input", [array for _, array in inputs]), ("output", case.outputs)):
        for index, array in enumerate(arrays):
            files[f"{kind}_{index}.bin"] = _bytes(array)
    artifacts.write(out, files)
    return {
        "code": "",
        "inputs": [{"name": name} | _describe(array) for name, array in inputs],
        "outputs": [_describe(array) for array in case.outputs],
        "baked": list(case.baked),
    }


def _describe(array: Array) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape)}


def _bytes(array: Array) -> bytes:
    array = np.ascontiguousarray(array)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.byteswap()
    return array.tobytes()
