"""Layers to a TensorFlow.js graph model: python -m graphlet_bench.tfjs MODEL.onnx OUT.json.

Writes ``OUT.json`` (the graph as a ``GraphDef`` in JSON, as ``tensorflowjs_converter`` does) and
``OUT.bin`` (the weights) beside it. Convolutions carry bias and activation, which is what that
converter's optimiser makes of them too.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphlet_bench import layers
from graphlet_bench.layers import Layer, Network

_FLOAT, _INT = {"type": "DT_FLOAT"}, {"type": "DT_INT32"}
_RELU = {"relu": "Relu", "relu6": "Relu6"}


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.specs: list[dict[str, Any]] = []
        self.data: list[bytes] = []

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append({"name": name, "op": op, "input": inputs, "attr": attributes})
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        kind, dtype = (_INT, "int32") if values.dtype == np.int32 else (_FLOAT, "float32")
        shape = {"dim": [{"size": str(extent)} for extent in values.shape]}
        tensor = {"dtype": kind["type"], "tensorShape": shape}
        self.specs.append({"name": name, "shape": list(values.shape), "dtype": dtype})
        self.data.append(np.ascontiguousarray(values).tobytes())
        return self.node("Const", name, [], dtype=kind, value={"tensor": tensor})

    def layer(self, layer: Layer) -> None:
        name, inputs = layer.name, list(layer.inputs)
        if isinstance(layer.padding, tuple) and layer.kind == "max_pool":
            top, bottom, left, right = layer.padding
            amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
            around = self.constant(f"{name}/paddings", amounts)
            inputs[0] = self.node("Pad", f"{name}/padded", [inputs[0], around], T=_FLOAT)
        match layer.kind:
            case "conv" | "depthwise" | "dense":
                self.weighted(layer, inputs)
            case "max_pool" | "average_pool":
                op = "MaxPool" if layer.kind == "max_pool" else "AvgPool"
                padding = "SAME" if layer.padding == "SAME" else "VALID"
                self.node(
                    op,
                    name,
                    inputs,
                    T=_FLOAT,
                    ksize=_list(1, *layer.window, 1),
                    strides=_list(1, *layer.strides, 1),
                    padding=_text(padding),
                    data_format=_text("NHWC"),
                )
            case "add":
                plain = layer.activation == "none"
                summed = self.node("AddV2", name if plain else f"{name}/sum", inputs, T=_FLOAT)
                if not plain:
                    self.node(_RELU[layer.activation], name, [summed], T=_FLOAT)
            case "concat":
                axis = self.constant(f"{name}/axis", np.array(3, np.int32))
                self.node("ConcatV2", name, [*inputs, axis], N={"i": str(len(inputs))}, T=_FLOAT)
            case "reshape":
                shape = self.constant(f"{name}/shape", np.array(layer.shape, np.int32))
                self.node("Reshape", name, [*inputs, shape], T=_FLOAT)
            case "softmax":
                self.node("Softmax", name, inputs, T=_FLOAT)
            case "slice":
                begin = self.constant(f"{name}/begin", np.array(layer.begin, np.int32))
                size = self.constant(f"{name}/size", np.array(layer.shape, np.int32))
                self.node("Slice", name, [*inputs, begin, size], T=_FLOAT)
            case _:
                raise layers.UnsupportedError(layer.kind)

    def weighted(self, layer: Layer, inputs: list[str]) -> None:
        """A convolution or dense layer with its bias and activation inside."""
        if layer.weights is None or layer.bias is None:
            raise layers.UnsupportedError(f"{layer.kind} without weights")
        if layer.kind == "conv":
            op, weights = "_FusedConv2D", layer.weights.transpose(1, 2, 3, 0)
        elif layer.kind == "depthwise":
            op, weights = "FusedDepthwiseConv2dNative", layer.weights[..., None]
        else:
            op, weights = "_FusedMatMul", layer.weights.T
        inputs.append(self.constant(f"{layer.name}/weights", weights))
        inputs.append(self.constant(f"{layer.name}/bias", layer.bias))
        fused = ["BiasAdd"] + [_RELU[a] for a in [layer.activation] if a != "none"]
        attributes: dict[str, Any] = {
            "T": _FLOAT,
            "num_args": {"i": "1"},
            "fused_ops": {"list": {"s": [_bytes(text) for text in fused]}},
            "epsilon": {"f": 0.0},
        }
        if layer.kind == "dense":
            attributes |= {"transpose_a": {"b": False}, "transpose_b": {"b": False}}
        else:
            explicit = isinstance(layer.padding, tuple)
            padding = "EXPLICIT" if explicit else str(layer.padding)
            attributes |= {
                "strides": _list(1, *layer.strides, 1),
                "dilations": _list(1, 1, 1, 1),
                "data_format": _text("NHWC"),
                "padding": _text(padding),
                "explicit_paddings": _list(0, 0, *layer.padding, 0, 0) if explicit else _list(),
            }
        self.node(op, layer.name, inputs, **attributes)


def _bytes(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(text: str) -> dict[str, str]:
    return {"s": _bytes(text)}


def _list(*numbers: int) -> dict[str, dict[str, list[str]]]:
    return {"list": {"i": [str(number) for number in numbers]}}


def write(network: Network) -> tuple[dict[str, Any], bytes]:
    """The model as ``tf.io.fromMemory`` takes it, and the weights in the order of its specs."""
    writer = _Writer()
    shape = {"dim": [{"size": str(extent)} for extent in network.input_shape]}
    writer.node("Placeholder", network.input, [], dtype=_FLOAT, shape={"shape": shape})
    for layer in network.layers:
        writer.layer(layer)
    model = {
        "format": "graph-model",
        "modelTopology": {"node": writer.nodes, "versions": {"producer": 1}},
        "weightSpecs": writer.specs,
        "input": network.input,
        "output": network.output,
    }
    return model, b"".join(writer.data)


if __name__ == "__main__":
    made, weights = write(layers.read(Path(sys.argv[1])))
    target = Path(sys.argv[2])
    target.with_suffix(".bin").write_bytes(weights)
    target.write_text(json.dumps(made))
