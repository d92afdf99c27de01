"""Processes that are measured: what they print, how they end, and that none is left."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from graphlet_bench import process
from graphlet_bench.process import PeerError, Placement


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_of_json_are_read_and_others_passed_over() -> None:
    code = """print('{"event": "first"}', flush=True); print("noise"); print('{"ms": [1.5]}')"""
    spawned = process.run(python(code), timeout=60)
    assert spawned.events == [{"event": "first"}, {"ms": [1.5]}]
    assert spawned.first_ms > 0


def test_a_failure_tells_the_line_that_says_most() -> None:
    code = "import sys; sys.exit('a warning\\nTypeError: no such model\\n  at line 3')"
    with pytest.raises(PeerError, match="exit code 1: TypeError: no such model"):
        process.run(python(code), timeout=60)
    chain = "Error: Reading the model\\n\\nCaused by:\\n    Out of memory (os error 48)"
    with pytest.raises(PeerError, match="Error: Reading the model: Out of memory"):
        process.run(python(f"import sys; sys.exit('{chain}')"), timeout=60)
    with pytest.raises(PeerError, match="it said nothing"):
        process.run(python("pass"), timeout=60)
    with pytest.raises(PeerError, match="does not start"):
        process.run(["/no/such/program"], timeout=60)


def test_a_process_that_lasts_too_long_ends_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "child"
    code = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(note)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    # Long enough for the child to begin, on a slow machine at the second or third try.
    for patience in (3, 15, 60):
        with pytest.raises(PeerError, match="not done after"):
            process.run(python(code), timeout=patience)
        if note.exists() and note.read_text():
            break
    child = int(note.read_text())
    deadline = time.monotonic() + 30
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_memory_of_children_counts_too() -> None:
    held = 64 << 20
    code = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; b = bytearray(b'x' * {held}); time.sleep(1)"])
print('{{"event": "done"}}')
"""
    spawned = process.run(python(code), timeout=60, sample=True)
    assert spawned.rss_kb * 1024 > held
    assert spawned.rss_kb >= spawned.pss_kb > 0


def test_a_server_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    code = "import time; time.sleep(600)"
    with process.serving(python(code), tmp_path / "log") as pid:
        assert _runs(pid)
        assert pid in process.session(pid)
    assert not _runs(pid)


def test_a_browser_is_pinned_without_the_priority_of_others() -> None:
    placed = Placement(core=2, realtime=True)
    pinned = ["taskset", "-c", "2", "peer"]
    assert placed.command(["peer"]) == ["chrt", "-f", "10", *pinned]
    assert placed.command(["peer"], realtime=False) == pinned
    assert Placement(core=2, realtime=False).command(["peer"]) == pinned
    assert Placement.find().core in os.sched_getaffinity(0)
    assert Placement.find(0) == Placement(core=0, realtime=False)
