"""Draws the sample pictures in ../samples: ten digits by pen strokes defined here.

    python draw.py [--out ../samples]

No font and no photograph is used, so the samples are as free as the code. They differ in size,
polarity, pen, slant and place, as pictures from people do. The same call draws the same bytes.
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

Point = tuple[float, float]


def arc(cx: float, cy: float, rx: float, ry: float, begin: float, end: float) -> list[Point]:
    """Points along an ellipse; degrees run clockwise from three o'clock, as y points down."""
    count = 40
    return [
        (
            cx + rx * math.cos(math.radians(begin + (end - begin) * i / count)),
            cy + ry * math.sin(math.radians(begin + (end - begin) * i / count)),
        )
        for i in range(count + 1)
    ]


# Strokes in a unit square, y down.
STROKES: dict[int, list[list[Point]]] = {
    0: [arc(0.5, 0.5, 0.3, 0.46, -90, 270)],
    1: [[(0.32, 0.25), (0.54, 0.05), (0.54, 0.95)]],
    2: [[*arc(0.5, 0.3, 0.28, 0.25, -170, 30), (0.22, 0.94), (0.8, 0.94)]],
    3: [[*arc(0.46, 0.28, 0.27, 0.22, -160, 90), *arc(0.46, 0.72, 0.31, 0.23, -90, 150)]],
    4: [[(0.6, 0.05), (0.16, 0.66), (0.86, 0.66)], [(0.63, 0.36), (0.63, 0.96)]],
    5: [[(0.76, 0.06), (0.32, 0.06), (0.27, 0.45), *arc(0.47, 0.67, 0.29, 0.27, -130, 140)]],
    6: [
        [
            (0.66, 0.05),
            *arc(0.62, 0.6, 0.4, 0.42, -130, -180),
            *arc(0.5, 0.68, 0.28, 0.26, 180, 540),
        ]
    ],
    7: [[(0.18, 0.07), (0.8, 0.07), (0.42, 0.95)]],
    8: [arc(0.5, 0.27, 0.22, 0.21, 90, 450), arc(0.5, 0.71, 0.28, 0.24, -90, 270)],
    9: [[*arc(0.5, 0.31, 0.26, 0.25, 0, 360), (0.74, 0.5), (0.62, 0.95)]],
}


@dataclass(frozen=True)
class Style:
    """How one sample is drawn; `place` and `extent` are shares of the picture's side."""

    side: int
    paper: int
    ink: int
    pen: float
    extent: float
    place: Point
    slant: float


STYLES: dict[int, Style] = {
    0: Style(96, 255, 0, 0.09, 0.80, (0.50, 0.50), 0.00),
    1: Style(280, 0, 255, 0.07, 0.75, (0.48, 0.52), 0.10),
    2: Style(64, 255, 20, 0.10, 0.85, (0.50, 0.50), 0.05),
    3: Style(128, 20, 235, 0.10, 0.62, (0.56, 0.46), 0.00),
    4: Style(200, 240, 30, 0.06, 0.70, (0.45, 0.55), 0.12),
    5: Style(96, 0, 255, 0.11, 0.80, (0.50, 0.50), 0.08),
    6: Style(320, 250, 60, 0.08, 0.55, (0.55, 0.52), 0.00),
    7: Style(96, 255, 0, 0.09, 0.78, (0.50, 0.50), 0.06),
    8: Style(48, 30, 230, 0.10, 0.85, (0.50, 0.50), 0.00),
    9: Style(160, 255, 40, 0.09, 0.66, (0.46, 0.48), 0.08),
}

# Drawn this much larger, then averaged down: smooth edges.
OVERSAMPLING = 4


def draw(digit: int, style: Style) -> Image.Image:
    """One digit as a grey picture of `style.side` pixels."""
    side = style.side * OVERSAMPLING
    picture = Image.new("L", (side, side), style.paper)
    pen = ImageDraw.Draw(picture)
    radius = style.pen * style.extent * side / 2

    def placed(point: Point) -> Point:
        x, y = point[0] - 0.5, point[1] - 0.5
        x -= style.slant * y
        return (
            (style.place[0] + x * style.extent) * side,
            (style.place[1] + y * style.extent) * side,
        )

    for stroke in STROKES[digit]:
        points = [placed(point) for point in stroke]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            steps = max(1, round(math.hypot(x1 - x0, y1 - y0)))
            for i in range(steps + 1):
                x, y = x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=style.ink)
    return picture.resize((style.side, style.side), Image.Resampling.BOX)


def main() -> None:
    """Draws every sample."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent.parent / "samples"
    )
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for digit, style in STYLES.items():
        draw(digit, style).save(out / f"{digit}.png", optimize=True)


if __name__ == "__main__":
    main()
