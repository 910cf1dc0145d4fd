"""Manifests and archive descriptions as signed JSON. Unsigned files are used only on request, and never removed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from django.conf import settings
from django.utils.crypto import constant_time_compare, salted_hmac

from ..errors import Refusal
from ..terminal_text import one_line
from ..units import plural

T = TypeVar("T")
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
SIGNED, UNSIGNED, MISMATCH = "signed", "unsigned", "signature does not match"


def signature(data: dict[str, Any], *, purpose: str, key: str | None = None) -> str:
    """Return the hexadecimal HMAC-SHA256 of the contents of a JSON file, with `key` or the first of the keys."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    secret = settings.BACKUPS["signing_keys"][0] if key is None else key
    return salted_hmac(f"fly2any.{purpose}", canonical, secret=secret, algorithm="sha256").hexdigest()


def signed_as(data: dict[str, Any], given: object, *, purpose: str) -> str:
    """Return SIGNED if `given` is the signature of `data` with one of the keys, otherwise UNSIGNED or MISMATCH."""
    if given is None:
        return UNSIGNED
    keys = settings.BACKUPS["signing_keys"]
    fits = [constant_time_compare(str(given), signature(data, purpose=purpose, key=key)) for key in keys]
    return SIGNED if any(fits) else MISMATCH


def as_json(record: Any, *, number: int, purpose: str) -> str:
    """Return a dataclass as the text of its file, of format `number` and signed; `record.signed` other than SIGNED stays unsigned."""
    data = {"format": number, **asdict(record)}
    del data["signed"]
    for name in ("run", "schema"):  # Files until 2026-11 have none, and are written as they were read.
        if not data[name]:
            del data[name]
    if record.signed == SIGNED:
        data["signature"] = signature(json.loads(json.dumps(data, default=datetime.isoformat)), purpose=purpose)
    return json.dumps(data, indent=1, ensure_ascii=False, default=datetime.isoformat)


def read_json(
    text: str | bytes, of: type[T], *, where: str, endings: Collection[str], numbers: Collection[int], purpose: str
) -> T:
    """Return the dataclass `of` that the text of the file `where` holds, each value of the type that its field declares.

    Raises Refusal if its format is not one of `numbers`, and ValueError for any other text, also one that names a file other
    than its own, which has the name of `where` with one of `endings`: pruning would delete that other file.
    """
    try:
        data = msgspec.json.decode(text, type=dict[str, Any])
        given = data.pop("signature", None)
        signed = signed_as(data, given, purpose=purpose)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "format" not in data:
        raise ValueError("no format")
    if data.pop("format") not in numbers:
        raise Refusal(
            f"{one_line(where)} has a format that this code cannot read: use the version that wrote it, or a later one."
        )
    data["signed"] = signed
    record = msgspec.convert(data, of)
    values: dict[str, Any] = asdict(record)  # type: ignore[call-overload]
    if not all(map(_is_in_the_calendar, values.values())):
        raise ValueError("a time beyond the calendar")
    if unknown := {*_places(data)} - {*_places(msgspec.to_builtins(record))}:
        raise ValueError(plural(len(unknown), "unknown field"))
    name = where.removesuffix(".json")
    if name != one_line(name) or data.get("name") != name or data.get("file") not in [name + ending for ending in endings]:
        raise ValueError("it describes another file")
    return record


def _is_in_the_calendar(value: Any) -> bool:
    """Return whether each time in a record can be converted to UTC; one in the year 1 or 9999 may not."""
    if isinstance(value, dict):
        return all(map(_is_in_the_calendar, value.values()))
    if isinstance(value, datetime):
        try:
            value.astimezone(UTC)
        except OverflowError:
            return False
    return True


def _places(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each member in a value from JSON; members of a list have the path of the list."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield (*place, name)
            yield from _places(part, (*place, name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _places(part, place)
