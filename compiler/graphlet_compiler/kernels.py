"""The kernel seam: which C symbols of the `operators` crate a graph may call, and with what.

All tensors are contiguous, NCHW, and ``float32`` but for the four operators of the operator
library, which take ``int32`` and ``int8`` too. Each function takes its tensors' addresses (null
for an optional one that is absent), then the output's, then extents as ``int32``, then for some
a number as ``float32``, then for those that end with an activation its code as ``int32`` and two
``float32``. It returns 0, or a negative number when the geometry is impossible or scratch memory
ran out. The crate's ``symbols`` document every argument.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from enum import IntEnum
from typing import ClassVar

import numpy as np

# How symbols name the element types that there are kernels for.
SUFFIXES = {"float32": "f32", "int32": "i32", "int8": "i8"}

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


def _float32(value: float) -> float:
    return float(np.float32(min(max(value, -UNBOUNDED), UNBOUNDED)))


@dataclass(frozen=True)
class Geometry:
    """Extents in the order in which the kernel's C prototype lists them."""

    # Without the element type that it ends with.
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

    symbol = "graphlet_conv2d"
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

    symbol = "graphlet_conv2d_winograd"
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

    symbol = "graphlet_depthwise_conv2d"
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

    symbol = "graphlet_dense"

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

    symbol = "graphlet_max_pool2d"
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

    symbol = "graphlet_global_avg_pool"
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

    symbol = "graphlet_avg_pool2d"
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

    symbol = "graphlet_activation"
    tensors = ("x",)

    length: int


@dataclass(frozen=True)
class Operands(Geometry):
    """Two operands and what they are joined to; an extent of 1 is repeated to the other's."""

    activates = False
    tensors = ("a", "b")

    a0: int
    a1: int
    a2: int
    a3: int
    a4: int
    a5: int
    b0: int
    b1: int
    b2: int
    b3: int
    b4: int
    b5: int


@dataclass(frozen=True)
class Add(Operands):
    """``y = a + b``; integers wrap round."""

    symbol = "graphlet_add"


@dataclass(frozen=True)
class Mul(Operands):
    """``y = a * b``; integers wrap round."""

    symbol = "graphlet_mul"


@dataclass(frozen=True)
class Equal(Operands):
    """Whether ``a`` and ``b`` are equal, as ``bool``."""

    symbol = "graphlet_equal"


@dataclass(frozen=True)
class EqualCount(Operands):
    """How many pairs are equal, as one ``int64``."""

    symbol = "graphlet_equal_count"


@dataclass(frozen=True)
class ArgMax(Geometry):
    """Where along the middle axis of ``[outer, n, inner]`` the greatest is, as ``int64``."""

    symbol = "graphlet_argmax"
    activates = False
    tensors = ("x",)

    outer: int
    n: int
    inner: int


@dataclass(frozen=True)
class Softmax(Geometry):
    """``exp(x - max) / sum`` of each row of ``n`` values."""

    symbol = "graphlet_softmax"
    activates = False
    tensors = ("x",)

    rows: int
    n: int


@dataclass(frozen=True)
class LayerNorm(Geometry):
    """Rows of ``n`` values to mean 0 and variance 1, times scale, plus bias if there is one."""

    symbol = "graphlet_layer_norm"
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

    symbol = "graphlet_matmul"
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

    symbol = "graphlet_transpose"
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
    # Of what it reads.
    dtype: str = "float32"

    @property
    def symbol(self) -> str:
        """The C symbol."""
        return f"{self.geometry.symbol}_{SUFFIXES[self.dtype]}"

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
