"""Line charts as SVG, by hand: a logarithmic axis to the right, a linear one from 0 upwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 56, 48  # room around the lines
COLOURS = ("#1f5fa8", "#b8561a", "#3d7d3d", "#7a4a9e")

Points = Sequence[tuple[float, float]]


def line_chart(title: str, across: str, up: str, lines: Mapping[str, Points]) -> str:
    """An SVG document with one line for each of ``lines``; the numbers to the right are over 0."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    left, right = math.log10(min(xs)), math.log10(max(xs))
    step = _step(max(ys) * 1.1)
    top = step * math.ceil(max(ys) * 1.1 / step)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(x) - left) / ((right - left) or 1)
        return (
            LEFT + share * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, title, size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, across, anchor="middle"),
        _text(8, TOP - 14, up),
    ]
    for number in range(round(top / step) + 1):
        y = place(min(xs), number * step)[1]
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y))
        parts.append(_text(LEFT - 6, y + 4, f"{number * step:g}", anchor="end"))
    for power in range(math.ceil(left), math.floor(right) + 1):
        x = place(10**power, 0)[0]
        parts.append(_line(x, TOP, x, HEIGHT - BOTTOM))
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{10**power:,}", anchor="middle"))
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(x, y) for x, y in points]
        track = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{track}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in places:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT - 190 * number, TOP - 14, name, colour, anchor="end"))
    return "\n".join([*parts, "</svg>", ""])


def _step(top: float) -> float:
    """The distance of the lines across: 1, 2 or 5 times a power of ten, at most eight of them."""
    power = 10 ** math.floor(math.log10(top / 8))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 8 >= top)


def _text(
    x: float, y: float, text: str, colour: str = "#333", *, anchor: str = "start", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"'
        f' font-size="{size}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'
