"""Opens an ONNX file, with the files its weights lie in, and refuses what is not a valid model."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import checker, external_data_helper

from graphlet_compiler.errors import (
    CorruptOnnxError,
    ExternalDataError,
    MissingFileError,
    OpsetError,
    TooLargeError,
    UnsupportedOperatorError,
    from_os_error,
)

# Below 7 broadcasting and several operators meant something else; files that old are rare, and
# onnx's own converter brings them up.
OLDEST_OPSET = 7

# Standard operators that are written as functions of simpler ones, and that TVM's importer lacks
# or gets wrong.
_EXPANDED = (
    "AffineGrid",
    "Attention",
    "CausalConvWithState",
    "Celu",
    "CenterCropPad",
    "GroupNormalization",
    "LinearAttention",
    "NegativeLogLikelihoodLoss",
    "RMSNormalization",
    "RotaryEmbedding",
    "SoftmaxCrossEntropyLoss",
    "Swish",
)
# Those of which TVM gives the first output only.
_FIRST_OUTPUT_ONLY = ("LayerNormalization",)
_PREVIEW = "ai.onnx.preview"
_EXPANDED_PREVIEW = ("FlexAttention",)

# Longest serialised message that protobuf's C++ reader and ONNX's checker take.
_MAX_MESSAGE_BYTES = 2**31 - 1


def read(path: Path) -> onnx.ModelProto:
    """Reads the model without the weights that lie in files of their own."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"no ONNX file at `{path.name}`") from error
    except OSError as error:
        raise from_os_error(error, f"cannot read `{path.name}`") from error
    if not data:
        raise CorruptOnnxError(f"`{path.name}` is empty")
    if len(data) > _MAX_MESSAGE_BYTES:
        raise TooLargeError(f"`{path.name}` has {len(data)} bytes, more than protobuf can hold")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise CorruptOnnxError(
            f"`{path.name}` is not an ONNX model or was cut short",
            hint="a file kept by Git LFS must be fetched with `git lfs pull` first"
            if data.startswith(b"version https://git-lfs")
            else None,
        ) from error
    if model.ir_version == 0 or not model.graph.node:
        raise CorruptOnnxError(f"`{path.name}` holds no graph")
    return model


def load(path: Path) -> onnx.ModelProto:
    """Reads the whole model and checks it."""
    model = read(path)
    check_opset(model)
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (checker.ValidationError, ValueError, OSError) as error:
        raise ExternalDataError(
            f"cannot read weights that lie outside `{path.name}`: {_first_line(error)}",
            hint="keep the external data files beside the ONNX file under the names it gives them",
        ) from error
    if model.ByteSize() <= _MAX_MESSAGE_BYTES:
        check(model)
    if any(initializer for initializer in model.graph.sparse_initializer):
        raise CorruptOnnxError(
            "the model has sparse weights, which the compiler does not read",
            hint="export it with dense weights",
        )
    return model


def expand(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replaces functions by what they stand for: the file's own, and some of the standard's."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    # What a function stands for may be written with another one.
    seen: set[tuple[str, str]] = set()
    while standard := _to_expand(model, seen):
        seen.update(standard)
        model = _expand_standard(model, standard)
    return model


def _to_expand(model: onnx.ModelProto, seen: set[tuple[str, str]]) -> list[tuple[str, str]]:
    nodes = [node for node in model.graph.node if _expands(node)]
    found = {("" if n.domain == "ai.onnx" else n.domain, n.op_type) for n in nodes}
    # An operator set that has no such function yet leaves the operator as it is.
    return sorted(found - seen)


def _expands(node: onnx.NodeProto) -> bool:
    if node.domain == _PREVIEW:
        return node.op_type in _EXPANDED_PREVIEW
    if node.domain not in ("", "ai.onnx"):
        return False
    further = node.op_type in _FIRST_OUTPUT_ONLY and any(node.output[1:])
    return further or node.op_type in _EXPANDED


def _expand_standard(model: onnx.ModelProto, standard: list[tuple[str, str]]) -> onnx.ModelProto:
    # The body of some depends on types, which are written down for inputs only.
    declared = onnx.shape_inference.infer_shapes(model).graph.value_info
    for tensor in model.graph.initializer:
        declared.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    # The inliner looks up the type of an input that was left out, too.
    declared.append(onnx.ValueInfoProto(name="", type=onnx.TypeProto()))
    del model.graph.value_info[:]
    model.graph.value_info.extend(declared)
    try:
        return onnx.inliner.inline_selected_functions(
            model, standard, exclude=False, inline_schema_functions=True
        )
    except RuntimeError as error:
        names = ", ".join(op for _, op in standard)
        raise UnsupportedOperatorError(
            f"{names}: onnx cannot write the operator out: {_first_line(error)}",
            node=next(node.name for node in model.graph.node if _expands(node)),
        ) from error


def check(model: onnx.ModelProto) -> None:
    """Refuses what ONNX's own checker takes for malformed."""
    # The checker wants the shape of every input and output written; files without exist, and
    # runtimes take them.
    tensors = [v.type.tensor_type for v in (*model.graph.input, *model.graph.output)]
    open_ = [t for t in tensors if not t.HasField("shape")]
    for tensor in open_:
        tensor.shape.SetInParent()
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise CorruptOnnxError(f"not a valid ONNX model: {_first_line(error)}") from error
    for tensor in open_:
        tensor.ClearField("shape")


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operator set; 0 if the file names none."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def check_opset(model: onnx.ModelProto) -> None:
    """Refuses operator sets whose meaning the compiler does not know."""
    version, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if version == 0 and all(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        return  # None of its operators is of the standard set.
    if version == 0:
        raise OpsetError("the file does not name a version of the standard operator set")
    if version < OLDEST_OPSET:
        raise OpsetError(
            f"operator set {version} is too old: {OLDEST_OPSET} to {newest} are known",
            hint="bring it up with onnx.version_converter.convert_version(model, 13)",
        )
    if version > newest:
        raise OpsetError(
            f"operator set {version} is too new: {OLDEST_OPSET} to {newest} are known",
            hint=f"export the model with operator set {min(newest, 21)}",
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
