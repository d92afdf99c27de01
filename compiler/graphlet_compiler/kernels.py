"""The kernel seam: which C symbols of the `operators` crate a graph may call, and with what.

All tensors are ``float32``, contiguous, NCHW. Each function takes its tensors' addresses, then
the output's, then extents as ``int32``, then for some the two bounds of a clamp as ``float32``;
it returns 0, or a negative number when the geometry is impossible or scratch memory ran out.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
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


def _float32(value: float) -> float:
    return float(np.float32(min(max(value, -UNBOUNDED), UNBOUNDED)))


@dataclass(frozen=True)
class Geometry:
    """Extents in the order in which the kernel's C prototype lists them."""

    symbol: ClassVar[str]
    clamps: ClassVar[bool] = True
    takes_residual: ClassVar[bool] = False
    tensors: ClassVar[tuple[str, ...]] = ("x", "w", "b")

    def extents(self) -> tuple[int, ...]:
        """The integers of the call, in order."""
        return astuple(self)

    @property
    def macs(self) -> int:
        """Multiplications and additions, counted as one each pair."""
        return 0


@dataclass(frozen=True)
class Conv2d(Geometry):
    """``y = clamp(conv(x, w) + bias [+ residual])``; any stride, dilation, group count."""

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
    """``y = clamp(x @ w + bias)`` for rows of ``k`` values."""

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
    clamps = False
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
    clamps = False
    tensors = ("x",)

    n: int
    c: int
    plane: int


@dataclass(frozen=True)
class KernelCall:
    """One call of the operator library, with everything that was fused into it."""

    geometry: Geometry
    clamp: Clamp = Clamp()
    residual: bool = False

    @property
    def symbol(self) -> str:
        """The C symbol."""
        return self.geometry.symbol

    def describe(self) -> dict[str, int | float | bool]:
        """The call's numbers by name, for the report."""
        named: dict[str, int | float | bool] = {
            f.name: getattr(self.geometry, f.name) for f in fields(self.geometry)
        }
        if self.geometry.takes_residual:
            named["residual"] = self.residual
        if self.clamp.bounded:
            named["lo"], named["hi"] = self.clamp.lo, self.clamp.hi
        return named
