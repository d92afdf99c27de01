"""ONNX to a list of layers as TensorFlow's runtimes want them: NHWC, folded, activations fused.

TensorFlow itself is not needed to make a ``.tflite`` file or a tfjs graph model: an image
classifier is a dozen kinds of layers, and both formats are plain containers. What a converter
would do is done here once, and ``tflite`` and ``tfjs`` write the result: batch-norm goes into the
convolution before it, ReLU and ReLU6 into the layer that makes its input, weights are turned to
the target's layout. A graph with anything else is refused with the operator's name.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Floats = NDArray[np.float32]
Shape = tuple[int, ...]


class UnsupportedError(Exception):
    """The graph has a layer that this converter does not know."""


@dataclass
class Layer:
    """One operator of a network in NHWC.

    ``weights`` are (out, height, width, in) for ``conv``, (height, width, channels) for
    ``depthwise`` and (out, in) for ``dense``; ``shape`` is the output's.
    """

    kind: str
    name: str
    inputs: list[str]
    shape: Shape
    weights: Floats | None = None
    bias: Floats | None = None
    activation: str = "none"
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    #: "VALID", "SAME", or (top, bottom, left, right) of zeros
    padding: str | tuple[int, int, int, int] = "VALID"
    #: of ``slice``: where it begins in each extent
    begin: Shape = ()


@dataclass
class Network:
    """The layers in order, from one input to one output."""

    input: str
    input_shape: Shape
    output: str
    layers: list[Layer] = field(default_factory=list)


def read(path: Path) -> Network:
    """The layers of an ONNX image classifier with one picture at a time."""
    return _Reader(onnx.load(path)).read()


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.readers = Counter(name for node in self.graph.node for name in node.input)
        self.made: dict[str, Layer] = {}
        # ONNX name -> name of the tensor that holds it, and NCHW shapes as ONNX sees them
        self.names: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}

    def read(self) -> Network:
        given = next(v for v in self.graph.input if v.name not in self.constants)
        extents = [d.dim_value or 1 for d in given.type.tensor_type.shape.dim]
        if len(extents) != 4:
            raise UnsupportedError(f"input of shape {extents}: not a picture")
        n, c, h, w = extents
        self.names[given.name] = given.name
        self.shapes[given.name] = (n, c, h, w)
        network = Network(given.name, (n, h, w, c), "")
        for node in self.graph.node:
            convert = getattr(self, f"_{node.op_type.lower()}", None)
            if convert is None:
                raise UnsupportedError(f"operator {node.op_type}")
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            convert(node, attributes)
        network.layers = list(self.made.values())
        network.output = self.names[self.graph.output[0].name]
        return network

    # --- how layers are made ---------------------------------------------------------------

    def _add_layer(self, node: onnx.NodeProto, kind: str, nchw: Shape, **fields: Any) -> Layer:
        output = node.output[0]
        shape = (nchw[0], nchw[2], nchw[3], nchw[1]) if len(nchw) == 4 else nchw
        inputs = fields.pop("inputs", None) or [self.names[node.input[0]]]
        layer = Layer(kind, output, inputs, shape, **fields)
        self.made[output] = layer
        self.names[output] = output
        self.shapes[output] = nchw
        return layer

    def _alias(self, node: onnx.NodeProto) -> None:
        self.names[node.output[0]] = self.names[node.input[0]]
        self.shapes[node.output[0]] = self.shapes[node.input[0]]

    def _maker(self, node: onnx.NodeProto, kinds: tuple[str, ...]) -> Layer | None:
        """The layer that makes the node's first input, if it may still be changed."""
        layer = self.made.get(self.names[node.input[0]])
        single = self.readers[node.input[0]] == 1
        fits = layer is not None and layer.kind in kinds and layer.activation == "none"
        return layer if single and fits else None

    def _windows(
        self, node: onnx.NodeProto, attributes: dict[str, Any], window: tuple[int, int]
    ) -> tuple[tuple[int, int], str | tuple[int, int, int, int], tuple[int, int]]:
        """Strides, padding and the output's extents."""
        if list(attributes.get("dilations", [1, 1])) != [1, 1]:
            raise UnsupportedError(f"dilated {node.op_type}")
        if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise UnsupportedError(f"auto_pad of {node.op_type}")
        strides = attributes.get("strides", [1, 1])
        top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
        before, after = (top, left), (bottom, right)
        extents, same = [], True
        for axis in range(2):
            extent = self.shapes[node.input[0]][2 + axis]
            spare = extent + before[axis] + after[axis] - window[axis]
            if attributes.get("ceil_mode", 0) and spare % strides[axis]:
                raise UnsupportedError(f"ceil_mode of {node.op_type} that matters")
            out = spare // strides[axis] + 1
            extents.append(out)
            # TensorFlow's SAME: as many outputs as strides begin in the input, odd rest behind.
            total = max((out - 1) * strides[axis] + window[axis] - extent, 0)
            same &= out == -(-extent // strides[axis])
            same &= (before[axis], after[axis]) == (total // 2, total - total // 2)
        padding: str | tuple[int, int, int, int] = (top, bottom, left, right)
        if not any((top, bottom, left, right)):
            padding = "VALID"
        elif same:
            padding = "SAME"
        return (strides[0], strides[1]), padding, (extents[0], extents[1])

    # --- operators -------------------------------------------------------------------------

    def _conv(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        weights = self.constants[node.input[1]].astype(np.float32)
        out, per_group, height, width = weights.shape
        bias = np.zeros(out, np.float32)
        if len(node.input) > 2:
            bias = self.constants[node.input[2]].astype(np.float32)
        strides, padding, extents = self._windows(node, attributes, (height, width))
        group = attributes.get("group", 1)
        channels = self.shapes[node.input[0]][1]
        if group == 1:
            kind, turned = "conv", weights.transpose(0, 2, 3, 1)
        elif group == channels == out and per_group == 1:
            kind, turned = "depthwise", weights[:, 0].transpose(1, 2, 0)
        else:
            raise UnsupportedError(f"convolution of {channels} channels in {group} groups")
        self._add_layer(
            node,
            kind,
            (1, out, *extents),
            weights=np.ascontiguousarray(turned),
            bias=bias,
            window=(height, width),
            strides=strides,
            padding=padding,
        )

    def _batchnormalization(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        layer = self._maker(node, ("conv", "depthwise"))
        if layer is None or layer.weights is None or layer.bias is None:
            raise UnsupportedError("batch-norm that follows no convolution")
        scale, shift, mean, variance = (
            self.constants[name].astype(np.float64) for name in node.input[1:5]
        )
        factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        along = factor[:, None, None, None] if layer.kind == "conv" else factor
        layer.weights = (layer.weights * along).astype(np.float32)
        layer.bias = ((layer.bias - mean) * factor + shift).astype(np.float32)
        self._alias(node)

    def _relu(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        self._activate(node, "relu")

    def _clip(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        bounds = [self.constants[name].item() for name in node.input[1:3]]
        bounds = bounds or [attributes.get("min"), attributes.get("max")]
        if bounds != [0.0, 6.0]:
            raise UnsupportedError(f"clip to {bounds}")
        self._activate(node, "relu6")

    def _activate(self, node: onnx.NodeProto, activation: str) -> None:
        layer = self._maker(node, ("conv", "depthwise", "dense", "add"))
        if layer is None:
            raise UnsupportedError(f"{activation} that follows no convolution, dense or sum")
        layer.activation = activation
        self._alias(node)

    def _add(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        inputs = [self.names.get(name) for name in node.input]
        shapes = {self.shapes.get(name) for name in node.input}
        if len(inputs) != 2 or None in inputs or len(shapes) != 1:
            raise UnsupportedError(f"{node.op_type} of other than two tensors of one shape")
        self._add_layer(node, "add", self.shapes[node.input[0]], inputs=inputs)

    _sum = _add

    def _concat(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        if attributes["axis"] != 1:
            raise UnsupportedError(f"concat along axis {attributes['axis']}")
        shapes = [self.shapes[name] for name in node.input]
        shape = (1, sum(s[1] for s in shapes), *shapes[0][2:])
        inputs = [self.names[name] for name in node.input]
        self._add_layer(node, "concat", shape, inputs=inputs)

    def _maxpool(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        self._pool(node, attributes, "max_pool")

    def _averagepool(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        if any(attributes.get("pads", [0])):
            raise UnsupportedError("average pool with padding")
        self._pool(node, attributes, "average_pool")

    def _globalaveragepool(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        self._pool(node, {"kernel_shape": self.shapes[node.input[0]][2:]}, "average_pool")

    def _pool(self, node: onnx.NodeProto, attributes: dict[str, Any], kind: str) -> None:
        height, width = attributes["kernel_shape"]
        strides, padding, extents = self._windows(node, attributes, (height, width))
        maker = self.made.get(self.names[node.input[0]])
        if isinstance(padding, tuple) and (maker is None or maker.activation == "none"):
            # Zeros in front of a maximum are the same as nothing only behind a ReLU.
            raise UnsupportedError("max pool that pads what may be negative")
        shape = (1, self.shapes[node.input[0]][1], *extents)
        self._add_layer(node, kind, shape, window=(height, width), strides=strides, padding=padding)

    def _flatten(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        if attributes.get("axis", 1) != 1:
            raise UnsupportedError("flatten of another axis")
        shape = self.shapes[node.input[0]]
        size = int(np.prod(shape[1:]))
        if size != max(shape[1:]):
            # In NHWC the values come in another order, which only a dense layer can make up for.
            users = [user for user in self.graph.node if node.output[0] in user.input]
            if [user.op_type for user in users] != ["Gemm"]:
                raise UnsupportedError("flatten of a map, before other than a dense layer")
        self._add_layer(node, "reshape", (1, size))

    def _reshape(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        target = [int(extent) for extent in self.constants[node.input[1]]]
        if len(target) != 2 or target[0] not in (0, 1) or "axis" in attributes:
            raise UnsupportedError(f"reshape to {target}")
        self._flatten(node, {})

    def _dropout(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        self._alias(node)

    def _gemm(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        if attributes.get("transA") or {attributes.get(n, 1.0) for n in ("alpha", "beta")} != {1.0}:
            raise UnsupportedError("dense layer with transA, alpha or beta")
        weights = self.constants[node.input[1]].astype(np.float32)
        weights = weights if attributes.get("transB") else weights.T
        flat = self.made.get(self.names[node.input[0]])
        if flat is not None and flat.kind == "reshape":
            _batch, *extents = self.shapes[flat.inputs[0]]
            columns = np.arange(weights.shape[1]).reshape(extents)
            weights = weights[:, np.moveaxis(columns, 0, -1).ravel()]
        bias = self.constants[node.input[2]].astype(np.float32)
        self._add_layer(
            node,
            "dense",
            (1, weights.shape[0]),
            weights=np.ascontiguousarray(weights),
            bias=np.ascontiguousarray(bias.reshape(-1)),
        )

    def _softmax(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        shape = self.shapes[node.input[0]]
        if len(shape) != 2 or attributes.get("axis", 1) not in (1, -1):
            raise UnsupportedError("softmax of other than a row of classes")
        self._add_layer(node, "softmax", shape)

    def _slice(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        starts, ends, axes, *steps = (self.constants[name].tolist() for name in node.input[1:])
        shape = list(self.shapes[node.input[0]])
        if len(shape) != 2 or (steps and set(steps[0]) != {1}):
            raise UnsupportedError("slice of other than a row of classes")
        begin = [0] * len(shape)
        for start, end, axis in zip(starts, ends, axes, strict=True):
            low, high, _ = slice(start, end).indices(shape[axis])
            begin[axis], shape[axis] = low, high - low
        self._add_layer(node, "slice", tuple(shape), begin=tuple(begin))
