"""No two tensors that are needed at the same time share storage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphlet_compiler import storage
from graphlet_compiler.storage import Lifetime


def random_lifetimes(seed: int) -> list[Lifetime]:
    random = np.random.default_rng(seed)
    steps = int(random.integers(1, 60))
    found = []
    for first in range(steps):
        for _ in range(int(random.integers(1, 3))):
            last = first + int(random.geometric(0.4)) - 1
            found.append(Lifetime(int(random.integers(1, 5000)), first, last))
    return found


def overlap(plan: storage.Plan, lifetimes: list[Lifetime], i: int, j: int) -> bool:
    (a, b), (x, y) = (plan.offsets[i], plan.offsets[j]), (lifetimes[i].size, lifetimes[j].size)
    return a < b + y and b < a + x


@pytest.mark.parametrize("seed", range(60))
def test_living_tensors_never_overlap(seed: int) -> None:
    lifetimes = random_lifetimes(seed)
    plan = storage.plan(lifetimes)
    assert len(plan.offsets) == len(lifetimes)
    for (i, a), (j, b) in itertools.combinations(enumerate(lifetimes), 2):
        together = any(a.first <= step <= a.last for step in range(b.first, b.last + 1))
        assert not (together and overlap(plan, lifetimes, i, j)), (a, b)
    for lifetime, offset in zip(lifetimes, plan.offsets, strict=True):
        assert offset % storage.ALIGNMENT == 0 and offset + lifetime.size <= plan.total
    assert storage.peak(lifetimes) <= plan.total


def test_random_plans_come_close_to_the_least_that_is_possible() -> None:
    ratios = []
    for seed in range(60):
        lifetimes = random_lifetimes(seed)
        ratios.append(storage.plan(lifetimes).total / storage.peak(lifetimes))
    assert np.mean(ratios) < 1.03 and max(ratios) < 1.25


def test_a_straight_line_needs_two_places() -> None:
    """Each step reads what the one before wrote."""
    lifetimes = [Lifetime(1000, step, step + 1) for step in range(20)]
    plan = storage.plan(lifetimes)
    assert plan.total == 2048 == storage.peak(lifetimes)


def test_small_tensors_lie_where_a_large_one_was() -> None:
    lifetimes = [Lifetime(640, 0, 0), Lifetime(320, 1, 2), Lifetime(320, 1, 2)]
    assert storage.plan(lifetimes).total == 640


def test_a_tensor_without_elements_has_a_place_of_its_own() -> None:
    plan = storage.plan([Lifetime(0, 0, 1), Lifetime(64, 0, 1)])
    assert len(set(plan.offsets)) == 2


def test_nothing_to_plan_is_no_memory() -> None:
    assert storage.plan([]).total == 0 and storage.peak([]) == 0
