"""The WASM operator library on tensors larger than caches, beside NumPy and tfjs-backend-wasm.

What limits such operators is memory, so a figure is bytes (of operands and result) a second, and
what a plain copy reaches stands beside it. operators.wasm runs under node's V8, where tfjs does.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphlet_bench import models, process
from graphlet_bench.models import Place
from graphlet_bench.process import PeerError, Placement
from graphlet_bench.setup import Tools

# Bytes of one operand, whatever its type.
OPERAND_BYTES = 16 << 20
OPERATORS = ("Add", "Mul", "Argmax", "EqualCount")
TYPES = {"FP32": "<f4", "INT32": "<i4", "INT8": "i1"}
RUNS = 15
ROUNDS = 2


def measure(
    place: Place, tools: Tools, placement: Placement, say: Callable[[str], None]
) -> dict[str, Any]:
    """Times and outputs of every operator and type; raises PeerError or ModelError."""
    if "node" in tools.reasons:
        raise PeerError(tools.reasons["node"])
    folder = place.work / "operators"
    folder.mkdir(exist_ok=True)
    module = folder / "operators.wasm"
    say("operators: building the library")
    models.graphlet(place, "operators", "--quiet", "-o", str(module))
    cases = _write_cases(folder)
    timed = ["--realtime", process.REALTIME_PRIORITY] if placement.realtime else []
    node = ["node", str(tools.javascript / "operators.mjs"), *timed]
    numpy = [str(place.python), str(tools.bench / "python" / "operators.py")]
    # V8's other threads must not wait for its main one: only while it is timed has it the core.
    who = {
        "graphlet": ([*node, "--module", str(module)], False),
        "numpy": (numpy, True),
        "tfjs": ([*node, "--library", "tfjs"], False),
    }
    results: dict[tuple[str, str], dict[str, Any]] = {}
    copies: list[float] = []
    for turn in range(ROUNDS):
        for name, (command, realtime) in who.items():
            say(f"operators: round {turn + 1} of {ROUNDS}: {name}")
            for event in _spawn(command, folder, cases, placement, realtime):
                if event["operator"] == "copy":
                    copies.append(event["bytes"] / 1e6 / statistics.median(event["ms"]))
                elif "ms" in event:
                    found = results.setdefault((event["operator"], event["type"]), {})
                    mine = found.setdefault(name, {"ms": [], "output": event["output"]})
                    mine["ms"].append(statistics.median(event["ms"]))
    rows = [_row(operator, kind, found) for (operator, kind), found in results.items()]
    copied = round(statistics.median(copies), 2)
    return {"operand_bytes": OPERAND_BYTES, "copy_gb_per_s": copied, "rows": rows}


def _write_cases(folder: Path) -> Path:
    """Operands, half of which are equal; the greatest is seen late, as it is in most tensors."""
    random = np.random.default_rng(5)
    for kind, dtype in TYPES.items():
        count = OPERAND_BYTES // np.dtype(dtype).itemsize
        a: NDArray[Any] = random.integers(-100, 100, count).astype(dtype)
        b = np.where(random.random(count) < 0.5, a, random.integers(-100, 100, count))
        a[count - count // 16] = 101
        a.tofile(folder / f"a.{kind}")
        b.astype(dtype).tofile(folder / f"b.{kind}")
    cases = [
        {"operator": name, "type": kind, "operands": ["a"] if name == "Argmax" else ["a", "b"]}
        for name in OPERATORS
        for kind in TYPES
    ]
    path = folder / "cases.json"
    path.write_text(json.dumps(cases))
    return path


def _spawn(
    command: Sequence[str], folder: Path, cases: Path, placement: Placement, realtime: bool
) -> list[dict[str, Any]]:
    whole = placement.command(
        [*command, "--cases", str(cases), "--runs", str(RUNS)], realtime=realtime
    )
    return process.run(whole, timeout=180, folder=folder).events


def _row(operator: str, kind: str, found: dict[str, Any]) -> dict[str, Any]:
    operands = 1 if operator == "Argmax" else 2
    moved = OPERAND_BYTES * (operands + (operator in ("Add", "Mul")))
    rates = {
        name: round(moved / 1e6 / statistics.median(mine["ms"]), 2) for name, mine in found.items()
    }
    reference = found["numpy"]["output"]
    return {
        "operator": operator,
        "type": kind,
        "gb_per_s": rates,
        "same": {name: mine["output"] == reference for name, mine in found.items()},
    }
