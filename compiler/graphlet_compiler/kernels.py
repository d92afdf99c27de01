"""The kernel seam: which C symbols of the `operators` crate a graph may call, and with what.

All tensors are ``float32``, contiguous, NCHW. Each function takes its tensors' addresses (null
for an optional one that is absent), then the output's, then extents as ``int32``, then for some
a number as ``float32``, then for those that end with an activation its code as ``int32`` and two
``float32``. It returns 0, or a negative number when the geometry is impossible or scratch memory
ran out. The crate's ``symbols`` document every argument.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields
from enum import IntEnum
from typing import ClassVar

import numpy as np

# Largest finite float32: a clamp to it leaves every finite value as it is.
UNBOUNDED = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Clamp:
    """Bounds of the result; unbounded unless an activation was fused."""

    lo: float = -UNBOUNDED
    hi: float = UNBOUNDED

    def then(self, lo: float, hi: float) -> Clamp:
        """This clamp followed by ``min(max(x, lo), hi)``."""
        return Clamp(_float32(min(max(self.lo, lo), hi)), _float32(min(max(self.hi, lo), hi)))

    @property
    def bounded(self) -> bool:
        """Whether any value is changed."""
        return self != Clamp()


class Activation(IntEnum):
    """What a kernel does to every output last, by the code that it takes."""

    CLAMP = 0
    SIGMOID = 1
    SILU = 2
    # The two numbers are not bounds here: clamp(lo * x + hi, 0, 1).
    HARD_SIGMOID = 3
    HARD_SWISH = 4
    GELU = 5
    GELU_TANH = 6
    TANH = 7


class Elementwise(IntEnum):
    """How two operands are joined, by the code that the kernel takes."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAX = 4
    MIN = 5


def _float32(value: float) -> float:
    return float(np.float32(min(max(value, -UNBOUNDED), UNBOUNDED)))


@dataclass(frozen=True)
class Geometry:
    """Extents in the order in which the kernel's C prototype lists them."""

    symbol: ClassVar[str]
    activates: ClassVar[bool] = True
    # The last tensor may be absent.
    takes_residual: ClassVar[bool] = False
    tensors: ClassVar[tuple[str, ...]] = ("x", "w", "b")

    def extents(self) -> tuple[int, ...]:
        """The integers of the call, in order."""
        return tuple(value for value in astuple(self) if not isinstance(value, float))

    def numbers(self) -> tuple[float, ...]:
        """The numbers between the integers and the activation."""
        return tuple(value for value in astuple(self) if isinstance(value, float))

    @property
    def macs(self) -> int:
        """Multiplications and additions, counted as one each pair."""
        return 0


