"""Layers to a ``.tflite`` file: python -m graphlet_bench.tflite MODEL.onnx OUT.tflite.

Uses the classes that the flatbuffer compiler made of LiteRT's own schema, which its wheel brings.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from graphlet_bench import layers
from graphlet_bench.layers import Layer, Network

# XNNPACK and wasm's vectors like weights that begin at one of their own.
_ALIGNMENT = 16
_BUILTIN = schema.BuiltinOperator
_ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes are aligned, which the generated class leaves to chance."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the generated name)
        vector = None
        if self.data is not None:
            data = self.data.tobytes()
            builder.StartVector(1, len(data), _ALIGNMENT)
            builder.head = builder.head - len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


class _Writer:
    def __init__(self) -> None:
        self.buffers: list[Any] = [_Buffer()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[int] = []
        self.index: dict[str, int] = {}

    def tensor(self, name: str, shape: tuple[int, ...], data: NDArray[Any] | None = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), np.array(shape, np.int32)
        integers = data is not None and data.dtype == np.int32
        tensor.type = schema.TensorType.INT32 if integers else schema.TensorType.FLOAT32
        if data is not None:
            buffer = _Buffer()
            buffer.data = np.ascontiguousarray(data)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        self.index[name] = len(self.tensors) - 1
        return self.index[name]

    def operator(
        self, code: int, kind: int, options: Any, inputs: list[int], outputs: list[int]
    ) -> None:
        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array(outputs, np.int32)
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self.operators.append(operator)

    def layer(self, layer: Layer) -> None:
        options, code = _options(layer)
        inputs = [self.index[name] for name in layer.inputs]
        if isinstance(layer.padding, tuple):
            inputs[0] = self.pad(layer, inputs[0])
        if layer.weights is not None and layer.bias is not None:
            weights = layer.weights[None] if layer.kind == "depthwise" else layer.weights
            inputs.append(self.tensor(f"{layer.name}/weights", weights.shape, weights))
            inputs.append(self.tensor(f"{layer.name}/bias", layer.bias.shape, layer.bias))
        for part in ("begin", "size") if layer.kind == "slice" else ():
            value = layer.begin if part == "begin" else layer.shape
            array = np.array(value, np.int32)
            inputs.append(self.tensor(f"{layer.name}/{part}", array.shape, array))
        if layer.kind == "reshape":
            array = np.array(layer.shape, np.int32)
            inputs.append(self.tensor(f"{layer.name}/shape", array.shape, array))
        output = self.tensor(layer.name, layer.shape)
        kind = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operator(code, kind, options, inputs, [output])

    def pad(self, layer: Layer, source: int) -> int:
        """Zeros around the layer's input; XNNPACK takes them into the convolution."""
        assert isinstance(layer.padding, tuple), "asked for explicit padding only"
        top, bottom, left, right = layer.padding
        amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        batch, height, width, channels = self.tensors[source].shape
        shape = (batch, height + top + bottom, width + left + right, channels)
        constant = self.tensor(f"{layer.name}/paddings", (4, 2), amounts)
        padded = self.tensor(f"{layer.name}/padded", tuple(int(extent) for extent in shape))
        options = schema.PadOptionsT()
        kind = schema.BuiltinOptions.PadOptions
        self.operator(_BUILTIN.PAD, kind, options, [source, constant], [padded])
        return padded

    def finish(self, network: Network) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs = np.array([self.index[network.input]], np.int32)
        graph.outputs = np.array([self.index[network.output]], np.int32)
        graph.name = b"main"
        model = schema.ModelT()
        model.version, model.description = 3, b"made by graphlet's bench"
        model.subgraphs, model.buffers = [graph], self.buffers
        model.operatorCodes = []
        for code in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.version = code, 1
            entry.deprecatedBuiltinCode = min(code, 127)
            model.operatorCodes.append(entry)
        model.signatureDefs = [_signature(self.index, network)]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _signature(index: dict[str, int], network: Network) -> Any:
    def entry(name: bytes, tensor: str) -> Any:
        value = schema.TensorMapT()
        value.name, value.tensorIndex = name, index[tensor]
        return value

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [entry(b"input", network.input)]
    signature.outputs = [entry(b"output", network.output)]
    return signature


def _options(layer: Layer) -> tuple[Any, int]:
    """The operator's settings, and its code."""
    made, code = {
        "conv": (schema.Conv2DOptionsT, _BUILTIN.CONV_2D),
        "depthwise": (schema.DepthwiseConv2DOptionsT, _BUILTIN.DEPTHWISE_CONV_2D),
        "dense": (schema.FullyConnectedOptionsT, _BUILTIN.FULLY_CONNECTED),
        "max_pool": (schema.Pool2DOptionsT, _BUILTIN.MAX_POOL_2D),
        "average_pool": (schema.Pool2DOptionsT, _BUILTIN.AVERAGE_POOL_2D),
        "add": (schema.AddOptionsT, _BUILTIN.ADD),
        "concat": (schema.ConcatenationOptionsT, _BUILTIN.CONCATENATION),
        "reshape": (schema.ReshapeOptionsT, _BUILTIN.RESHAPE),
        "softmax": (schema.SoftmaxOptionsT, _BUILTIN.SOFTMAX),
        "slice": (schema.SliceOptionsT, _BUILTIN.SLICE),
    }[layer.kind]
    options = made()
    if layer.kind in ("conv", "depthwise", "max_pool", "average_pool"):
        same = layer.padding == "SAME"
        options.padding = schema.Padding.SAME if same else schema.Padding.VALID
        options.strideH, options.strideW = layer.strides
    if layer.kind in ("conv", "depthwise"):
        options.dilationHFactor = options.dilationWFactor = 1
    if layer.kind == "depthwise":
        options.depthMultiplier = 1
    if layer.kind in ("max_pool", "average_pool"):
        options.filterHeight, options.filterWidth = layer.window
    if layer.kind == "concat":
        options.axis = 3
    if layer.kind == "softmax":
        options.beta = 1.0
    if layer.kind == "reshape":
        options.newShape = np.array(layer.shape, np.int32)
    if hasattr(options, "fusedActivationFunction"):
        options.fusedActivationFunction = _ACTIVATIONS[layer.activation]
    return options, code


def write(network: Network) -> bytes:
    """The file's bytes."""
    writer = _Writer()
    writer.tensor(network.input, network.input_shape)
    for layer in network.layers:
        writer.layer(layer)
    return writer.finish(network)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(write(layers.read(Path(sys.argv[1]))))
