"""Everything that can go wrong with a model, by name.

Each error carries a stable ``code`` for programs, a sentence for people, the ONNX node where
there is one, and a hint where something can be done about it.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Detail:
    """One mistake among several of the same kind."""

    message: str
    node: str | None = None
    hint: str | None = None


class CompileError(Exception):
    """A model could not be compiled; ``code`` says why in one word."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, node: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self.hint = hint
        self.details: tuple[Detail, ...] = (Detail(message, node, hint),)

    @classmethod
    def of(cls, details: Sequence[Detail]) -> CompileError:
        """One error that reports several mistakes together."""
        first = details[0]
        error = cls(
            "; ".join(detail.message for detail in details),
            node=first.node,
            hint=next((detail.hint for detail in details if detail.hint), None),
        )
        error.details = tuple(details)
        return error


class InvalidSpecError(CompileError):
    """The specification is not the JSON that ``model-spec`` writes."""

    code = "invalid_spec"


class UnsupportedOptionError(CompileError):
    """The specification asks for something that the compiler does not carry out yet."""

    code = "unsupported_option"


class SpecMismatchError(CompileError):
    """The specification and the ONNX file contradict each other."""

    code = "spec_mismatch"


class MissingFileError(CompileError):
    """A file that was named does not exist or cannot be read."""

    code = "missing_file"


class CorruptOnnxError(CompileError):
    """The file is empty, cut short, or not a valid ONNX model."""

    code = "corrupt_onnx"


class ExternalDataError(CompileError):
    """Weights that lie in a file of their own are missing, cut short or outside the folder."""

    code = "external_data"


class OpsetError(CompileError):
    """The operator set is older or newer than those the compiler knows."""

    code = "opset"


class UnsupportedOperatorError(CompileError):
    """The graph asks for operators that the compiler cannot express."""

    code = "unsupported_operator"


class UnsupportedDtypeError(CompileError):
    """A tensor has an element type that the runtime does not compute with."""

    code = "unsupported_dtype"


class DynamicDimensionError(CompileError):
    """An extent is still unknown after the input's shape was bound."""

    code = "dynamic_dimension"


class SeveralInputsError(CompileError):
    """The graph reads more than one tensor."""

    code = "several_inputs"


class NoInputError(CompileError):
    """The output does not depend on any input."""

    code = "no_input"


class SeveralOutputsError(CompileError):
    """The graph writes several tensors and the specification names none."""

    code = "several_outputs"


class TooLargeError(CompileError):
    """The model does not fit into the 4 GiB that WebAssembly can address."""

    code = "too_large"


class DiskFullError(CompileError):
    """The disk or the quota was exhausted while writing."""

    code = "disk_full"


class FileError(CompileError):
    """The operating system refused to read or write a file."""

    code = "io"


class MissingToolError(CompileError):
    """An optional Python package that this command needs is not installed."""

    code = "missing_tool"


def from_os_error(error: OSError, doing: str) -> CompileError:
    """Names a failed system call: a full disk apart from everything else."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFullError(f"{doing}: {reason}", hint="free some space and build again")
    return FileError(f"{doing}: {reason}")
