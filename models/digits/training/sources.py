"""Where the training pictures come from: scikit-learn's digits and digits set in fonts.

A *mask* is a 48x48 float32 array in 0..=1, 1 where there is ink, with the digit's bounding box
scaled to 40 pixels in its longer extent and centred. Everything else (size, place, slant, polarity,
noise) is added by `augment.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from sklearn.datasets import load_digits

MASK_SIDE = 48
INK_SIDE = 40

# Families that the network never sees in training; the report gives their accuracy.
HELD_OUT_FAMILIES = ("DejaVu", "Comic", "Lato", "LinLibertine", "Hack")


@dataclass(frozen=True)
class Masks:
    """Masks (n, 48, 48) with their digits (n,)."""

    ink: np.ndarray
    digit: np.ndarray


def centred(ink: np.ndarray) -> np.ndarray:
    """Crops to the ink, scales the longer extent to `INK_SIDE`, centres on the mask."""
    rows = np.flatnonzero(ink.max(axis=1) > 0.2)
    columns = np.flatnonzero(ink.max(axis=0) > 0.2)
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = crop.shape
    scale = INK_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(
        Image.fromarray((crop * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC),
        dtype=np.float32,
    )
    mask = np.zeros((MASK_SIDE, MASK_SIDE), np.float32)
    top, left = (MASK_SIDE - size[1]) // 2, (MASK_SIDE - size[0]) // 2
    mask[top : top + size[1], left : left + size[0]] = resized / 255
    return mask


def handwritten(held_out_share: float, seed: int) -> tuple[Masks, Masks]:
    """scikit-learn's 1,797 digits (UCI, 8x8, 17 grey levels) split before any augmenting.

    Returns (training, held out). Each 8x8 picture is enlarged by a cubic spline.
    """
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    masks = np.stack(
        [
            centred(np.clip(ndimage.zoom(np.pad(image / 16, 1), 5, order=3), 0, 1))
            for image in data.images
        ]
    ).astype(np.float32)
    cut = int(len(order) * held_out_share)
    held, kept = order[:cut], order[cut:]
    return (
        Masks(masks[kept], data.target[kept]),
        Masks(masks[held], data.target[held]),
    )


def printed(fonts: Path) -> tuple[Masks, Masks, list[str], list[str]]:
    """The ten digits in every font file below `fonts`, split by family.

    Returns (training, held out, training fonts, held-out fonts). Symbol fonts, whose digits are
    no digits, are left out.
    """
    split: dict[bool, tuple[list[np.ndarray], list[int], list[str]]] = {
        False: ([], [], []),
        True: ([], [], []),
    }
    for path in sorted(fonts.rglob("*")):
        if path.suffix.lower() not in {".ttf", ".otf"} or "Symbol" in path.name:
            continue
        if any(word in path.name for word in ("Math", "Emoji", "Initials", "Keyboard")):
            continue
        font = ImageFont.truetype(str(path), 64)
        ink, digits, names = split[any(family in path.name for family in HELD_OUT_FAMILIES)]
        for digit in range(10):
            canvas = Image.new("L", (160, 160), 0)
            ImageDraw.Draw(canvas).text((48, 32), str(digit), fill=255, font=font)
            picture = np.asarray(canvas, dtype=np.float32) / 255
            if picture.max() == 0:
                break
            ink.append(centred(picture))
            digits.append(digit)
        else:
            names.append(path.stem)
    if not split[False][0] or not split[True][0]:
        raise SystemExit(
            f"error: no usable fonts below {fonts}\nhint: install the packages that README.md names"
        )
    kept, held = split[False], split[True]
    return (
        Masks(np.stack(kept[0]), np.array(kept[1])),
        Masks(np.stack(held[0]), np.array(held[1])),
        kept[2],
        held[2],
    )
