"""Formats of values: each function returns safe HTML or text for a value, which may be anything the site wrote.

They also shorten it for a list: `cell` an e-mail address or a text, `identifier` an id; admin.css cuts what is wider than its
column. long_values.py decides how much of a long text is fetched.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import TIME_STRINGS, timesince

from fly2any.database.units import plural
from fly2any.postgres.values import Beyond, Unreadable

from .markup import markup

TIME = markup('<time datetime="{}" title="{}">{}</time>')
NUMBER = markup('<span class="number">{}</span>')
SHORT, CUT, ID, EMAIL = map(
    markup, ("<bdi>{}</bdi>", *(f'<bdi class="{name}" title="{{0}}">{{0}}</bdi>' for name in ("cut", "cut id", "cut email")))
)
CHOICE = markup('<span class="chip" data-value="{}">{}</span>')
YES, NO = SafeString('<span class="chip good">Yes</span>'), SafeString('<span class="chip">No</span>')
NOTHING = SafeString('<span class="nothing" aria-label="empty">–</span>')
LONGEST_CELL = 80  # Characters of a text in a list.
# ISO 4217; every other currency has two.
DECIMALS = {
    **dict.fromkeys(
        ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"], 0
    ),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
}
NEVER_CUT = 20  # Characters that fit into every column.
LONGEST_TEXT = 20_000  # Characters of a text on a page of its own.
MOST_ITEMS = 300  # Nodes of a JSON value in total; the rest is only counted.
LONGEST_LEAF = 2_000
DEEPEST = 12

Show = Callable[[Any, Any], Any]  # (value, row) → what is shown of it.


def moment(value: datetime) -> str:
    """Return a time in full, UTC."""
    return value.text if isinstance(value, Beyond) else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


class Unit(str):
    """A unit of time in place of timesince's, whose translation took longer than the rest."""

    __slots__ = ()

    def __mod__(self, values):
        return f"{values['num']} {self}{'' if values['num'] == 1 else 's'}"


UNITS: dict[str, Any] = {name: Unit(name) for name in TIME_STRINGS}


def age(value: datetime) -> str:
    """Return how long ago a time was, or how far ahead it is, in one unit."""
    if isinstance(value, Beyond):
        return value.text
    now = timezone.now()
    words = timesince(value, now, reversed=value > now, time_strings=UNITS, depth=1)
    if words.startswith("0"):
        return "just now"
    return f"{words} ago" if value <= now else f"in {words}"


def when(value: datetime, row: Any = None) -> str:
    """Show a time as its distance from now, with the exact time on it."""
    return TIME(value.isoformat(), moment(value), age(value))


def when_in_full(value: datetime, row: Any = None) -> str:
    return format_html(
        '<time datetime="{}">{}</time> <span class="quiet">{}</span>', value.isoformat(), moment(value), age(value)
    )


def day(value: datetime, row: Any = None) -> str:
    """Show the day of a time, UTC, without its time of day."""
    return value.text if isinstance(value, Beyond) else f"{value.astimezone(UTC):%Y-%m-%d}"


def epoch(*, unit: float) -> Show:
    """Return a format that shows seconds (unit 1) or milliseconds (0.001) since 1970 as a time."""

    def show(value, row):
        try:
            return when_in_full(datetime.fromtimestamp(value * unit, UTC))
        except (OverflowError, ValueError, OSError):
            return f"{value:,}"

    return show


def plain_amount(value: float, currency: str | None = None) -> str:
    """Return an amount as text, with its currency and that currency's decimals (two if unknown)."""
    if not math.isfinite(value):
        return str(value)
    number = f"{value:,.{DECIMALS.get(currency or '', 2)}f}"
    return f"{number}\u00a0{currency}" if currency else number


def amount(value: float, currency: str | None = None) -> str:
    """Show an amount as plain_amount() returns it."""
    return NUMBER(plain_amount(value, currency)) if math.isfinite(value) else str(value)


def money(currency: str = "currency") -> Show:
    """Return a format that shows a price in the currency that another field of the row names."""
    return lambda value, row: amount(value, getattr(row, currency, None))


def with_unit(unit: str) -> Show:
    return lambda value, row: format_html('<span class="number">{}\u00a0{}</span>', f"{value:,}", unit)


def number(value: float, row: Any = None) -> str:
    return NUMBER(f"{value:,}")


