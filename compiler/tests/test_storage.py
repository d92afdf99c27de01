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


@pytest.mark.parametrize("seed", range(60))
def test_living_tensors_never_share_storage(seed: int) -> None:
    lifetimes = random_lifetimes(seed)
    plan = storage.plan(lifetimes)
    assert len(plan.storage) == len(lifetimes)
    for (i, a), (j, b) in itertools.combinations(enumerate(lifetimes), 2):
        together = any(a.first <= step <= a.last for step in range(b.first, b.last + 1))
        assert not (together and plan.storage[i] == plan.storage[j]), (a, b)
    for lifetime, index in zip(lifetimes, plan.storage, strict=True):
        assert lifetime.size <= plan.sizes[index]
    assert all(size % storage.ALIGNMENT == 0 for size in plan.sizes)
    assert storage.peak(lifetimes) <= plan.total


def test_a_straight_line_needs_two_storages() -> None:
    """Each step reads what the one before wrote."""
    lifetimes = [Lifetime(1000, step, step + 1) for step in range(20)]
    plan = storage.plan(lifetimes)
    assert plan.sizes == (1024, 1024) and plan.total == storage.peak(lifetimes)


def test_a_small_tensor_does_not_take_the_largest_storage() -> None:
    lifetimes = [Lifetime(64, 0, 0), Lifetime(6400, 0, 0), Lifetime(64, 1, 1), Lifetime(6400, 1, 1)]
    plan = storage.plan(lifetimes)
    assert plan.total == 6464 and plan.storage[0] == plan.storage[2]


def test_storages_are_numbered_in_order_of_use() -> None:
    plan = storage.plan(random_lifetimes(3))
    assert list(dict.fromkeys(plan.storage)) == list(range(len(plan.sizes)))


def test_nothing_to_plan_is_no_storage() -> None:
    assert storage.plan([]).total == 0 and storage.peak([]) == 0
