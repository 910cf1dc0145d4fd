"""Charts as SVG, made on the server: no script, no style attribute, and a text alternative."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.text import capfirst

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 28
LARGEST = 1e15  # Differences of larger values would overflow or be lost by rounding.
ALIKE = 1e-9  # Relative differences; smaller ones are not visible.


@dataclass(frozen=True, slots=True)
class Target:
    """A value that is marked across a chart, from `since` to the last point; to now if there is no point since then."""

    value: float
    since: datetime


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


@dataclass(frozen=True, slots=True)
class _Axes:
    """The places of times and values on a chart, in pixels."""

    first: datetime
    last: datetime
    steps: Sequence[float]

    def across(self, moment: datetime) -> float:
        begin, end = self.first.timestamp(), self.last.timestamp()
        part = (min(end, max(begin, moment.timestamp())) - begin) / (end - begin) if end > begin else 0.5
        return LEFT + (WIDTH - RIGHT - LEFT) * part

    def down(self, value: float) -> float:
        low, high = self.steps[0], self.steps[-1]
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    def drawn(self) -> str:
        """Return the grid with round values, and round days below it."""
        rows = [(f"{self.down(step):.1f}", f"{self.down(step) + 4:.1f}", f"{step:,g}") for step in self.steps]
        days = [(f"{self.across(day):.1f}", f"{day:%m-%d}") for day in round_days(self.first, self.last)]
        return format_html(
            "{}{}",
            format_html_join(
                "",
                '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>',
                ((LEFT, WIDTH - RIGHT, y, y, LEFT - 8, below, step) for y, below, step in rows),
            ),
            format_html_join(
                "",
                '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text x="{0}" y="{3}" text-anchor="middle">{4}</text>',
                ((x, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 4, HEIGHT - 8, day) for x, day in days),
            ),
        )


def line(
    points: Sequence[tuple[datetime, float]], *, title: str, show: Callable[[float], str], target: Target | None = None
) -> str:
    """Return a line through `points`, (time, value) in order of time, the lowest marked, with round values and days on the axes.

    `show` returns a value in words. A value that is not finite, or beyond LARGEST, is left out. What is marked is named below.
    """
    points = [(time, value) for time, value in points if abs(value) < LARGEST]
    if not points:
        return ""
    values = [value for _, value in points]
    aims = [target] if target and abs(target.value) < LARGEST else []
    marked = [*values, *(aim.value for aim in aims)]
    first, last = points[0][0], points[-1][0]
    if any(aim.since > last for aim in aims):
        last = max(last, timezone.now())
    axes = _Axes(first, last, round_steps(min(marked), max(marked)))
    drawn = [(axes.across(time), axes.down(value)) for time, value in points]
    x, y = drawn[min(range(len(values)), key=values.__getitem__)]
    since = [f"target {show(aim.value)} since {aim.since:%Y-%m-%d}" for aim in aims]
    legend = [("lowest", f"Lowest {show(min(values))}"), *(("target", capfirst(words)) for words in since)]
    dots = format_html_join(
        "",
        '<circle class="dot" cx="{}" cy="{}" r="2"><title>{}</title></circle>',
        (
            (f"{x:.1f}", f"{y:.1f}", f"{time:%Y-%m-%d %H:%M} UTC: {show(value)}")
            for (x, y), (time, value) in zip(drawn, points, strict=True)
        ),
    )
    aimed = format_html_join(
        "",
        '<line class="target" x1="{}" x2="{}" y1="{}" y2="{}"/>',
        ((f"{axes.across(aim.since):.1f}", f"{axes.across(last):.1f}", *[f"{axes.down(aim.value):.1f}"] * 2) for aim in aims),
    )
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<path class="line" d="{}"/>{}{}'
        '<circle class="lowest" cx="{}" cy="{}" r="5"/></svg><p class="legend" aria-hidden="true">{}</p>',
        WIDTH, HEIGHT, ", ".join([title, *since]), axes.drawn(), _path(drawn), dots, aimed, f"{x:.1f}", f"{y:.1f}",
        format_html_join("", '<span class="{}">{}</span>', legend),
    )  # fmt: skip


def round_steps(low: float, high: float, *, most: int = 5) -> list[float]:
    """Return round values, 1, 2 or 5 times a power of ten apart, from below `low` to above `high`: two to `most` and one."""
    size = max(abs(low), abs(high))
    span = high - low
    if span <= ALIKE * max(size, 1):
        span = size * 0.1 if size > ALIKE else 1
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most - 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def round_days(first: datetime, last: datetime, *, most: int = 7) -> list[datetime]:
    """Return up to `most` midnights, as many days apart as makes few enough."""
    apart = next((days for days in (1, 2, 7, 14, 30, 91, 365) if (last - first) / timedelta(days=days) < most), 3650)
    found = []
    with suppress(OverflowError):  # Python has no day after the year 9999.
        day = first.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        while day <= last:
            found.append(day)
            day += timedelta(days=apart)
    return found
