"""The section on the operator library: what it reads, and what it says of a wrong output."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from graphlet_bench import machine, operators, report

BENCH = Path(__file__).resolve().parents[1]


def test_numpys_side_gives_results_and_hashes(tmp_path: Path) -> None:
    a, b = np.array([3, 5, 127], np.int8), np.array([3, 1, 1], np.int8)
    a.tofile(tmp_path / "a.INT8")
    b.tofile(tmp_path / "b.INT8")
    both = ["a", "b"]
    cases = [
        {"operator": "Add", "type": "INT8", "operands": both},
        {"operator": "Argmax", "type": "INT8", "operands": ["a"]},
        {"operator": "EqualCount", "type": "INT8", "operands": both},
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, str(BENCH / "python" / "operators.py"), "--runs", "2"]
    done = subprocess.run(
        [*command, "--cases", str(tmp_path / "cases.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    wrapped = hashlib.sha256(np.array([6, 6, -128], np.int8).tobytes()).hexdigest()
    assert [event.get("output") for event in events] == [wrapped, 2, 1, None]
    assert all(len(event["ms"]) == 2 for event in events)
    assert events[-1]["operator"] == "copy"


def row(**outputs: Any) -> dict[str, Any]:
    found = {name: {"ms": [2.0, 4.0, 3.0], "output": output} for name, output in outputs.items()}
    return operators._row("Add", "INT8", found)


def test_a_rate_counts_operands_and_result_and_a_wrong_output_is_marked() -> None:
    made = row(graphlet="h", numpy="h", tfjs="other")
    assert made["gb_per_s"]["graphlet"] == round(3 * (16 << 20) / 1e6 / 3, 2)
    found = {"operand_bytes": 16 << 20, "copy_gb_per_s": 20.0, "rows": [made]}
    line = "\n".join(report._operators(found)).splitlines()[-1]
    assert line == "| Add INT8 | 16.8 | 16.8 | 16.8 **WRONG** | 1.00 | 0.84 |"
    found["rows"] = [row(graphlet="h", numpy="h")]
    assert "no such type" in "\n".join(report._operators(found))
    assert "Not measured: why." in "\n".join(report._operators({"reason": "why"}))


def test_the_commit_is_the_last_before_the_binary_was_built(tmp_path: Path) -> None:
    def git(*words: str, date: int = 0) -> str:
        who = {
            f"GIT_{role}_{what}": "t"
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        when = {"GIT_COMMITTER_DATE": f"@{date} +0000", "GIT_AUTHOR_DATE": f"@{date} +0000"}
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *words],
            env={**os.environ, **who, **when},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    commits = []
    for date in (1_700_000_000, 1_700_001_000, 1_700_002_000):
        git("commit", "-q", "--allow-empty", "-m", str(date), date=date)
        commits.append(git("rev-parse", "--short=12", "HEAD"))
    binary = tmp_path / "graphlet"
    binary.write_text("")
    os.utime(binary, (1_700_001_500, 1_700_001_500))
    assert machine.built_from(tmp_path, binary) == commits[1]
    os.utime(binary, (1_600_000_000, 1_600_000_000))
    assert machine.built_from(tmp_path, binary) == commits[2], "older than all: what there is"
    assert machine.built_from(tmp_path, tmp_path / "none") is None
