"""Airports by their IATA code, name or city, as the package airportsdata has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import airportsdata

from fly2any.database.seed.places import AIRPORTS
from fly2any.postgres.expressions import fold

SHORTEST_NAME = 3  # Letters of a city or an airport's name.
MOST_FOUND = 5
# Codes of cities with several airports, which searches take too.
CITIES = frozenset(
    (
        "BER", "BJS", "BUE", "BUH", "CHI", "DTT", "HOU", "JKT", "LON", "MIL", "MOW", "MMA", "MFW", "NYC", "OSA",
        "PAR", "QDF", "QLA", "RIO", "ROM", "SAO", "SEL", "SPK", "STO", "TCI", "TYO", "WAS", "YEA", "YMQ", "YTO",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Airport:
    code: str
    name: str
    city: str
    country: str  # ISO 3166, two letters.


def airport(code: str) -> Airport | None:
    """Return the airport with an IATA code in upper case, None if there is none."""
    return _airports().get(code)


def is_code(code: str) -> bool:
    """Return whether an upper-case text is the IATA code of an airport or of a city."""
    return code in CITIES or code in _airports()


def suggested() -> list[Airport]:
    """Return the airports that forms suggest, the busiest ones, in the order of their codes."""
    return [_airports()[code] for code in sorted(AIRPORTS) if code in _airports()]


def airports_named(text: str) -> list[Airport]:
    """Return up to MOST_FOUND airports whose city or name begins with `text`, without accents, in the order of their codes."""
    wanted = fold(text.strip())
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
    return [(code, (fold(found.city), fold(found.name))) for code, found in _airports().items()]
