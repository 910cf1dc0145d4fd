"""Airports by their IATA code, name or city, as the package airportsdata has them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

import airportsdata

SHORTEST_NAME = 3  # Letters of a city or an airport's name.
MOST_FOUND = 5


@dataclass(frozen=True, slots=True)
class Airport:
    code: str
    name: str
    city: str
    country: str  # ISO 3166, two letters.


def airport(code: str) -> Airport | None:
    """Return the airport with an IATA code in upper case, None if there is none."""
    return _airports().get(code)


def airports_named(text: str) -> list[Airport]:
    """Return up to MOST_FOUND airports whose city or name begins with `text`, without accents, in the order of their codes."""
    wanted = _folded(text)
    if len(wanted) < SHORTEST_NAME:
        return []
    return [_airports()[code] for code, names in _names() if names[0].startswith(wanted) or names[1].startswith(wanted)][
        :MOST_FOUND
    ]


@cache
def _airports() -> dict[str, Airport]:
    facts = airportsdata.load("IATA")
    return {code: Airport(code, facts[code]["name"], facts[code]["city"], facts[code]["country"]) for code in sorted(facts)}


@cache
def _names() -> list[tuple[str, tuple[str, str]]]:
    return [(code, (_folded(found.city), _folded(found.name))) for code, found in _airports().items()]


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).strip()
