"""Where tensors lie in the one arena of activations: two that are needed at once never overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Every tensor begins on a cache line.
ALIGNMENT = 64

# How often a plan is mended.
_TRIES = 30


@dataclass(frozen=True)
class Lifetime:
    """A tensor's bytes, and the steps at which it is written first and read last."""

    size: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """For each tensor where it begins, and the bytes of all."""

    offsets: tuple[int, ...]
    total: int


def plan(lifetimes: Sequence[Lifetime]) -> Plan:
    """The smallest of a few greedy plans, which differ in who chooses a place first.

    Large tensors first is what TFLite does (https://arxiv.org/abs/2001.03288, greedy by size);
    none of the orders is best for every network. Where all waste memory they are mended: whatever
    reaches too high chooses first in another try.
    """
    least = peak(lifetimes)
    orders: list[Callable[[Lifetime], tuple[int, ...]]] = [
        lambda t: (-t.size, t.first),
        lambda t: (-t.size * (t.last - t.first + 1), t.first),
        lambda t: (t.first - t.last, -t.size),
        lambda t: (t.first, -t.size),
        lambda t: (-t.last, -t.size),
    ]
    ranked = [
        sorted(range(len(lifetimes)), key=lambda i: (*order(lifetimes[i]), i)) for order in orders
    ]
    ranked.append(_by_breadth(lifetimes))
    plans = []
    for tries in (1, _TRIES):
        for indices in ranked:
            plans.append(_mended(lifetimes, indices, least, tries))
            if plans[-1].total == least:
                return plans[-1]
    return min(plans, key=lambda candidate: candidate.total)


def peak(lifetimes: Sequence[Lifetime]) -> int:
    """Bytes needed at the fullest step: no plan can do with less."""
    steps = {lifetime.first for lifetime in lifetimes}
    return max((_needed(lifetimes, step) for step in steps), default=0)


def aligned(size: int) -> int:
    """``size`` rounded up to whole cache lines; a tensor without elements has a place too."""
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT


def _needed(lifetimes: Sequence[Lifetime], step: int) -> int:
    return sum(aligned(t.size) for t in lifetimes if t.first <= step <= t.last)


def _mended(lifetimes: Sequence[Lifetime], order: list[int], least: int, tries: int) -> Plan:
    """The best of some plans, in each of which what reached highest before chooses earlier."""
    order = list(order)
    best = _place(lifetimes, order)
    found = best
    for _ in range(tries - 1):
        if best.total == least:
            break
        ends = [o + aligned(t.size) for o, t in zip(found.offsets, lifetimes, strict=True)]
        highest = [index for index in order if ends[index] > least]
        order = highest + [index for index in order if ends[index] <= least]
        found = _place(lifetimes, order)
        if found.total < best.total:
            best = found
    return best


def _by_breadth(lifetimes: Sequence[Lifetime]) -> list[int]:
    """What is needed at the fullest step chooses first, then at the next fullest, and so on.

    Greedy by breadth of the same paper.
    """
    steps = sorted({t.first for t in lifetimes}, key=lambda step: (-_needed(lifetimes, step), step))
    order: dict[int, None] = {}
    for step in steps:
        living = [i for i, t in enumerate(lifetimes) if t.first <= step <= t.last]
        order.update(dict.fromkeys(sorted(living, key=lambda i: (-lifetimes[i].size, i))))
    return list(order)


def _place(lifetimes: Sequence[Lifetime], order: Sequence[int]) -> Plan:
    """Gives each tensor the smallest gap that it fits into, between those placed before."""
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for index in order:
        lifetime = lifetimes[index]
        need = aligned(lifetime.size)
        taken = sorted(
            (offsets[i], offsets[i] + aligned(lifetimes[i].size))
            for i in placed
            if lifetime.overlaps(lifetimes[i])
        )
        best, smallest, end = None, 0, 0
        for begin, after in taken:
            gap = begin - end
            if gap >= need and (best is None or gap < smallest):
                best, smallest = end, gap
            end = max(end, after)
        offsets[index] = end if best is None else best
        placed.append(index)
    sizes = [o + aligned(t.size) for o, t in zip(offsets, lifetimes, strict=True)]
    return Plan(tuple(offsets), max(sizes, default=0))
