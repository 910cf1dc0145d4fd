"""The prices of a route, as its page in the admin shows them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from fly2any.administration import charts

from .models import PriceHistory

MOST_PRICES = 1_000  # Of a chart: the newest.
MOST_DATES = 60


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices seen for a route and a day of departure; figures in `currency`, of which a chart has one."""

    currency: str
    number: int
    lowest: float
    median: float
    last: float
    chart: str
    others: int  # Prices in other currencies, left out.
    is_cut: bool  # Whether there are more than MOST_PRICES.


def read_prices(origin: str, destination: str, depart_date: str) -> Prices | None:
    """Return the prices seen for a route (IATA codes) and a day (`YYYY-MM-DD`), None where there are none."""
    seen = list(PriceHistory.objects.of_route(origin, destination, depart_date)[: MOST_PRICES + 1])
    is_cut, seen = len(seen) > MOST_PRICES, seen[:MOST_PRICES]
    if not seen:
        return None
    currency = seen[0].currency
    points = [(price.timestamp, price.price) for price in reversed(seen) if price.currency == currency]
    values = [value for _, value in points]
    title = (
        f"Price of {origin} to {destination} on {depart_date}, {len(points)} seen from {points[0][0]:%Y-%m-%d} to "
        f"{points[-1][0]:%Y-%m-%d}: lowest {min(values):,.2f}, last {values[-1]:,.2f} {currency}"
    )
    return Prices(
        currency=currency,
        number=len(points),
        lowest=min(values),
        median=statistics.median(values),
        last=values[-1],
        chart=charts.line(points, title=title, unit=currency),
        others=len(seen) - len(points),
        is_cut=is_cut,
    )


def departures(origin: str, destination: str, *, around: str = "") -> Sequence[str]:
    """Return up to MOST_DATES days of departure for which prices were seen, from `around` or today on, in order.

    Each is one descent of the index over route and day.
    """
    rows = PriceHistory.objects.filter(origin=origin, destination=destination).order_by("depart_date")
    found: list[str] = []
    later = rows.filter(depart_date__gte=around or f"{timezone.now():%Y-%m-%d}")
    while len(found) < MOST_DATES and (day := later.values_list("depart_date", flat=True).first()) is not None:
        found.append(day)
        later = rows.filter(depart_date__gt=day)
    return found
