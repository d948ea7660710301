"""Plots as SVG, drawn by hand: sharp at any size, and no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7f7f7f",
    "#000000",
    "#8c564b",
    "#bcbd22",
    "#9467bd",
)
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


@dataclass(frozen=True)
class Point:
    """A share `value` at `x`, with its interval."""

    x: float
    value: float
    low: float
    high: float


def line_chart(title: str, x_label: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Return an SVG: shares in % against x, one line a name, intervals as bars.

    x is logarithmic and falls from left to right, so that names stand where the lines are apart.
    """
    width, height, left, right, top, bottom = 760, 420, 56, 190, 40, 48
    xs = sorted({point.x for points in lines.values() for point in points})
    low = min((p.low for points in lines.values() for p in points), default=0.0)
    floor = max(0.0, np.floor(low * 10) / 10)
    spread = np.log2(xs[-1] / xs[0]) if len(xs) > 1 else 1.0

    def at(x: float, value: float) -> tuple[float, float]:
        across = np.log2(xs[-1] / x) / spread if len(xs) > 1 else 0.5
        up = (value - floor) / (1 - floor or 1)
        return left + across * (width - left - right), height - bottom - up * (
            height - top - bottom
        )

    parts = [
        _text(left, 22, title, weight="600"),
        _text((width - right + left) / 2, height - 10, x_label, anchor="middle"),
    ]
    for tick in np.arange(floor, 1.001, 0.1):
        y = at(xs[-1], tick)[1]
        parts.append(_line(left, y, width - right, y, "#8884", 1))
        parts.append(_text(left - 8, y + 4, f"{100 * tick:.0f}", anchor="end"))
    for x in xs:
        parts.append(_text(at(x, floor)[0], height - bottom + 18, f"{x:g}", anchor="middle"))
    ends = []
    for i, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        ordered = sorted(points, key=lambda p: p.x)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p.x, p.value) for p in ordered))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        # Lines that lie on each other are told apart by bars a little beside the point.
        shift = 3 * (i - (len(lines) - 1) / 2)
        for p in ordered:
            (x, y), y_low, y_high = at(p.x, p.value), at(p.x, p.low)[1], at(p.x, p.high)[1]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            parts.append(_line(x + shift, y_low, x + shift, y_high, colour, 1))
        ends.append((at(ordered[0].x, ordered[0].value)[1], name, colour))
    parts += _labels(ends, width - right + 14)
    return _svg(width, height, parts)


def heat_map(title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray) -> str:
    """Return an SVG of shares [rows, columns] in [0, 1]; NaN stays empty."""
    left, top, cell_w, cell_h = 190, 62, 62, 24
    width, height = left + cell_w * len(columns) + 20, top + cell_h * len(rows) + 16
    parts = [_text(16, 22, title, weight="600")]
    for j, column in enumerate(columns):
        parts.append(_text(left + (j + 0.5) * cell_w, top - 8, column, anchor="middle"))
    for i, row in enumerate(rows):
        parts.append(_text(left - 8, top + (i + 0.68) * cell_h, row, anchor="end"))
        for j in range(len(columns)):
            value = values[i, j]
            if np.isnan(value):
                continue
            x, y = left + j * cell_w, top + i * cell_h
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell_w - 2}" height="{cell_h - 2}" rx="3" '
                f'fill="{_shade(float(value))}"/>'
            )
            ink = "#fff" if value < 0.35 or value > 0.8 else "#111"
            place = (x + cell_w / 2 - 1, y + 0.66 * cell_h)
            parts.append(_text(*place, f"{100 * value:.0f}", anchor="middle", fill=ink))
    return _svg(width, height, parts)


def _shade(value: float) -> str:
    """From dark red by pale yellow to dark blue."""
    stops = np.array([[165, 0, 38], [253, 210, 130], [49, 74, 160]], float)
    position = min(max(value, 0.0), 1.0) * 2
    i = min(1, int(position))
    red, green, blue = stops[i] + (position - i) * (stops[i + 1] - stops[i])
    return f"rgb({red:.0f},{green:.0f},{blue:.0f})"


def _labels(ends: list[tuple[float, str, str]], x: float) -> list[str]:
    """Names beside the ends of their lines, moved apart where they would overlap."""
    parts, last = [], -np.inf
    for y, name, colour in sorted(ends):
        last = max(y, last + 15)
        parts.append(_text(x, last + 4, name, fill=colour))
    return parts


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", fill: str = "#444"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{fill}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def _svg(width: float, height: float, parts: list[str]) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" {_FONT}>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{inner}\n</svg>\n'
    )
