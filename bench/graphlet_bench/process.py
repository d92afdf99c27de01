"""Processes that are measured: pinned to a core, read line by line, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Below kernel threads that matter, above everything that a desktop or a build runs.
REALTIME_PRIORITY = "10"
# Often enough to see a peak that lasts a tenth of a second, seldom enough to disturb nobody.
_SAMPLE_SECONDS = 0.03
_running: set[int] = set()


class PeerError(Exception):
    """A peer ended without its figures; the text is the reason that its row shows."""


@dataclass(frozen=True)
class Placement:
    """Where measured processes run: a core, and whether other work there must wait."""

    core: int
    realtime: bool

    @classmethod
    def find(cls, core: int | None = None, *, realtime: bool = False) -> Placement:
        """The core, or the last that this process may use; real-time priority if permitted."""
        core = max(os.sched_getaffinity(0)) if core is None else core
        permitted = (
            realtime
            and shutil.which("chrt") is not None
            and subprocess.run(
                ["chrt", "-f", REALTIME_PRIORITY, "true"], capture_output=True, check=False
            ).returncode
            == 0
        )
        return cls(core, permitted)

    def command(self, command: Sequence[str], *, realtime: bool = True) -> list[str]:
        """The command, placed. V8 must not be ``realtime`` as a whole: see peers."""
        before = ["chrt", "-f", REALTIME_PRIORITY] if self.realtime and realtime else []
        return [*before, "taskset", "-c", str(self.core), *command]

    def describe(self) -> str:
        """For the report."""
        how = f"SCHED_FIFO {REALTIME_PRIORITY}" if self.realtime else "ordinary priority"
        return f"pinned to core {self.core}, {how}"


@dataclass
class Spawned:
    """What one process reported, with the milliseconds until its first line arrived."""

    first_ms: float
    events: list[dict[str, Any]] = field(default_factory=list)
    rss_kb: int = 0
    pss_kb: int = 0


def run(
    command: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    sample: bool = False,
) -> Spawned:
    """Runs a process to its end and reads its lines of JSON, each stamped as it arrives.

    With ``sample`` the memory of the process and all its children is watched meanwhile.

    Raises PeerError when it fails, lasts too long, or prints something else.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        begun = time.perf_counter()
        try:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise PeerError(f"{command[0]} does not start: {error}") from error
        _running.add(child.pid)
        late = threading.Event()

        def stop() -> None:
            late.set()
            kill(child.pid)

        alarm = threading.Timer(timeout, stop)
        alarm.start()
        spawned = Spawned(0.0)
        watch = _Watch(child.pid) if sample else None
        try:
            assert child.stdout is not None
            for line in child.stdout:
                spawned.first_ms = spawned.first_ms or (time.perf_counter() - begun) * 1e3
                with contextlib.suppress(json.JSONDecodeError):
                    spawned.events.append(json.loads(line))
            code = child.wait()
        finally:
            alarm.cancel()
            if watch is not None:
                spawned.rss_kb, spawned.pss_kb = watch.stop()
            kill(child.pid)
            child.wait()
            _running.discard(child.pid)
        if late.is_set():
            raise PeerError(f"not done after {timeout:.0f} s")
        if code != 0 or not spawned.events:
            errors.seek(0)
            raise PeerError(_reason(code, errors.read()))
    return spawned


def _reason(code: int, errors: str) -> str:
    """The line of a process's complaints that says most."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() and not line.startswith("at ")]
    said = (telling or lines or ["it said nothing"])[0 if telling else -1]
    # As anyhow and wasmtime print the chain of an error, the root last.
    causes = lines[lines.index("Caused by:") + 1 :] if "Caused by:" in lines else []
    causes = [line for line in causes if not line.startswith("at ")]
    if causes:
        said = f"{said.removesuffix(':')}: {causes[-1]}"
    return f"exit code {code}: {said[:300]}"


def kill(leader: int) -> None:
    """Ends a process that leads a session, and everything in that session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for pid in session(leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_all() -> None:
    """Ends whatever still runs: for Ctrl-C."""
    for leader in list(_running):
        kill(leader)


def session(leader: int) -> list[int]:
    """The processes of a session."""
    return [pid for pid, words in processes() if int(words[3]) == leader]


def processes() -> Iterator[tuple[int, list[str]]]:
    """Each process with the fields of its ``stat`` that follow its name."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = (entry / "stat").read_text()
                yield int(entry.name), text.rpartition(")")[2].split()


def memory_kb(pids: Sequence[int]) -> tuple[int, int]:
    """Resident and proportional kilobytes of processes; those that ended meanwhile count none."""
    rss = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "Rss":
                    rss += int(value.split()[0])
                elif name == "Pss":
                    pss += int(value.split()[0])
    return rss, pss


class _Watch:
    """The peak of a session's memory while it runs."""

    def __init__(self, leader: int) -> None:
        self.peak = (0, 0)
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, args=(leader,), daemon=True)
        self.thread.start()

    def _watch(self, leader: int) -> None:
        while not self.done.wait(_SAMPLE_SECONDS):
            rss, pss = memory_kb(session(leader))
            self.peak = (max(self.peak[0], rss), max(self.peak[1], pss))

    def stop(self) -> tuple[int, int]:
        self.done.set()
        self.thread.join()
        return self.peak


@contextlib.contextmanager
def serving(command: Sequence[str], log: Path) -> Iterator[int]:
    """A server for as long as the block lasts; gives its process id."""
    with log.open("w") as out:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _running.add(child.pid)
    try:
        yield child.pid
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(15)
        kill(child.pid)
        child.wait()
        _running.discard(child.pid)
