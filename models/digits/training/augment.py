"""From a mask to a 32x32 picture as a person might send it: any size, place, slant and polarity."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from sources import INK_SIDE, MASK_SIDE, Masks

SIDE = 32


def picture(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One 32x32 uint8 picture of the mask's digit, randomly placed and inked."""
    ink = mask
    # Thin or thicken the stroke, then soften or harden its edge.
    weight = rng.integers(-1, 3)
    if weight > 0:
        ink = ndimage.grey_dilation(ink, size=(1 + weight, 1 + weight))
    elif weight < 0 and ink.mean() > 0.15:
        ink = ndimage.grey_erosion(ink, size=(2, 2))
    gain = rng.uniform(1.0, 4.0)
    ink = np.clip((ink - 0.5) * gain + 0.5, 0, 1)

    # 30 % to 100 % of the picture's side, with its aspect ratio off by up to a quarter.
    extent = rng.uniform(0.30, 1.0) * SIDE
    aspect = np.exp(rng.uniform(-0.22, 0.22))
    angle = np.deg2rad(rng.normal(0, 8))
    shear = rng.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = INK_SIDE / extent
    matrix = turn @ np.array([[scale * aspect, 0.0], [shear * scale, scale / aspect]])
    room = max(0.0, (SIDE - extent) / 2)
    shift = rng.uniform(-1, 1, 2) * room
    centre = np.array([(SIDE - 1) / 2, (SIDE - 1) / 2]) + shift
    offset = np.array([(MASK_SIDE - 1) / 2] * 2) - matrix @ centre
    if scale > 1:
        ink = ndimage.gaussian_filter(ink, 0.4 * scale)
    ink = ndimage.affine_transform(ink, matrix, offset=offset, output_shape=(SIDE, SIDE), order=1)
    peak = ink.max()
    if peak > 0:
        ink = ink / peak

    light, dark = rng.uniform(0.6, 1.0), rng.uniform(0.0, 0.35)
    if rng.random() < 0.35:
        light, dark = 1.0, 0.0
    paper, stroke = (light, dark) if rng.random() < 0.5 else (dark, light)
    image = paper + (stroke - paper) * ink
    if rng.random() < 0.25:  # uneven light
        slope = rng.normal(0, 0.004, 2)
        rows, columns = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
        image = image + slope[0] * rows + slope[1] * columns
    if rng.random() < 0.5:
        image = image + rng.normal(0, rng.uniform(0, 0.05), image.shape)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def plain(mask: np.ndarray, dark_on_light: bool) -> np.ndarray:
    """The mask as it is, filling most of a 32x32 picture, without any randomness."""
    scale = INK_SIDE / 24
    ink = ndimage.gaussian_filter(mask, 0.4 * scale)
    offset = (MASK_SIDE - 1) / 2 - scale * (SIDE - 1) / 2
    ink = np.clip(
        ndimage.affine_transform(
            ink, [scale, scale], offset=offset, output_shape=(SIDE, SIDE), order=1
        ),
        0,
        1,
    )
    image = 1 - ink if dark_on_light else ink
    return (image * 255 + 0.5).astype(np.uint8)


def batch(
    masks: Masks, picks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Augmented pictures (n, 32, 32) uint8 of the picked masks, with their digits."""
    return np.stack([picture(masks.ink[i], rng) for i in picks]), masks.digit[picks]
