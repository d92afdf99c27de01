"""Several cores at once: rates, the machine's time, and what a server is compared with."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from graphlet_bench import capacity, http_load


def test_one_core_is_measured_before_and_behind_all_of_them() -> None:
    asked: list[list[int]] = []

    def rate(cores: Sequence[int]) -> float:
        # The machine is slower every time.
        asked.append(list(cores))
        return len(cores) * (12.0 - 2.0 * len(asked))

    found = capacity.between([0, 2, 3], rate)
    assert asked == [[3], [0, 2, 3], [3]]
    assert found == {"one": 8.0, "all": 24.0, "scaling": 1.0}


def test_a_server_on_all_cores_is_compared_with_one_core_not_with_one_instance() -> None:
    # One instance has the other cores for what is around it: 52 of it are 50 of one core.
    steps = [{"instances": n, "requests_per_second": 52.0 * n - 3 * n * n} for n in (1, 2, 4)]
    assert http_load.scaling(50.0, steps) == pytest.approx(160 / 200)


def test_the_machines_time_has_shares() -> None:
    clock = capacity.Clock()
    time.sleep(0.2)
    found = clock.shares()
    assert set(found) == {"idle", "steal"}
    assert all(0 <= share <= 1 for share in found.values())


def test_processor_time_of_a_session_grows_as_it_works() -> None:
    code = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as child:
        try:
            deadline = time.monotonic() + 60
            while capacity.cpu_seconds(child.pid) < 0.1 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert capacity.cpu_seconds(child.pid) >= 0.1
        finally:
            child.kill()
    assert capacity.cpu_seconds(child.pid) == 0
