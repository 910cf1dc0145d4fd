"""Numbers in readable units."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


def size(number: float) -> str:
    """Return a number of bytes in the unit that suits it, each 1024 of the one before, as PostgreSQL writes them."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1024:
            return f"{number:,.0f} B" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TB"


def span(time: timedelta | float) -> str:
    """Return a time, or a number of seconds, in the unit that suits it."""
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    for length, unit in ((72 * 3600, "days"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / {'days': 86400}.get(unit, length):,.0f} {unit}"
    return f"{seconds:,.0f} s" if seconds >= 1 else f"{seconds * 1000:,.0f} ms"


def share(part: float) -> str:
    return f"{100 * part:,.1f}%"


def few(texts: Sequence[str], most: int, *, separator: str = ", ") -> str:
    """Return the first `most` of `texts`, and how many more there are."""
    shown, more = separator.join(texts[:most]), len(texts) - most
    return f"{shown}{separator.strip(', ')} and {more} more" if more > 0 else shown


def plural(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun; `many` is the plural of `one` if that is irregular."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
