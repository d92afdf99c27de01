"""One operator as an ONNX model: ``python -m graphlet_compiler.operator_model``.

The operator is told as JSON: ``{"operator": "Softmax", "domain": "", "opset": null, "inputs":
[{"dtype": "float32", "shape": [1, 1000]}], "attributes": {"axis": "-1"}, "outputs": null}``. An
input with ``values`` is a constant of the model, as TVM wants shapes and axes to be; ``null`` is an
optional input that is left out. Attributes are text, read as the type that the operator's schema
gives them. What is wrong is told with what would be right.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnx
from onnx import TensorProto, checker, defs, helper, shape_inference

from graphlet_compiler.errors import CompileError
from graphlet_compiler.events import Events
from graphlet_compiler.onnx_file import OLDEST_OPSET

_Schema = defs.OpSchema
_AttrType = defs.OpSchema.AttrType
_Option = defs.OpSchema.FormalParameterOption

# As graphs name their element types, with ONNX's number and the name in a schema's types.
_DTYPES = {
    "float16": (TensorProto.FLOAT16, "float16"),
    "bfloat16": (TensorProto.BFLOAT16, "bfloat16"),
    "float32": (TensorProto.FLOAT, "float"),
    "float64": (TensorProto.DOUBLE, "double"),
    "int8": (TensorProto.INT8, "int8"),
    "int16": (TensorProto.INT16, "int16"),
    "int32": (TensorProto.INT32, "int32"),
    "int64": (TensorProto.INT64, "int64"),
    "uint8": (TensorProto.UINT8, "uint8"),
    "uint16": (TensorProto.UINT16, "uint16"),
    "uint32": (TensorProto.UINT32, "uint32"),
    "uint64": (TensorProto.UINT64, "uint64"),
    "bool": (TensorProto.BOOL, "bool"),
}
# 32 bits address that much.
_MEMORY_BYTES = 1 << 32
_DTYPE_OF_SCHEMA = {f"tensor({schema})": name for name, (_, schema) in _DTYPES.items()}


class WrongOperatorError(CompileError):
    """The operator does not exist, or does not take what it is to be given."""

    code = "wrong_operator"


@dataclass(frozen=True)
class Input:
    """An input: its type and shape, and its values if it is a constant."""

    dtype: str
    shape: tuple[int, ...]
    values: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Operator:
    """What the model is to be made of."""

    operator: str
    inputs: Sequence[Input | None]
    attributes: dict[str, str] = field(default_factory=dict)
    domain: str = ""
    opset: int | None = None
    outputs: int | None = None


def parse(value: Any) -> Operator:
    """Reads what the builder wrote."""

    def one(entry: Any) -> Input | None:
        if entry is None:
            return None
        values = entry.get("values")
        shape = tuple(int(extent) for extent in entry["shape"])
        return Input(entry["dtype"], shape, None if values is None else tuple(values))

    return Operator(
        operator=value["operator"],
        inputs=[one(entry) for entry in value["inputs"]],
        attributes=dict(value.get("attributes") or {}),
        domain=value.get("domain") or "",
        opset=value.get("opset"),
        outputs=value.get("outputs"),
    )


def model_of(operator: Operator) -> onnx.ModelProto:
    """The model with this one node; checked by ONNX, with the shapes that it infers."""
    domain = "" if operator.domain == "ai.onnx" else operator.domain
    opset = operator.opset or _newest_opset(domain)
    schema = _schema(operator.operator, domain, opset)
    inputs = _named_inputs(schema, operator.inputs)
    outputs = _output_names(schema, operator.outputs)
    node = helper.make_node(
        operator.operator,
        [name for name, _ in inputs],
        outputs,
        name=operator.operator,
        domain=domain,
    )
    node.attribute.extend(_attributes(schema, operator.attributes))

    given, constants = [], []
    for name, tensor in inputs:
        if tensor is None:
            continue
        number = _DTYPES[tensor.dtype][0]
        if tensor.values is None:
            _check_size(name, tensor)
            given.append(helper.make_tensor_value_info(name, number, tensor.shape))
        else:
            constants.append(_constant(name, tensor))
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], operator.operator, given, results, constants)
    imports = [helper.make_opsetid(domain, opset)]
    if domain:
        imports.append(helper.make_opsetid("", _newest_opset("")))
    model = helper.make_model(
        graph,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="graphlet",
    )
    return _inferred(model, schema)


def _check_size(name: str, tensor: Input) -> None:
    """Refuses data that a module cannot hold, and none at all."""
    size = (
        math.prod(tensor.shape) * helper.tensor_dtype_to_np_dtype(_DTYPES[tensor.dtype][0]).itemsize
    )
    if size == 0:
        raise WrongOperatorError(f"input `{name}` has no elements: nothing is left to compute")
    if size > _MEMORY_BYTES:
        raise WrongOperatorError(
            f"input `{name}` has {size / 1e9:.1f} GB, and the memory of a module ends at 4.3 GB"
        )


def _newest_opset(domain: str) -> int:
    if not domain:
        # The package knows one that is not released yet.
        released = helper.OP_SET_ID_VERSION_MAP
        return max(version for name, version in released if name == "ai.onnx")
    versions = [s.since_version for s in defs.get_all_schemas() if s.domain == domain]
    if not versions:
        raise WrongOperatorError(f"ONNX has no operators of the domain `{domain}`")
    return max(versions)


def _schema(name: str, domain: str, opset: int) -> _Schema:
    newest = _newest_opset(domain)
    if not 1 <= opset <= newest:
        raise WrongOperatorError(f"opset {opset} is none; the newest here is {newest}")
    if not domain and opset < OLDEST_OPSET:
        raise WrongOperatorError(
            f"opset {opset} is too old: {OLDEST_OPSET} to {newest} are known",
            hint="leave --opset out for the newest",
        )
    try:
        schema = defs.get_schema(name, opset, domain)
    except defs.SchemaError:
        schema = None
    if schema is not None and not schema.deprecated:
        return schema
    where = f"opset {opset}" + (f" of {domain}" if domain else "")
    known = {s.name for s in defs.get_all_schemas() if s.domain == domain and not s.deprecated}
    by_case = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_case, n=3)
    hint = f"is it {' or '.join(by_case[found] for found in close)}?" if close else None
    if schema is not None:
        raise WrongOperatorError(f"{name} is deprecated in {where}", hint=hint)
    if name in known:
        hint = "it came with a later one: leave --opset out"
    raise WrongOperatorError(f"ONNX has no operator `{name}` in {where}", hint=hint)


def _signature(schema: _Schema) -> str:
    def show(parameter: Any) -> str:
        mark = {_Option.Optional: "?", _Option.Variadic: "..."}.get(parameter.option, "")
        return f"{parameter.name}{mark}"

    return f"{schema.name}({', '.join(show(parameter) for parameter in schema.inputs)})"


def _named_inputs(schema: _Schema, given: Sequence[Input | None]) -> list[tuple[str, Input | None]]:
    hint = f"its inputs are {_signature(schema)}"
    # One behind the last that is given says nothing.
    given = list(given)
    while given and given[-1] is None:
        given.pop()
    if not schema.min_input <= len(given) <= schema.max_input:
        most = schema.max_input
        wanted = (
            f"{schema.min_input}"
            if most == schema.min_input
            else f"at least {schema.min_input}"
            if most > 1000
            else f"{schema.min_input} to {most}"
        )
        raise WrongOperatorError(
            f"{schema.name} takes {wanted} inputs, not {len(given)}", hint=hint
        )
    named: list[tuple[str, Input | None]] = []
    for index, tensor in enumerate(given):
        parameter = schema.inputs[min(index, len(schema.inputs) - 1)]
        if tensor is None:
            if parameter.option != _Option.Optional:
                raise WrongOperatorError(
                    f"{schema.name} cannot go without its input `{parameter.name}`", hint=hint
                )
            named.append(("", None))
            continue
        allowed = parameter.types
        if f"tensor({_DTYPES[tensor.dtype][1]})" not in allowed:
            names = sorted(_DTYPE_OF_SCHEMA[t] for t in allowed if t in _DTYPE_OF_SCHEMA)
            raise WrongOperatorError(
                f"input `{parameter.name}` of {schema.name} cannot be {tensor.dtype}",
                hint=f"it may be {', '.join(names)}" if names else "a graph has no such tensors",
            )
        variadic = parameter.option == _Option.Variadic
        number = index - len(schema.inputs) + 1
        named.append((f"{parameter.name}_{number}" if variadic else parameter.name, tensor))
    return named


def _output_names(schema: _Schema, wanted: int | None) -> list[str]:
    least = max(schema.min_output, 1)
    count = least if wanted is None else wanted
    if not least <= count <= schema.max_output:
        raise WrongOperatorError(
            f"{schema.name} gives {least} to {schema.max_output} outputs, not {count}"
            if schema.max_output > least
            else f"{schema.name} gives {least} outputs, not {count}"
        )
    names: list[str] = []
    for index in range(count):
        parameter = schema.outputs[min(index, len(schema.outputs) - 1)]
        variadic = parameter.option == _Option.Variadic
        number = index - len(schema.outputs) + 1
        # An operator may call an output as it calls an input; a graph's names differ.
        name = f"{parameter.name}_{number}" if variadic else parameter.name
        taken = {p.name for p in schema.inputs} | set(names)
        names.append(f"{name}_out" if name in taken else name)
    return names


def _attributes(schema: _Schema, given: dict[str, str]) -> list[onnx.AttributeProto]:
    hint = f"{schema.name} has {', '.join(sorted(schema.attributes)) or 'no attributes'}"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in given:
            raise WrongOperatorError(
                f"{schema.name} needs the attribute `{name}`, {_article(attribute.type)}",
                hint=f"--attribute {name}=...",
            )
    found = []
    for name, text in given.items():
        if name not in schema.attributes:
            raise WrongOperatorError(f"{schema.name} has no attribute `{name}`", hint=hint)
        found.append(_attribute(schema, name, schema.attributes[name].type, text))
    return found


def _article(kind: Any) -> str:
    return {
        _AttrType.INT: "a whole number",
        _AttrType.FLOAT: "a number",
        _AttrType.STRING: "a text",
        _AttrType.INTS: "whole numbers with commas between them",
        _AttrType.FLOATS: "numbers with commas between them",
        _AttrType.STRINGS: "texts with commas between them",
    }.get(kind, f"a {kind.name.lower()}")


def _attribute(schema: _Schema, name: str, kind: Any, text: str) -> onnx.AttributeProto:
    parts = [part.strip() for part in text.split(",")] if text else []
    readers: dict[Any, Callable[[], Any]] = {
        _AttrType.INT: lambda: int(text),
        _AttrType.FLOAT: lambda: float(text),
        _AttrType.STRING: lambda: text,
        _AttrType.INTS: lambda: [int(part) for part in parts],
        _AttrType.FLOATS: lambda: [float(part) for part in parts],
        _AttrType.STRINGS: lambda: parts,
    }
    read = readers.get(kind)
    if read is None:
        raise WrongOperatorError(
            f"the attribute `{name}` of {schema.name} is {_article(kind)}, which no command line "
            "can hold",
            hint="write the node as an ONNX file and build that",
        )
    try:
        return helper.make_attribute(name, read(), attr_type=int(kind.value))
    except (ValueError, OverflowError, TypeError):
        raise WrongOperatorError(
            f"the attribute `{name}` of {schema.name} is {_article(kind)}, not `{text}`"
        ) from None


def _constant(name: str, tensor: Input) -> onnx.TensorProto:
    assert tensor.values is not None
    count = math.prod(tensor.shape)
    if len(tensor.values) != count:
        raise WrongOperatorError(
            f"input `{name}` has {count} elements, but {len(tensor.values)} values are given"
        )
    dtype = helper.tensor_dtype_to_np_dtype(_DTYPES[tensor.dtype][0])
    try:
        if tensor.dtype == "bool":
            words = {"true": True, "1": True, "false": False, "0": False}
            values = np.array([words[text.lower()] for text in tensor.values], dtype=dtype)
        elif tensor.dtype.startswith(("int", "uint")):
            values = np.array([int(text) for text in tensor.values], dtype=dtype)
        else:
            values = np.array([float(text) for text in tensor.values]).astype(dtype)
    except (ValueError, OverflowError, KeyError) as error:
        raise WrongOperatorError(f"input `{name}`: not all values are {tensor.dtype}") from error
    return onnx.numpy_helper.from_array(values.reshape(tensor.shape), name)


def _inferred(model: onnx.ModelProto, schema: _Schema) -> onnx.ModelProto:
    """The model with the types of its outputs; refused if the inputs do not go together."""
    hint = f"its inputs are {_signature(schema)}"
    try:
        inferred = shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
        untyped = [o.name for o in inferred.graph.output if not o.type.WhichOneof("value")]
        if untyped:
            raise WrongOperatorError(
                f"{schema.name}: the type of output `{untyped[0]}` does not follow from its inputs",
                hint=hint,
            )
        checker.check_model(inferred)
    except (shape_inference.InferenceError, checker.ValidationError) as error:
        raise WrongOperatorError(f"{schema.name}: {_reason(error)}", hint=hint) from error
    return inferred


def _reason(error: Exception) -> str:
    """What ONNX says, without the node that it says it of."""
    text = " ".join(str(error).split())
    for mark in ("[ShapeInferenceError]", "[TypeInferenceError]"):
        if mark in text:
            text = text.rsplit(mark, 1)[1]
    return text.strip().rstrip(".")


def write(told: Path, out: Path) -> None:
    """Reads what is told and writes the model."""
    model = model_of(parse(json.loads(told.read_text(encoding="utf-8"))))
    out.write_bytes(model.SerializeToString(deterministic=True))


def main(arguments: Sequence[str] | None = None, stdout: TextIO | None = None) -> int:
    """The command; errors go to standard output as events."""
    parser = argparse.ArgumentParser(prog="graphlet_compiler.operator_model", description=__doc__)
    parser.add_argument("--operator", type=Path, required=True, help="the operator, as JSON")
    parser.add_argument("--out", type=Path, required=True, help="where the ONNX file goes")
    options = parser.parse_args(arguments)
    events = Events(stdout or sys.stdout)
    try:
        write(options.operator, options.out)
    except CompileError as error:
        events.error(error)
        return 1
    events.emit({})
    return 0


if __name__ == "__main__":
    sys.exit(main())
