"""A conversation as a chat: its messages, and the flights and hotels that were offered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.utils.html import format_html

from fly2any.administration import formats
from fly2any.administration.paging import Order, page_of
from fly2any.database.units import plural

from .models import Conversation, Message
from .subjects import CIPHERTEXT

DURATION = re.compile(r"PT(?=\d)(?:(\d{1,3})H)?(?:(\d{1,4})M)?")
DAY = re.compile(r"(\d{4}-\d\d-\d\d)(?:T.*)?", re.DOTALL)
TIME_OF_DAY = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d).{0,20}", re.DOTALL)
TIME = formats.epoch(unit=0.001)
MOST_TURNS = 100  # Per page.
MOST_CARDS = 20  # Cards of a message; its own page shows the rest.


@dataclass(frozen=True, slots=True)
class Card:
    """A flight or a hotel that was offered."""

    title: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Turn:
    message: Message
    who: str
    said: str
    time: str
    cards: list[Card]


@dataclass(frozen=True, slots=True)
class Chat:
    turns: list[Turn]
    earlier: str  # The URL of the page, "" if there is none.
    later: str
    is_encrypted: bool  # Whether all messages of the page are.


def is_encrypted(text: str) -> bool:
    return re.fullmatch(CIPHERTEXT, text, re.IGNORECASE) is not None


def content(value: str, message: Any = None) -> str:
    """Return the text as HTML, or a chip if it is encrypted."""
    if is_encrypted(value):
        return format_html('<span class="chip warn" title="{} characters">Encrypted</span>', f"{len(value):,}")
    return formats.text(value)


def speaker(message: Message) -> str:
    """Return the speaker's name, naming the consultant once, because the labels of teams include it too."""
    if not message.consultant_name:
        return message.get_role_display()
    team = message.get_consultant_team_display() if message.consultant_team else ""
    team = str(team).partition(":")[0]
    return _join(message.consultant_emoji, f"{message.consultant_name}, {team}" if team else message.consultant_name)


def read_chat(conversation: Conversation, *, after: str | None = None, before: str | None = None) -> Chat:
    """Return a page of the conversation; raise ValueError for an invalid position."""
    fields = Message._meta
    order = Order(fields.get_field("timestamp"), fields.pk, descending=False)
    rows = Message.objects.filter(conversation_id=conversation.pk)
    page = page_of(rows, order, size=MOST_TURNS, after=after, before=before)
    return Chat(
        [
            Turn(
                message,
                speaker(message),
                content(message.content),
                TIME(message.timestamp, message),
                list(islice(cards(message), MOST_CARDS)),
            )
            for message in page.rows
        ],
        f"?before={order.token(page.rows[0])}" if page.has_earlier and page.rows else "",
        f"?after={order.token(page.rows[-1])}" if page.has_later else "",
        bool(page.rows) and all(is_encrypted(message.content) for message in page.rows),
    )


def cards(message: Message) -> Iterator[Card]:
    for flight in _dicts(message.flight_results):
        outbound, price = _dict(flight.get("outbound")), _dict(flight.get("price"))
        departure, arrival = _dict(outbound.get("departure")), _dict(outbound.get("arrival"))
        yield Card(
            _list(flight.get("flightNumber") or flight.get("airline"), _price(price.get("amount"), price.get("currency"))),
            [
                _day(departure) or "The offer contains no date",
                f"{departure.get('airport', '?')} {_time(departure)} → {arrival.get('airport', '?')} {_time(arrival)}",
                _list(_duration(outbound.get("duration")), _stops(outbound.get("stops")), flight.get("cabinClass")),
                _seats(flight.get("seatsAvailable")),
            ],
        )
    for hotel in _dicts(message.hotel_results):
        amenities = hotel.get("amenities")
        yield Card(
            _join(hotel.get("name"), f"★ {hotel['rating']}" if hotel.get("rating") else None),
            [
                _join(total, "in total") if (total := _price(hotel.get("totalPrice"), hotel.get("currency"))) else "",
                _join(hotel.get("checkIn"), "to", hotel.get("checkOut")),
                ", ".join(map(str, amenities)) if isinstance(amenities, list) else "",
            ],
        )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _join(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part not in (None, ""))


def _list(*parts: Any) -> str:
    return " · ".join(str(part) for part in parts if part not in (None, ""))


def _day(end: dict[str, Any]) -> str:
    """Return the day of a departure, which the site writes with the time or beside it; "" without one."""
    found = DAY.match(str(end.get("date") or end.get("time") or ""))
    return found[1] if found else ""


def _time(end: dict[str, Any]) -> Any:
    """Return the time of a departure or an arrival, without a day before it and seconds."""
    found = TIME_OF_DAY.fullmatch(str(end.get("time", "")))
    return found[1] if found else end.get("time", "")


def _price(amount: Any, currency: Any) -> str:
    """Return a price as every page shows it, or as it was written if it is not a number; "" without one."""
    try:
        return formats.plain_amount(float(amount), str(currency or ""))
    except (TypeError, ValueError, OverflowError):
        return _join(amount, currency) if amount is not None else ""


def _duration(value: Any) -> Any:
    """Return a duration in the site's form, `PT8H35M`, in hours and minutes; any other text unchanged."""
    time = DURATION.fullmatch(value) if isinstance(value, str) else None
    return (
        " ".join(f"{number} {unit}" for number, unit in zip(time.groups(), ("h", "min"), strict=True) if number)
        if time
        else value
    )


def _seats(number: Any) -> str:
    if number is None:
        return ""
    return plural(number, "seat") if isinstance(number, int | float) and not isinstance(number, bool) else f"{number} seats"


def _stops(number: Any) -> str:
    return {None: "", 0: "direct", 1: "1 stop"}.get(number, f"{number} stops") if not isinstance(number, dict | list) else ""
