"""Writes a network of MindSpore as ONNX, opset 11, with an input and MindSpore's own output.

    export.py lenet5|resnet50 FOLDER

FOLDER gets NAME.onnx, NAME-input.npy and NAME-expected.npy. Weights are seeded, not trained: what
is compared are numbers. Batch norms have seen noise, so that their statistics are those of their
inputs.
"""

import sys
from pathlib import Path

import mindspore as ms
import mindspore.onnx
import numpy as np
from networks import LeNet5, ResNet50

NETWORKS = {"lenet5": (LeNet5, (1, 32, 32)), "resnet50": (ResNet50, (3, 224, 224))}


def main() -> None:
    """Exports one network."""
    if len(sys.argv) != 3 or sys.argv[1] not in NETWORKS:
        sys.exit(f"usage: export.py {'|'.join(NETWORKS)} FOLDER")
    name, folder = sys.argv[1], Path(sys.argv[2])
    network, shape = NETWORKS[name]
    ms.set_seed(2026)
    noise = np.random.default_rng(2026)

    def batch(count: int) -> ms.Tensor:
        return ms.Tensor(noise.standard_normal((count, *shape)).astype(np.float32))

    cell = network()
    if any(isinstance(inner, ms.nn.BatchNorm2d) for _, inner in cell.cells_and_names()):
        cell.set_train(True)
        cell(batch(2))
    cell.set_train(False)

    given = batch(1)
    expected = cell(given).asnumpy()
    np.save(folder / f"{name}-input.npy", given.asnumpy())
    np.save(folder / f"{name}-expected.npy", expected)
    path = folder / f"{name}.onnx"
    path.unlink(missing_ok=True)
    mindspore.onnx.export(
        cell, given, file_name=str(path), input_names=["image"], output_names=["logits"]
    )
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, logits of {expected.shape}")


if __name__ == "__main__":
    main()
