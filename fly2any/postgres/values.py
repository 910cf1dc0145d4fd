"""Values that PostgreSQL can store but Python cannot represent: kept as text, so that a row with one can be read and saved."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from psycopg import DataError
from psycopg.adapt import Dumper
from psycopg.postgres import types

TIMESTAMPTZ = types["timestamptz"].oid
DEEPEST = 200  # Levels of a JSON value; Python's functions fail at some hundreds.
BEYOND = re.compile(r"-?infinity|\d{5,}-\d\d-\d\d .{1,40}|.{1,60} BC")


class Beyond(datetime):
    """A time before the year 1 or after 9999, as the nearest that Python has; `text` is what the server wrote."""

    text: str

    def isoformat(self, *args, **kwargs):
        return self.text

    def strftime(self, format):
        return self.text

    def astimezone(self, tz=None):
        return self  # The same in every time zone; replace() and arithmetic use the nearest time that Python has.

    def __str__(self):
        return self.text

    def __format__(self, format):
        return self.text

    def __reduce_ex__(self, protocol):
        return type(self).of, (self.text,)

    @classmethod
    def of(cls, text: str) -> Beyond:
        """Return the value for the server's `text`; raise ValueError if it is not such a time."""
        if not BEYOND.fullmatch(text):
            raise ValueError(f"{text!r} is not a time beyond the years 1 to 9999.")
        early = text.startswith("-") or text.endswith(" BC")
        value = cls(1, 1, 1, tzinfo=UTC) if early else cls(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
        value.text = text
        return value


class BeyondDumper(Dumper):
    oid = TIMESTAMPTZ

    def dump(self, obj):
        return obj.text.encode()


class Unreadable:
    """A JSON value that Python's json cannot read, or barely can; `text` is what the server wrote."""

    def __init__(self, text: str):
        self.text = text

    def __str__(self):
        return f"JSON that is nested too deeply or has a number that is not a float, {len(self.text):,} characters"


def is_deep(text: str) -> bool:
    """Return whether the JSON `text` has more than DEEPEST levels."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = 0
    for bracket in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket[0], 0)
        if depth > DEEPEST:
            return True
    return False


def accept_any_time(connection) -> None:
    """Let a psycopg connection read and write times beyond Python's."""
    usual = connection.adapters.get_loader(TIMESTAMPTZ, 0)
    if hasattr(usual, "takes_any_time"):
        return  # A connection of the pool already has it.

    class Loader(usual):  # type: ignore[valid-type, misc]
        takes_any_time = True

        def load(self, data):
            try:
                return super().load(data)
            except DataError:
                return Beyond.of(bytes(data).decode())

    connection.adapters.register_loader("timestamptz", Loader)
    connection.adapters.register_dumper(Beyond, BeyondDumper)