@dataclass(frozen=True)
class Conv2d(Geometry):
    """``y = activate(conv(x, w) + bias [+ residual])``; any stride, dilation, group count."""

    symbol = "graphlet_conv2d_f32"
    takes_residual = True

    n: int
    ic: int
    ih: int
    iw: int
    oc: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    pt: int
    pl: int
    groups: int

    @property
    def macs(self) -> int:
        """Output values times the values of one filter."""
        return self.n * self.oc * self.oh * self.ow * (self.ic // self.groups) * self.kh * self.kw


@dataclass(frozen=True)
class WinogradConv2d(Geometry):
    """A 3x3 window at stride 1 without groups, on transformed weights."""

    symbol = "graphlet_conv2d_winograd_f32"
    takes_residual = True

    n: int
    ic: int
    ih: int
    iw: int
    oc: int
    oh: int
    ow: int
    pt: int
    pl: int

    @property
    def macs(self) -> int:
        """Those of the plain convolution, so that layers can be compared."""
        return self.n * self.oc * self.oh * self.ow * self.ic * 9


@dataclass(frozen=True)
class DepthwiseConv2d(Geometry):
    """One filter for each channel."""

    symbol = "graphlet_depthwise_conv2d_f32"
    takes_residual = True

    n: int
    c: int
    ih: int
    iw: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    pt: int
    pl: int

    @property
    def macs(self) -> int:
        """Output values times the values of one filter."""
        return self.n * self.c * self.oh * self.ow * self.kh * self.kw


@dataclass(frozen=True)
class Dense(Geometry):
    """``y = activate(x @ w + bias)`` for rows of ``k`` values."""

    symbol = "graphlet_dense_f32"

    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        """One for each weight and row."""
        return self.m * self.k * self.n


@dataclass(frozen=True)
class MaxPool2d(Geometry):
    """Largest value of each window; padding counts as minus infinity."""

    symbol = "graphlet_max_pool2d_f32"
    activates = False
    tensors = ("x",)

    n: int
    c: int
    ih: int
    iw: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    pt: int
    pl: int


@dataclass(frozen=True)
class GlobalAveragePool(Geometry):
    """Mean of each channel's plane."""

    symbol = "graphlet_global_avg_pool_f32"
    activates = False
    tensors = ("x",)

    n: int
    c: int
    plane: int


@dataclass(frozen=True)
class AveragePool2d(Geometry):
    """Mean of each window, of ``kh * kw`` values or with ``count_include_pad`` 0 of those inside.

    The padding at the end follows from the output, so with ``count_include_pad`` a window that
    ``ceil_mode`` lets reach beyond the padding is not what ONNX wants.
    """

    symbol = "graphlet_avg_pool2d_f32"
    activates = False
    tensors = ("x",)

    n: int
    c: int
    ih: int
    iw: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    pt: int
    pl: int
    count_include_pad: int


@dataclass(frozen=True)
class Activate(Geometry):
    """``y = activate(x)`` for each of ``length`` values; ``y`` may be ``x``."""

    symbol = "graphlet_activation_f32"
    tensors = ("x",)

    length: int


@dataclass(frozen=True)
class Binary(Geometry):
    """``y = activate(a op b)``, ``y`` of three axes, operands repeated where a stride is 0."""

    symbol = "graphlet_binary_f32"
    tensors = ("a", "b")

    d0: int
    d1: int
    d2: int
    a0: int
    a1: int
    a2: int
    b0: int
    b1: int
    b2: int
    op: int

    @classmethod
    def broadcast(cls, a: tuple[int, ...], b: tuple[int, ...], op: Elementwise) -> Binary | None:
        """For operands of these shapes; ``None`` when their pattern needs more than three axes."""
        rank = max(len(a), len(b))
        shapes = [(1,) * (rank - len(shape)) + shape for shape in (a, b)]
        # Neighbouring axes along which each operand moves or repeats alike are one axis.
        axes: list[tuple[int, bool, bool]] = []
        for x, y in zip(*shapes, strict=True):
            extent = max(x, y) if 0 not in (x, y) else 0
            if x not in (1, extent) or y not in (1, extent):
                raise ValueError(f"shapes {a} and {b} do not broadcast")
            moves = (x == extent, y == extent)
            if extent == 1:
                continue
            if axes and axes[-1][1:] == moves:
                axes[-1] = (axes[-1][0] * extent, *moves)
            else:
                axes.append((extent, *moves))
        if len(axes) > 3:
            return None
        axes = [(1, True, True)] * (3 - len(axes)) + axes
        extents = [extent for extent, *_ in axes]
        strides = []
        for operand in (1, 2):
            own = [axis[0] if axis[operand] else 1 for axis in axes]
            steps = [math.prod(own[index + 1 :]) for index in range(3)]
            strides += [s if axis[operand] else 0 for s, axis in zip(steps, axes, strict=True)]
        (d0, d1, d2), (a0, a1, a2, b0, b1, b2) = extents, strides
        return cls(d0, d1, d2, a0, a1, a2, b0, b1, b2, int(op))


@dataclass(frozen=True)
class Softmax(Geometry):
    """``exp(x - max) / sum`` of each row of ``n`` values."""

    symbol = "graphlet_softmax_f32"
    activates = False
    tensors = ("x",)

    rows: int
    n: int


@dataclass(frozen=True)
class LayerNorm(Geometry):
    """Rows of ``n`` values to mean 0 and variance 1, times scale, plus bias if there is one."""

    symbol = "graphlet_layer_norm_f32"
    activates = False
    takes_residual = True
    tensors = ("x", "scale")

    rows: int
    n: int
    epsilon: float


@dataclass(frozen=True)
class MatMul(Geometry):
    """``y = alpha * a @ b``, ``batch`` times, both operands known only at run time.

    Right operands are ``[k, n]``, or ``[n, k]`` with ``transpose_b``, and ``b_stride`` values apart
    (0: one serves all).
    """

    symbol = "graphlet_matmul_f32"
    activates = False
    tensors = ("a", "b")

    batch: int
    m: int
    k: int
    n: int
    b_stride: int
    transpose_b: int
    alpha: float

    @property
    def macs(self) -> int:
        """One for each value of the left operand and column."""
        return self.batch * self.m * self.k * self.n


@dataclass(frozen=True)
class Transpose(Geometry):
    """``[d0, d1, d2, d3]`` as ``[d0, d2, d1, d3]``."""

    symbol = "graphlet_transpose_f32"
    activates = False
    tensors = ("x",)

    d0: int
    d1: int
    d2: int
    d3: int


@dataclass(frozen=True)
class KernelCall:
    """One call of the operator library, with everything that was fused into it."""

    geometry: Geometry
    # Bounds, or the numbers of another activation.
    clamp: Clamp = Clamp()
    residual: bool = False
    activation: Activation = Activation.CLAMP

    @property
    def symbol(self) -> str:
        """The C symbol."""
        return self.geometry.symbol

    def describe(self) -> dict[str, int | float | bool | str]:
        """The call's numbers by name, for the report."""
        named: dict[str, int | float | bool | str] = {
            f.name: getattr(self.geometry, f.name) for f in fields(self.geometry)
        }
        if self.geometry.takes_residual:
            named["residual"] = self.residual
        if self.activation != Activation.CLAMP:
            named["activation"] = self.activation.name.lower()
        if self.clamp.bounded:
            named["lo"], named["hi"] = self.clamp.lo, self.clamp.hi
        return named
