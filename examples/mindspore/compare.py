"""Compares what graphlet computed with what MindSpore did; fails when they differ.

    compare.py NAME FOLDER

FOLDER holds NAME-expected.npy, and NAME-output.npz as `graphlet graph run --outputs` wrote it.
"""

import sys
from pathlib import Path

import numpy as np

# Sums of float32 in another order, as a part of the largest logit: what graphlet's conformance
# tests allow beside onnxruntime.
TOLERANCE = 1e-3


def main() -> None:
    """Compares, and says by how much they are apart."""
    if len(sys.argv) != 3:
        sys.exit("usage: compare.py NAME FOLDER")
    name, folder = sys.argv[1], Path(sys.argv[2])
    expected = np.load(folder / f"{name}-expected.npy")
    with np.load(folder / f"{name}-output.npz") as outputs:
        (found,) = [outputs[key] for key in outputs.files]
    if found.shape != expected.shape or found.dtype != expected.dtype:
        sys.exit(f"{name}: {found.dtype}{found.shape}, not {expected.dtype}{expected.shape}")
    largest = float(np.abs(expected).max())
    apart = float(np.abs(found - expected).max())
    print(
        f"{name}: {expected.size} logits, at most {apart:.2e} apart, the largest {largest:.3g}; "
        f"best class {found.argmax()}, MindSpore's {expected.argmax()}"
    )
    if not apart <= TOLERANCE * largest or found.argmax() != expected.argmax():
        sys.exit(f"{name}: further apart than {TOLERANCE:g} of the largest logit")


if __name__ == "__main__":
    main()
