"""Plots without a plotting library: horizontal bars with their spread, and lines.

Colours are readable on white and on black, text takes the page's own colour where SVG is shown
inline, and a middle grey where it is shown as an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLOURS = {"ours": "#e8590c", "native": "#868e96", "wasm": "#1c7ed6", "wrong": "#c92a2a"}
_INK = "#7d858d"
_WIDTH, _LABELS, _RIGHT, _BAR, _TOP = 760, 236, 96, 24, 46


@dataclass(frozen=True)
class Bar:
    """One bar; without a value the note stands in its place."""

    label: str
    kind: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


def bars(title: str, axis: str, given: Sequence[Bar]) -> str:
    """Horizontal bars from zero, each with its figure and, thinly, its least and greatest."""
    top = max([bar.high or bar.value for bar in given if bar.value is not None] or [1.0])
    step = nice_step(top)
    limit = max(step * math.ceil(top / step), step)
    height = _TOP + _BAR * len(given) + 44
    room = _WIDTH - _LABELS - _RIGHT

    def x(value: float) -> float:
        return _LABELS + room * value / limit

    bottom = _TOP + _BAR * len(given) + 4
    parts = [_text(12, 24, title, size=15, bold=True)]
    ticks = round(limit / step)
    for tick in range(ticks + 1):
        at = x(tick * step)
        parts.append(_line(at, _TOP - 4, at, bottom, width=0.5))
        parts.append(_text(at, bottom + 15, f"{tick * step:g}", anchor="middle"))
    parts.append(_text(_LABELS + room / 2, bottom + 33, axis, anchor="middle"))
    for index, bar in enumerate(given):
        y = _TOP + _BAR * index
        middle = y + _BAR / 2
        bold = bar.kind == "ours"
        parts.append(_text(_LABELS - 8, middle + 4, bar.label, anchor="end", bold=bold))
        if bar.value is None:
            parts.append(_text(_LABELS + 6, middle + 4, bar.note or "not measured"))
            continue
        width = max(x(bar.value) - _LABELS, 1)
        parts.append(
            f'<rect x="{_LABELS}" y="{y + 4}" width="{width:.1f}" height="{_BAR - 8}" '
            f'rx="2" fill="{_COLOURS[bar.kind]}"/>'
        )
        end = x(bar.value)
        if bar.low is not None and bar.high is not None:
            parts.append(_line(x(bar.low), middle, x(bar.high), middle, width=1.5))
            end = max(end, x(bar.high))
        parts.append(_text(end + 6, middle + 4, f"{number(bar.value)}{bar.note}", bold=bold))
    return _document(_WIDTH, height, title, parts)


@dataclass(frozen=True)
class Series:
    """Points of one line, and its name."""

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def lines(title: str, x_axis: str, y_axis: str, given: Sequence[Series]) -> str:
    """Lines through points, both axes from zero."""
    width, height, left, bottom = 560, 320, 64, 268
    far = max(x for series in given for x, _ in series.points)
    top = max(y for series in given for _, y in series.points)
    step = nice_step(top)
    limit = step * math.ceil(top / step)
    room, tall = width - left - 150, bottom - _TOP

    def at(x: float, y: float) -> tuple[float, float]:
        return left + room * x / far, bottom - tall * y / limit

    parts = [_text(12, 24, title, size=15, bold=True)]
    for tick in range(round(limit / step) + 1):
        _, y = at(0, tick * step)
        parts.append(_line(left, y, left + room, y, width=0.5))
        parts.append(_text(left - 8, y + 4, f"{tick * step:g}", anchor="end"))
    for mark in sorted({x for series in given for x, _ in series.points}):
        parts.append(_text(at(mark, 0)[0], bottom + 17, f"{mark:g}", anchor="middle"))
    parts.append(_text(left + room / 2, bottom + 38, x_axis, anchor="middle"))
    parts.append(_text(12, _TOP - 6, y_axis))
    for series in given:
        places = [at(x, y) for x, y in series.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        colour = _COLOURS[series.kind]
        dash = ' stroke-dasharray="5 4"' if series.dashed else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        )
        if not series.dashed:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places
            ]
        x, y = places[-1]
        parts.append(_text(x + 10, y + 4, series.label))
    return _document(width, height, title, parts)


def number(value: float) -> str:
    """Three significant digits, as far as they matter."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def nice_step(top: float) -> float:
    """1, 2 or 5 times a power of ten, so that an axis up to ``top`` has four to ten parts."""
    raw = max(top, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return next((f * power for f in (1, 2, 5) if raw <= f * power), 10 * power)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{weight}>'
        f"{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, *, width: float) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{_INK}" stroke-width="{width}"/>'


def _document(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    name = escape(title, {'"': "&quot;"})
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{name}" '
        f'font-family="system-ui, sans-serif" fill="{_INK}">'
    )
    return "\n".join([head, f"<title>{name}</title>", *parts, "</svg>"]) + "\n"