def cell(value: Any, row: Any = None) -> str:
    """Show a text in a list, in one line; an e-mail address has more room than any other.

    The style sheet cuts what is wider than its column; its first LONGEST_CELL characters remain in the page, to select and as a title.
    """
    text = beginning(value)
    _, at, domain = text.partition("@")
    if at and domain and " " not in text:
        return EMAIL(text)
    return SHORT(text) if len(text) <= NEVER_CUT else CUT(text)


def identifier(value: Any, row: Any = None) -> str:
    """Show an id in a list: what its column has room for, with its first LONGEST_CELL characters to select and as a title."""
    return ID(beginning(value))


def beginning(value: Any) -> str:
    """Return a value as text that fits a cell."""
    text = str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"


def text(value: Any, row: Any = None) -> str:
    """Show a text on a page of its own, its lines kept."""
    text = str(value)
    rest = len(text) - LONGEST_TEXT
    more = f" … {plural(rest, 'more character')}" if rest > 0 else ""
    return format_html('<div class="long-text" dir="auto">{}<span class="quiet">{}</span></div>', text[:LONGEST_TEXT], more)


def spaced(show: Show) -> Show:
    """Return a format that shows a comma-separated text as `show` does, with a space after each comma."""
    return lambda value, row: show(re.sub(r",(?=\S)", ", ", str(value)), row)


def choice(labels: dict[str, str]) -> Show:
    """Return a format that shows a choice by its label, if it has one, in its own colour."""

    def show(value, row):
        return CHOICE(beginning(value), beginning(labels.get(value, value)))

    return show


def yes_no(value: bool, row: Any = None) -> str:
    return YES if value else NO


def chips(values: list[Any], row: Any = None) -> str:
    """Show an array."""
    return (
        format_html_join(" ", '<span class="chip">{}</span>', ((beginning(value),) for value in values[:MOST_ITEMS])) or NOTHING
    )


def fingerprint(secret: str) -> str:
    """Return 8 hexadecimal digits that distinguish secrets without revealing them (HMAC-SHA-256 with SECRET_KEY)."""
    return salted_hmac("fly2any.administration.fingerprint", secret, algorithm="sha256").hexdigest()[:8]


def secret(value: str, row: Any = None) -> str:
    """Show a secret by its fingerprint."""
    return format_html('<span class="secret" title="Fingerprint of a secret">•••• {}</span>', fingerprint(value))


def tree(value: Any, row: Any = None) -> str:
    """Show a JSON value as a collapsible tree."""
    if isinstance(value, Unreadable):
        return format_html('<span class="quiet">{}</span>', value)
    left = [MOST_ITEMS]
    shown = _branch(value, left, 0)
    return format_html('<div class="json">{}</div>', shown)


def _branch(value: Any, left: list[int], depth: int, name: Any = "") -> str:
    if isinstance(value, dict):
        pairs, brackets = list(value.items()), "{}"
    elif isinstance(value, list):
        pairs, brackets = list(enumerate(value)), "[]"
    else:
        return _leaf(value, name)
    if not pairs:
        return brackets
    items = []
    for name, inner in pairs:
        if left[0] <= 0 or depth >= DEEPEST:
            break
        left[0] -= 1
        items.append((name, _branch(inner, left, depth + 1, name)))
    lines = format_html_join("", "<li><b>{}</b> {}</li>", items)
    rest = format_html('<li class="quiet">… {} more</li>', f"{len(pairs) - len(items):,}") if len(items) < len(pairs) else ""
    noun = "field" if brackets == "{}" else "item"
    size = f"{len(pairs):,} {noun}{'s' if len(pairs) > 1 else ''}"
    return format_html(
        "<details{}><summary>{}</summary><ul>{}{}</ul></details>", SafeString(" open" if depth < 2 else ""), size, lines, rest
    )


def _leaf(value: Any, name: Any) -> str:
    if isinstance(value, str):
        rest = len(value) - LONGEST_LEAF
        more = f"… {plural(rest, 'more character')}" if rest > 0 else ""
        return format_html('<bdi class="json-text">{}</bdi>{}', value[:LONGEST_LEAF], more)
    if value is None or isinstance(value, bool):
        return format_html('<span class="json-null">{}</span>', json.dumps(value))
    time = ""
    if str(name).endswith("At") and 1e12 < value < 1e13:  # The site's times in JSON: milliseconds since 1970.
        time = format_html(' <span class="quiet">{}</span>', moment(datetime.fromtimestamp(value / 1000, UTC)))
    return format_html('<span class="json-plain">{}</span>{}', value, time)
