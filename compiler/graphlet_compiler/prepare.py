"""From an ONNX file and its specification to a graph with one input, one output and no names
left open: input and output are chosen, symbolic extents bound, what is not needed dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from graphlet_compiler import onnx_file
from graphlet_compiler.errors import (
    CorruptOnnxError,
    Detail,
    NoInputError,
    SeveralInputsError,
    SeveralOutputsError,
    SpecMismatchError,
    UnsupportedDtypeError,
)
from graphlet_compiler.graph import Graph, read_node
from graphlet_compiler.onnx_facts import Extent, extents_of
from graphlet_compiler.spec import ModelSpec


def read_graph(model: onnx.ModelProto) -> Graph:
    """The nodes and weights of a model; its inputs and outputs are still to be chosen."""
    return Graph(
        nodes=[read_node(proto) for proto in model.graph.node],
        constants={t.name: _array(t) for t in model.graph.initializer},
        inputs=[],
        outputs=[],
        opset=onnx_file.opset_of(model),
        opsets={o.domain: o.version for o in model.opset_import},
        # Before 4 every constant had to be an input as well.
        ir_version=max(model.ir_version, 4),
    )


def open_graph(model: onnx.ModelProto, spec: ModelSpec) -> Graph:
    """Chooses input and output as the specification says and binds the input's shape."""
    graph = read_graph(model)
    declared = {i.name: i for i in model.graph.input if i.name not in graph.constants}
    wrong: list[Detail] = []
    output = _choose_output(graph, [o.name for o in model.graph.output], spec, wrong)
    if output is not None:
        graph.outputs, graph.declared_outputs = [output], [output]
        graph.prune()
    chosen = _choose_input(graph, declared, spec, wrong)
    if chosen is not None:
        graph.inputs = [chosen.name]
        _compare_shape(extents_of(chosen), spec, wrong)
    if wrong:
        raise SpecMismatchError.of(wrong)
    graph.shapes[graph.input] = spec.input.shape
    graph.dtypes[graph.input] = np.dtype(np.float32)
    return graph


def _choose_output(
    graph: Graph, declared: Sequence[str], spec: ModelSpec, wrong: list[Detail]
) -> str | None:
    name = spec.output.name
    if not name:
        if len(declared) > 1:
            raise SeveralOutputsError(
                f"the graph has {len(declared)} outputs: {_list(declared)}",
                hint="choose one with output.name in model.toml",
            )
        return declared[0]
    # Any tensor of the graph may be chosen: the logits before a softmax, for example.
    if name in declared or name in graph.producers():
        return name
    wrong.append(
        Detail(f"output.name: the graph has no `{name}`", hint=f"its outputs: {_list(declared)}")
    )
    return None


def _choose_input(
    graph: Graph, declared: dict[str, onnx.ValueInfoProto], spec: ModelSpec, wrong: list[Detail]
) -> onnx.ValueInfoProto | None:
    name = spec.input.name
    if name and name not in declared:
        wrong.append(
            Detail(f"input.name: the graph has no `{name}`", hint=f"its inputs: {_list(declared)}")
        )
        return None
    if not graph.output:
        return declared[name] if name else None
    read = {i for node in graph.nodes for i in node.inputs} | {graph.output}
    needed = [i for i in declared if i in read]
    if len(needed) > 1:
        raise SeveralInputsError(
            f"the output `{graph.output}` depends on {len(needed)} inputs: {_list(needed)}",
            hint="an image model reads one tensor; make the others constants when exporting",
        )
    if not needed or not graph.nodes:
        raise NoInputError(f"nothing is computed between the input and `{graph.output}`")
    if name and name != needed[0]:
        wrong.append(
            Detail(f"input.name: the output does not depend on `{name}` but on `{needed[0]}`")
        )
        return None
    chosen = declared[needed[0]]
    kind = chosen.type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        raise UnsupportedDtypeError(
            f"the input `{chosen.name}` is {_dtype_name(kind)}, not float32",
            node=chosen.name,
            hint="export the model with a float32 input",
        )
    return chosen


def _compare_shape(extents: list[Extent] | None, spec: ModelSpec, wrong: list[Detail]) -> None:
    shape, layout = spec.input.shape, spec.input.layout
    if extents is not None:
        if len(extents) != len(shape):
            wrong.append(
                Detail(
                    f"input.shape: {list(shape)}, but the graph reads {_shape(extents)}",
                    hint="the graph does not read an image tensor" if len(extents) != 4 else None,
                )
            )
        elif any(isinstance(e, int) and e != s for e, s in zip(extents, shape, strict=True)):
            wrong.append(
                Detail(
                    f"input.shape: {list(shape)}, but the graph reads {_shape(extents)}",
                    hint=f'set input.layout = "{_other_layout(extents, spec)}"'
                    if _other_layout(extents, spec)
                    else f"set input.shape = {_bound(extents, shape)}",
                )
            )
    if spec.channels is not None and shape[layout.channel_axis] != spec.channels:
        wrong.append(
            Detail(
                f"preprocess.channels: {spec.channels} channels, but input.shape with layout "
                f"{layout.value} has {shape[layout.channel_axis]}"
            )
        )


def _other_layout(extents: list[Extent], spec: ModelSpec) -> str:
    n, a, b, c = spec.input.shape
    swapped = (n, c, a, b) if spec.input.layout.value == "NHWC" else (n, b, c, a)
    fits = all(not isinstance(e, int) or e == s for e, s in zip(extents, swapped, strict=True))
    if not fits:
        return ""
    return "NCHW" if spec.input.layout.value == "NHWC" else "NHWC"


def _bound(extents: list[Extent], shape: Sequence[int]) -> list[int]:
    return [e if isinstance(e, int) else s for e, s in zip(extents, shape, strict=True)]


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise CorruptOnnxError(f"the weights `{tensor.name}` are damaged: {error}") from error


def _dtype_name(kind: int) -> str:
    return str(onnx.TensorProto.DataType.Name(kind)).lower()


def _shape(extents: Sequence[Extent]) -> str:
    return "[" + ", ".join(str(e) or "?" for e in extents) + "]"


def _list(names: Sequence[str] | dict[str, onnx.ValueInfoProto]) -> str:
    return ", ".join(f"`{name}`" for name in names)
