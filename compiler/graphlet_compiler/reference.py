"""What onnxruntime computes for the same tensors, to compare our numbers with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format

from graphlet_compiler import onnx_file, prepare
from graphlet_compiler.errors import (
    CompileError,
    Detail,
    MissingFileError,
    MissingToolError,
    SpecMismatchError,
    from_os_error,
)
from graphlet_compiler.graph import Array
from graphlet_compiler.spec import ModelSpec


class ReferenceRunError(CompileError):
    """onnxruntime could not run the model."""

    code = "reference"


def reference(spec: ModelSpec, onnx: Path, folder: Path, out: Path | None) -> dict[str, Any]:
    """Runs every ``.npy`` file of ``folder``, in order of their names.

    The outputs stand in the answer as flat lists of numbers, or, with ``out``, in files of the
    inputs' names.
    """
    tensors = _tensors(spec, folder)
    model = onnx_file.load(onnx)
    graph = prepare.open_graph(model, spec)
    if graph.output not in {value.name for value in model.graph.output}:
        model.graph.output.append(onnx_format.ValueInfoProto(name=graph.output))
    run = _session(model, graph.input, graph.output)
    answers = []
    for name, tensor in tensors.items():
        result = run(tensor)
        answer: dict[str, Any] = {"tensor": name, "shape": list(result.shape)}
        if out is None:
            answer["values"] = [float(value) for value in result.reshape(-1)]
        else:
            try:
                out.mkdir(parents=True, exist_ok=True)
                np.save(out / name, result)
            except OSError as error:
                raise from_os_error(error, f"cannot write `{name}`") from error
        answers.append(answer)
    return {"output": graph.output, "outputs": answers}


def _tensors(spec: ModelSpec, folder: Path) -> dict[str, Array]:
    paths = sorted(folder.glob("*.npy"))
    if not paths:
        raise MissingFileError(f"no `.npy` file in `{folder.name}`")
    tensors, wrong = {}, []
    for path in paths:
        try:
            tensor = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            wrong.append(Detail(f"`{path.name}` is not a NumPy array: {error}"))
            continue
        if tensor.shape != spec.input.shape or tensor.dtype != np.float32:
            wrong.append(
                Detail(
                    f"`{path.name}` is {tensor.dtype} {list(tensor.shape)}, "
                    f"not float32 {list(spec.input.shape)}"
                )
            )
        tensors[path.name] = tensor
    if wrong:
        raise SpecMismatchError.of(wrong)
    return tensors


def _session(model: onnx_format.ModelProto, source: str, target: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingToolError(
            "onnxruntime is not installed",
            hint="install the packages of compiler/requirements.txt, or run `make setup`",
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # onnxruntime's exceptions share no base but this.
        raise ReferenceRunError(f"onnxruntime does not take the model: {error}") from error

    def run(tensor: Array) -> Array:
        try:
            return np.asarray(session.run([target], {source: tensor})[0])
        except Exception as error:
            raise ReferenceRunError(f"onnxruntime failed: {error}") from error

    return run
