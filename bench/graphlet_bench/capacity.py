"""What the machine itself gives to several cores at once: the same work, in processes that share
nothing, each pinned to a core of its own. No server comes closer to N times one than that.

Two kinds of work: the served model, one picture after the other, which shares caches and memory;
and multiply-adds on registers, which share nothing but clock, power and, behind a hypervisor, the
cores themselves.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from graphlet_bench import process
from graphlet_bench.models import Model, ModelError, Place

# Runs of the loop and of the model that it is timed with, 3 ms and 0.2 ms each.
LOOP_REPEATS = 300


def measure(
    place: Place, model: Model, small: Model | None, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Rates of one process and of one on each core; ``small`` is what the loop is timed beside."""
    cores = sorted(os.sched_getaffinity(0))
    say(f"{model.title}: {len(cores)} processes, each on a core of its own, without HTTP")

    def pictures(which: Sequence[int], repeat: int) -> float:
        command = [str(place.graphlet), "classify", "--json", "--repeat", str(repeat)]
        command += [str(model.module), str(model.picture)]
        told = _at_once(place, command, which)
        return sum(1e3 / float(one["milliseconds"]["total"]) for one in told)

    # As many pictures as fit the time, so that all processes work at once for nearly all of it.
    many = max(10, int(seconds * pictures(cores[-1:], 10)))
    found: dict[str, Any] = {"cores": len(cores)}
    found["pictures"] = between(cores, lambda which: pictures(which, many))
    if small is not None:
        say(f"multiply-adds on {len(cores)} cores at once")
        command = [str(place.graphlet), "profile", "--json", "--repeat", str(LOOP_REPEATS)]
        command += [str(small.module), str(small.picture)]

        def gmacs(which: Sequence[int]) -> float:
            return sum(float(one["ceiling_gmacs"]) for one in _at_once(place, command, which))

        found["gmacs"] = between(cores, gmacs)
    return found


def between(cores: Sequence[int], rate: Callable[[Sequence[int]], float]) -> dict[str, float]:
    """One core before and behind all of them, for the machine changes its speed meanwhile."""
    before, everyone, behind = rate(cores[-1:]), rate(cores), rate(cores[-1:])
    one = statistics.fmean((before, behind))
    return {
        "one": round(one, 3),
        "all": round(everyone, 3),
        "scaling": round(everyone / (len(cores) * one), 4),
    }


def _at_once(place: Place, command: Sequence[str], cores: Sequence[int]) -> list[dict[str, Any]]:
    """Starts the command on each of the cores at once; what each printed. Raises ModelError."""

    def on(core: int) -> dict[str, Any]:
        pinned = ["taskset", "-c", str(core), *command]
        environment = {**os.environ, **place.environment()}
        done = subprocess.run(
            pinned, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            raise ModelError(f"graphlet {command[1]}: {done.stderr.strip()[-300:]}")
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    with ThreadPoolExecutor(len(cores)) as pool:
        try:
            return list(pool.map(on, cores))
        except (subprocess.SubprocessError, json.JSONDecodeError) as error:
            raise ModelError(f"graphlet {command[1]}: {error}") from error


class Clock:
    """Processor time of the machine between two looks, as /proc/stat counts it."""

    def __init__(self) -> None:
        self._begun = _ticks()

    def shares(self) -> dict[str, float]:
        """Parts of all cores' time: idle, and taken by the hypervisor for others."""
        passed = {name: now - self._begun[name] for name, now in _ticks().items()}
        whole = max(1, sum(passed.values()))
        return {name: round(passed[name] / whole, 4) for name in ("idle", "steal")}


def _ticks() -> dict[str, int]:
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    found = dict(zip(names, map(int, words), strict=False))
    found["idle"] += found.pop("iowait", 0)
    return found | {"steal": found.get("steal", 0)}


def cpu_seconds(leader: int) -> float:
    """Processor time that a session's processes have taken until now."""
    ticks = 0
    for _, words in process.processes():
        if int(words[3]) == leader:
            # utime and stime, fields 14 and 15 of proc(5).
            ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK")
