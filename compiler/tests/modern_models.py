"""Networks of after 2017 as exporters write them, with seeded random weights.

    python tests/modern_models.py NAME OUT.onnx

NAME is one of MODELS. They are small and narrow, but each has the operators, the shapes of
windows and the joins of the network that it is named after.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


class Net:
    """Writes a graph node by node."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operator and gives the name of its result."""
        return self.nodes_of(op, 1, *inputs, **attributes)[0]

    def nodes_of(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """The same with several results."""
        base = f"{op.lower()}_{len(self.nodes)}"
        outputs = [f"{base}.{i}" for i in range(count)] if count > 1 else [base]
        node = helper.make_node(op, inputs, outputs, name=base, **attributes)
        self.nodes.append(node)
        return outputs

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Adds a constant and gives its name."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(values, dtype)
        return name

    def weights(self, *shape: int, gain: float = 2.0) -> str:
        """Seeded weights whose products keep the scale of what they multiply."""
        fan = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        return self.constant(self.random.standard_normal(shape) * np.sqrt(gain / fan))

    def small(self, *shape: int, around: float = 0.0) -> str:
        """Seeded biases, or scales around one."""
        return self.constant(around + self.random.uniform(-0.2, 0.2, shape))

    def conv(self, x: str, i: int, o: int, k: int = 1, *, stride: int = 1, groups: int = 1) -> str:
        """A convolution with padding that keeps the size, and its batch-norm folded in."""
        pad = (k - 1) // 2
        return self.node(
            "Conv",
            x,
            self.weights(o, i // groups, k, k),
            self.small(o),
            kernel_shape=[k, k],
            pads=[pad] * 4,
            strides=[stride] * 2,
            group=groups,
        )

    def model(self, output: str, shape: Sequence[int], classes: int, opset: int) -> onnx.ModelProto:
        """The whole, from `x` to a softmax over classes; ``output`` are its logits."""
        self.nodes.append(helper.make_node("Softmax", [output], ["y"], name="softmax", axis=-1))
        graph = helper.make_graph(
            self.nodes,
            "modern",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def hard_swish(net: Net, x: str) -> str:
    """As PyTorch writes it."""
    return net.node("HardSwish", x)


def hard_swish_of_parts(net: Net, x: str) -> str:
    """As PyTorch wrote it before operator set 14."""
    return net.node("Mul", x, net.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def hard_swish_of_clip(net: Net, x: str) -> str:
    """As TensorFlow's MobileNetV3 comes out of tf2onnx."""
    shifted = net.node("Add", x, net.constant(3.0))
    clipped = net.node("Clip", shifted, net.constant(0.0), net.constant(6.0))
    return net.node("Mul", x, net.node("Mul", clipped, net.constant(1 / 6)))


def swish(net: Net, x: str) -> str:
    """What PyTorch calls SiLU."""
    return net.node("Mul", x, net.node("Sigmoid", x))


def relu6(net: Net, x: str) -> str:
    """A clamp."""
    return net.node("Clip", x, net.constant(0.0), net.constant(6.0))


def gelu_of_erf(net: Net, x: str) -> str:
    """As PyTorch writes it before operator set 20."""
    erf = net.node("Erf", net.node("Div", x, net.constant(np.sqrt(2))))
    product = net.node("Mul", x, net.node("Add", erf, net.constant(1.0)))
    return net.node("Mul", product, net.constant(0.5))


def gelu_of_tanh(net: Net, x: str) -> str:
    """As PyTorch writes ``approximate="tanh"`` before operator set 20."""
    cube = net.node("Mul", net.node("Pow", x, net.constant(3.0)), net.constant(0.044715))
    inner = net.node("Mul", net.node("Add", x, cube), net.constant(np.sqrt(2 / np.pi)))
    gate = net.node("Add", net.node("Tanh", inner), net.constant(1.0))
    return net.node("Mul", net.node("Mul", net.constant(0.5), x), gate)


def gelu(net: Net, x: str) -> str:
    """As an operator, from set 20 on."""
    return net.node("Gelu", x)


def layer_norm(net: Net, x: str, width: int) -> str:
    """As an operator, from set 17 on."""
    scale, shift = net.small(width, around=1.0), net.small(width)
    return net.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-6)


def layer_norm_of_parts(net: Net, x: str, width: int) -> str:
    """As PyTorch writes it before operator set 17."""
    centred = net.node("Sub", x, net.node("ReduceMean", x, axes=[-1]))
    variance = net.node("ReduceMean", net.node("Pow", centred, net.constant(2.0)), axes=[-1])
    root = net.node("Sqrt", net.node("Add", variance, net.constant(1e-6)))
    scaled = net.node("Mul", net.node("Div", centred, root), net.small(width, around=1.0))
    return net.node("Add", scaled, net.small(width))


Activation = Callable[[Net, str], str]


def inverted_residual(
    net: Net,
    x: str,
    widths: tuple[int, int, int],
    window: int,
    activation: Activation,
    *,
    stride: int = 1,
    squeeze: tuple[int, Activation, str] | None = None,
) -> str:
    """Expand, filter each channel, weigh channels by what they hold, project."""
    i, wide, o = widths
    y = x if wide == i else activation(net, net.conv(x, i, wide))
    y = activation(net, net.conv(y, wide, wide, window, stride=stride, groups=wide))
    if squeeze is not None:
        narrow, inner, gate = squeeze
        pooled = net.node("GlobalAveragePool", y)
        weight = net.conv(inner(net, net.conv(pooled, wide, narrow)), narrow, wide)
        alpha = {"alpha": 1 / 6, "beta": 0.5} if gate == "HardSigmoid" else {}
        y = net.node("Mul", y, net.node(gate, weight, **alpha))
    y = net.conv(y, wide, o)
    return net.node("Add", x, y) if stride == 1 and i == o else y


def relu(net: Net, x: str) -> str:
    """The one of old."""
    return net.node("Relu", x)


def mobilenet_v3(side: int = 64, activation: Activation = hard_swish) -> onnx.ModelProto:
    """After Howard et al. 2019, MobileNetV3-Small."""
    net = Net(3)
    squeeze = (8, relu, "HardSigmoid")
    y = activation(net, net.conv("x", 3, 16, 3, stride=2))
    y = inverted_residual(net, y, (16, 16, 16), 3, relu, stride=2, squeeze=squeeze)
    y = inverted_residual(net, y, (16, 72, 24), 3, relu, stride=2)
    y = inverted_residual(net, y, (24, 88, 24), 3, relu)
    y = inverted_residual(
        net, y, (24, 96, 40), 5, activation, stride=2, squeeze=(24, relu, "HardSigmoid")
    )
    y = inverted_residual(net, y, (40, 120, 40), 5, activation, squeeze=(32, relu, "HardSigmoid"))
    y = activation(net, net.conv(y, 40, 240))
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    y = activation(net, net.node("Gemm", y, net.weights(240, 128), net.small(128)))
    y = net.node("Gemm", y, net.weights(128, 50), net.small(50))
    return net.model(y, (1, 3, side, side), 50, 14 if activation is hard_swish else 13)


def mobilenet_v3_of_parts() -> onnx.ModelProto:
    """The same with hard-swish in the spelling of PyTorch before operator set 14."""
    return mobilenet_v3(activation=hard_swish_of_parts)


def mobilenet_v3_of_clip() -> onnx.ModelProto:
    """The same with hard-swish in TensorFlow's spelling."""
    return mobilenet_v3(activation=hard_swish_of_clip)


def efficientnet_lite(side: int = 64) -> onnx.ModelProto:
    """After EfficientNet-Lite: ReLU6, no squeezing."""
    net = Net(4)
    y = relu6(net, net.conv("x", 3, 32, 3, stride=2))
    y = inverted_residual(net, y, (32, 32, 16), 3, relu6)
    y = inverted_residual(net, y, (16, 96, 24), 3, relu6, stride=2)
    y = inverted_residual(net, y, (24, 144, 24), 3, relu6)
    y = inverted_residual(net, y, (24, 144, 40), 5, relu6, stride=2)
    y = inverted_residual(net, y, (40, 240, 40), 5, relu6)
    y = relu6(net, net.conv(y, 40, 160))
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    y = net.node("Gemm", y, net.weights(160, 50), net.small(50))
    return net.model(y, (1, 3, side, side), 50, 13)


def efficientnet_b0(side: int = 64) -> onnx.ModelProto:
    """After Tan and Le 2019: SiLU, and channels weighed by a sigmoid."""
    net = Net(5)
    y = swish(net, net.conv("x", 3, 32, 3, stride=2))
    y = inverted_residual(net, y, (32, 32, 16), 3, swish, squeeze=(8, swish, "Sigmoid"))
    y = inverted_residual(net, y, (16, 96, 24), 3, swish, stride=2, squeeze=(4, swish, "Sigmoid"))
    y = inverted_residual(net, y, (24, 144, 24), 3, swish, squeeze=(6, swish, "Sigmoid"))
    y = inverted_residual(net, y, (24, 144, 40), 5, swish, stride=2, squeeze=(6, swish, "Sigmoid"))
    y = inverted_residual(net, y, (40, 240, 40), 5, swish, squeeze=(10, swish, "Sigmoid"))
    y = swish(net, net.conv(y, 40, 160))
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    y = net.node("Gemm", y, net.weights(160, 50), net.small(50))
    return net.model(y, (1, 3, side, side), 50, 13)


Norm = Callable[[Net, str, int], str]


def vision_transformer(
    norm: Norm,
    activation: Activation,
    opset: int,
    *,
    side: int = 64,
    patch: int = 8,
    width: int = 96,
    heads: int = 3,
    depth: int = 2,
    fused_qkv: bool = True,
) -> onnx.ModelProto:
    """After Dosovitskiy et al. 2020, as timm's `vit_*_patch*` come out of PyTorch's exporter."""
    net = Net(6)
    across = side // patch
    tokens = across * across + 1
    y = net.node(
        "Conv",
        "x",
        net.weights(width, 3, patch, patch),
        net.small(width),
        kernel_shape=[patch, patch],
        strides=[patch, patch],
    )
    y = net.node("Reshape", y, net.constant([1, width, across * across], np.int64))
    y = net.node("Transpose", y, perm=[0, 2, 1])
    y = net.node("Concat", net.small(1, 1, width), y, axis=1)
    y = net.node("Add", y, net.small(1, tokens, width))
    for _ in range(depth):
        attend = attention if fused_qkv else attention_of_three
        y = net.node("Add", y, attend(net, norm(net, y, width), tokens, width, heads))
        y = net.node("Add", y, mlp(net, norm(net, y, width), width, activation))
    y = norm(net, y, width)
    y = net.node("Gather", y, net.constant(0, np.int64), axis=1)
    y = net.node("Gemm", y, net.weights(width, 50, gain=1.0), net.small(50))
    return net.model(y, (1, 3, side, side), 50, opset)


def attention(net: Net, x: str, tokens: int, width: int, heads: int) -> str:
    """Queries, keys and values by one product, taken apart by Reshape, Transpose and Split."""
    y = net.node("MatMul", x, net.weights(width, 3 * width, gain=1.0))
    y = net.node("Add", net.small(3 * width), y)
    shape = [1, tokens, 3, heads, width // heads]
    y = net.node("Reshape", y, net.constant(shape, np.int64))
    y = net.node("Transpose", y, perm=[2, 0, 3, 1, 4])
    q, k, v = (
        net.node("Squeeze", part, net.constant([0], np.int64))
        for part in net.nodes_of("Split", 3, y, net.constant([1, 1, 1], np.int64), axis=0)
    )
    keys = net.node("Transpose", k, perm=[0, 1, 3, 2])
    scores = net.node("Mul", net.node("MatMul", q, keys), net.constant((width // heads) ** -0.5))
    return merge(net, scores, v, tokens, width)


def attention_of_three(net: Net, x: str, tokens: int, width: int, heads: int) -> str:
    """Queries, keys and values by a product each, the scale on either side of the scores."""
    split = net.constant([1, tokens, heads, width // heads], np.int64)
    parts = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        y = net.node("MatMul", x, net.weights(width, width, gain=1.0))
        y = net.node("Add", y, net.small(width))
        parts.append(net.node("Transpose", net.node("Reshape", y, split), perm=perm))
    scale = net.constant((width // heads) ** -0.25)
    scores = net.node("MatMul", net.node("Mul", parts[0], scale), net.node("Mul", parts[1], scale))
    return merge(net, scores, parts[2], tokens, width)


def merge(net: Net, scores: str, v: str, tokens: int, width: int) -> str:
    """Values weighed by their scores, heads side by side again, projected."""
    y = net.node("MatMul", net.node("Softmax", scores, axis=-1), v)
    y = net.node("Transpose", y, perm=[0, 2, 1, 3])
    y = net.node("Reshape", y, net.constant([1, tokens, width], np.int64))
    y = net.node("MatMul", y, net.weights(width, width, gain=1.0))
    return net.node("Add", y, net.small(width))


def mlp(net: Net, x: str, width: int, activation: Activation) -> str:
    """Two dense layers over each token."""
    y = net.node("MatMul", x, net.weights(width, 4 * width))
    y = activation(net, net.node("Add", y, net.small(4 * width)))
    y = net.node("MatMul", y, net.weights(4 * width, width, gain=1.0))
    return net.node("Add", y, net.small(width))


def vit() -> onnx.ModelProto:
    """Operators of set 20."""
    return vision_transformer(layer_norm, gelu, 20)


def vit_of_parts() -> onnx.ModelProto:
    """Everything in the parts of which exporters made it before there were operators."""
    return vision_transformer(layer_norm_of_parts, gelu_of_erf, 13)


def vit_of_tanh() -> onnx.ModelProto:
    """GELU by tanh; queries, keys and values apart."""
    return vision_transformer(layer_norm, gelu_of_tanh, 17, fused_qkv=False)


def deit_tiny() -> onnx.ModelProto:
    """The full size of DeiT-Tiny (Touvron et al. 2020), for measuring."""
    return vision_transformer(
        layer_norm, gelu_of_erf, 17, side=224, patch=16, width=192, heads=3, depth=12
    )


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet_v3": mobilenet_v3,
    "mobilenet_v3_of_parts": mobilenet_v3_of_parts,
    "mobilenet_v3_of_clip": mobilenet_v3_of_clip,
    "efficientnet_lite": efficientnet_lite,
    "efficientnet_b0": efficientnet_b0,
    "vit": vit,
    "vit_of_parts": vit_of_parts,
    "vit_of_tanh": vit_of_tanh,
    "deit_tiny": deit_tiny,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    onnx.save(MODELS[options.name](), options.out)


if __name__ == "__main__":
    main()
