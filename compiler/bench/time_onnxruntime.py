"""Times onnxruntime on one core: python time_onnxruntime.py MODEL.onnx RUNS.

Prints the median milliseconds of one inference on a random input, one thread.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    """Runs and prints."""
    path, runs = sys.argv[1], int(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [extent if isinstance(extent, int) else 1 for extent in given.shape]
    tensor = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    times = []
    for _ in range(runs + 2):
        begun = time.perf_counter()
        session.run(None, {given.name: tensor})
        times.append((time.perf_counter() - begun) * 1e3)
    # The first two touch memory for the first time.
    print(f"{statistics.median(times[2:]):.3f}")


if __name__ == "__main__":
    main()
