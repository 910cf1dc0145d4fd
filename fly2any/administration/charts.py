"""Charts as SVG, made on the server: no script, no style attribute, and their content as text for who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.utils.html import format_html, format_html_join

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 28


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if place else 'M'}{x:.1f} {y:.1f}" for place, (x, y) in enumerate(points))


def _scale(values: Sequence[float], begin: float, end: float) -> list[float]:
    low, high = min(values), max(values)
    return [begin + (end - begin) * ((value - low) / (high - low) if high > low else 0.5) for value in values]


def spark(values: Sequence[float], title: str) -> str:
    """Return a line without axes, as wide as a word."""
    xs = _scale(range(len(values)), 1, 89)
    top = max(values) or 1
    ys = [21 - 20 * value / top for value in values]
    points = list(zip(xs, ys, strict=True))
    return format_html(
        '<svg class="chart spark" viewBox="0 0 90 22" role="img" aria-label="{}"><path class="area" d="{} L89 22 L1 22 Z"/><path class="line" d="{}"/></svg>',
        title, _path(points), _path(points),
    )  # fmt: skip


def bars(values: Sequence[float], title: str) -> str:
    """Return bars without axes, as wide as a panel; an empty one is a line."""
    width = 240 / len(values)
    top = max(values) or 1
    drawn = format_html_join(
        "",
        '<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>',
        (
            (f"{place * width + 1:.1f}", f"{40 - height:.1f}", f"{width - 2:.1f}", f"{height:.1f}")
            for place, height in enumerate(max(1, 38 * value / top) for value in values)
        ),
    )
    return format_html('<svg class="chart bars" viewBox="0 0 240 40" role="img" aria-label="{}">{}</svg>', title, drawn)


def line(points: Sequence[tuple[datetime, float]], *, title: str, unit: str) -> str:
    """Return a line through `points`, (time, value) in order of time, with the values in `unit` and the days on the axes."""
    xs = _scale([time.timestamp() for time, _ in points], LEFT, WIDTH - RIGHT)
    values = [value for _, value in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1
    span = high - low + 2 * margin
    place = lambda value: TOP + (HEIGHT - TOP - BOTTOM) * (high + margin - value) / span  # noqa: E731
    drawn = [(x, place(value)) for x, value in zip(xs, values, strict=True)]
    steps = [low + (high - low) * step / 4 for step in range(5)] if high > low else [low]
    grid = format_html_join(
        "",
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>',
        (
            (
                LEFT,
                WIDTH - RIGHT,
                f"{place(step):.1f}",
                f"{place(step):.1f}",
                LEFT - 8,
                f"{place(step) + 4:.1f}",
                f"{step:,.0f}",
            )
            for step in steps
        ),
    )
    first, last = points[0][0], points[-1][0]
    dots = format_html_join(
        "",
        '<circle class="dot" cx="{}" cy="{}" r="2.5"><title>{}</title></circle>',
        ((f"{x:.1f}", f"{y:.1f}", f"{time:%Y-%m-%d %H:%M} UTC: {value:,.2f} {unit}") for (x, y), (time, value) in zip(drawn, points, strict=True)),
    )  # fmt: skip
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<path class="line" d="{}"/>{}'
        '<text x="{}" y="{}">{}</text><text x="{}" y="{}" text-anchor="end">{}</text></svg>',
        WIDTH, HEIGHT, title, grid, _path(drawn), dots,
        LEFT, HEIGHT - 8, f"{first:%Y-%m-%d}", WIDTH - RIGHT, HEIGHT - 8, f"{last:%Y-%m-%d}",
    )  # fmt: skip
