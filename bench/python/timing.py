"""What the Python peers share: arguments, timing, report; as peers/timing does for Rust."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def arguments() -> argparse.Namespace:
    """``--model FILE --input FILE --shape N,… --runs N --warmup N --output FILE``."""
    parser = argparse.ArgumentParser()
    for name in ("model", "input", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--shape", type=lambda s: [int(e) for e in s.split(",")], required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    return parser.parse_args()


def tensor(options: argparse.Namespace) -> Floats:
    """The input: 32-bit floats, little-endian."""
    return np.fromfile(options.input, "<f4").reshape(options.shape)


def run(options: argparse.Namespace, infer: Callable[[], Floats]) -> None:
    """Calls ``infer`` (tensor in memory to tensor in memory) and reports."""
    output = infer()
    print(json.dumps({"event": "first", "label": int(np.argmax(output))}), flush=True)
    for _ in range(options.warmup):
        infer()
    times = []
    for _ in range(options.runs):
        begun = time.perf_counter()
        output = infer()
        times.append(round((time.perf_counter() - begun) * 1e3, 4))
    output.astype("<f4").tofile(options.output)
    print(json.dumps({"event": "done", "ms": times}))
    sys.stdout.flush()
