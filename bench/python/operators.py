"""Operators on large tensors with NumPy, and what copying as many bytes takes."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"FP32": "<f4", "INT32": "<i4", "INT8": "i1"}
Array = NDArray[Any]


def main() -> None:
    """A line of JSON for each case of ``--cases FILE``, with the result or a tensor's hash."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--runs", type=int, required=True)
    asked = parser.parse_args()
    for case in json.loads(asked.cases.read_text()):
        kind = case["type"]
        operands = [
            np.fromfile(asked.cases.parent / f"{name}.{kind}", TYPES[kind])
            for name in case["operands"]
        ]
        result = np.empty_like(operands[0])
        compute = _operator(case["operator"], operands, result)
        found = compute()
        times = _times(compute, asked.runs)
        if isinstance(found, np.ndarray):
            output: int | str = hashlib.sha256(found.tobytes()).hexdigest()
        else:
            output = int(found)
        told = {"operator": case["operator"], "type": kind, "ms": times, "output": output}
        print(json.dumps(told), flush=True)
    source = np.zeros(16 << 20, np.uint8)
    source += 1
    target = np.empty_like(source)
    times = _times(lambda: np.copyto(target, source), asked.runs)
    print(json.dumps({"operator": "copy", "bytes": 2 * source.nbytes, "ms": times}), flush=True)


def _operator(name: str, operands: list[Array], result: Array) -> Callable[[], Any]:
    a, b = operands[0], operands[-1]
    return {
        "Add": lambda: np.add(a, b, out=result),
        "Mul": lambda: np.multiply(a, b, out=result),
        "Argmax": lambda: np.argmax(a),
        "EqualCount": lambda: np.count_nonzero(a == b),
    }[name]


def _times(work: Callable[[], Any], runs: int) -> list[float]:
    work()
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        found.append(round((time.perf_counter() - begun) * 1e3, 4))
    return found


if __name__ == "__main__":
    main()
