"""The tensor that peers get, and what is read from lock files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graphlet_bench import models, peers
from graphlet_bench.models import ModelError


def spec(planes: int, side: int, **fields: Any) -> dict[str, Any]:
    asked = {
        "resize": "exact",
        "filter": "bilinear",
        "channels": "grey" if planes == 1 else "RGB",
        "scale": [1 / 255],
        "mean": [0.0],
        "std": [1.0],
    }
    return {"input": {"shape": [1, planes, side, side]}, "preprocess": asked | fields}


def test_channels_are_ordered_and_normalised_as_the_spec_says(tmp_path: Path) -> None:
    Image.new("RGB", (9, 5), (255, 51, 0)).save(tmp_path / "p.png")
    rgb = models.preprocess(spec(3, 4), tmp_path / "p.png")
    assert rgb.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(rgb[0, :, 0, 0], [1, 0.2, 0], atol=1e-6)
    asked = spec(3, 4, channels="BGR", scale=[1.0], mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 2.0])
    bgr = models.preprocess(asked, tmp_path / "p.png")
    np.testing.assert_allclose(bgr[0, :, 3, 3], [-104, 51 - 117, (255 - 123) / 2], atol=1e-4)


def test_the_middle_of_the_longer_side_is_kept(tmp_path: Path) -> None:
    # Columns count up; 20 x 10 to a shorter side of 10 stays, and columns 5 to 14 are kept.
    columns = np.tile(np.arange(20, dtype=np.uint8), (10, 1))
    Image.fromarray(columns).save(tmp_path / "p.png")
    asked = spec(1, 10, resize="shorter-side", size=[10, 10], scale=[1.0])
    made = models.preprocess(asked, tmp_path / "p.png")
    np.testing.assert_array_equal(made[0, 0, 0], np.arange(5, 15))


def test_a_resize_that_is_not_known_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "p.png")
    with pytest.raises(ModelError, match="letterbox"):
        models.preprocess(spec(1, 4, resize="letterbox"), tmp_path / "p.png")


def test_versions_of_the_rust_peers_are_those_of_their_lock_file() -> None:
    found = peers.locked_versions(Path(__file__).parents[1] / "peers" / "Cargo.lock")
    assert found["wasmtime"].startswith("48.")
    assert {"tract-onnx", "rten"} <= found.keys()
