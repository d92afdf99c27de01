"""Which tensors share memory: two that are needed at the same time never do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Every storage begins on a cache line and ends on one.
ALIGNMENT = 64


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
    """For each tensor its storage, and for each storage its bytes."""

    storage: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def total(self) -> int:
        """Bytes of all storages."""
        return sum(self.sizes)


def plan(lifetimes: Sequence[Lifetime]) -> Plan:
    """The smaller of two greedy plans: tensors by size, and tensors in order of time."""
    by_size = sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size, i))
    by_time = sorted(range(len(lifetimes)), key=lambda i: (lifetimes[i].first, i))
    return min((_best_fit(lifetimes, by_size), _best_fit(lifetimes, by_time)), key=_total)


def peak(lifetimes: Sequence[Lifetime]) -> int:
    """Bytes needed at the fullest step: no plan can do with less."""
    steps = {lifetime.first for lifetime in lifetimes}
    return max(
        (sum(aligned(t.size) for t in lifetimes if t.first <= step <= t.last) for step in steps),
        default=0,
    )


def aligned(size: int) -> int:
    """``size`` rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _total(candidate: Plan) -> int:
    return candidate.total


def _best_fit(lifetimes: Sequence[Lifetime], order: Sequence[int]) -> Plan:
    """Gives each tensor the free storage that wastes or grows least."""
    storage = [0] * len(lifetimes)
    sizes: list[int] = []
    tenants: list[list[Lifetime]] = []
    for index in order:
        lifetime = lifetimes[index]
        need = aligned(lifetime.size)
        free = [
            s
            for s in range(len(sizes))
            if not any(lifetime.overlaps(tenant) for tenant in tenants[s])
        ]
        fitting = [s for s in free if sizes[s] >= need]
        if fitting:
            chosen = min(fitting, key=lambda s: (sizes[s], s))
        elif free:
            chosen = max(free, key=lambda s: (sizes[s], -s))
            sizes[chosen] = need
        else:
            chosen = len(sizes)
            sizes.append(need)
            tenants.append([])
        storage[index] = chosen
        tenants[chosen].append(lifetime)
    # Numbered in order of first use, whatever the order of planning.
    number = {s: n for n, s in enumerate(dict.fromkeys(storage))}
    renamed = sorted(number, key=lambda s: number[s])
    return Plan(tuple(number[s] for s in storage), tuple(sizes[s] for s in renamed))
