"""The prices of a route, as its page in the admin shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from fly2any.administration import charts
from fly2any.administration.deadlines import TooSlow, within
from fly2any.administration.formats import plain_amount
from fly2any.administration.replica import current
from fly2any.administration.search import values_of
from fly2any.postgres.values import Beyond

from .models import PriceAlert, PriceHistory

MOST_PRICES = 1_000  # The most prices of a chart: the newest.
MOST_ALERTS = 20
PERIOD = timedelta(days=90)
MOST_DATES = 60

# Of an alert. As text, because Django takes longer to write such a statement than PostgreSQL to execute it.
REACHED_SQL = """
    (SELECT %s::text, count(*) OVER (), price, timestamp FROM price_history
     WHERE origin = %s AND destination = %s AND "departDate" = %s AND currency = %s AND price <= %s::float8 AND timestamp >= %s
     ORDER BY price, timestamp DESC LIMIT 1)
"""


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices recorded for a route and a departure date in PERIOD; figures in `currency`, of which a chart has one."""

    currency: str
    number: int
    begin: datetime
    end: datetime
    lowest: float
    lowest_at: datetime
    median: float
    last: float
    chart: str
    others: int  # Prices in other currencies, left out.
    is_cut: bool  # Whether there are more than MOST_PRICES.


@dataclass(frozen=True, slots=True)
class Reached:
    """The recorded prices that reached the target of an alert since it was created: their number and the lowest."""

    number: int
    lowest: float
    at: datetime


def read_prices(origin: str, destination: str, depart_date: str, *, alert: PriceAlert | None = None) -> Prices | None:
    """Return the prices recorded for a route (IATA codes) and a day (`YYYY-MM-DD`) in the last PERIOD, None if there are none at all.

    If the last price is older than that, the PERIOD ends at that price. The target of `alert` is marked on the chart since it was
    created.
    """
    rows = PriceHistory.objects.of_route(origin, destination, depart_date)
    newest = rows.first()
    if newest is None:
        return None
    end = newest.timestamp
    begin = end
    if not isinstance(end, Beyond):
        with suppress(OverflowError):  # Python has no day before the year 1.
            begin = min(end, timezone.now()) - PERIOD
    seen = list(rows.filter(timestamp__gte=begin)[: MOST_PRICES + 1])
    is_cut, seen = len(seen) > MOST_PRICES, seen[:MOST_PRICES]
    currency = newest.currency
    usual = [price for price in reversed(seen) if price.currency == currency and not isinstance(price.timestamp, Beyond)]
    points = [(price.timestamp, price.price) for price in usual]
    if not points:
        return None
    values = [value for _, value in points]
    lowest_at, lowest = min(points, key=lambda point: point[1])
    title = (
        f"Prices of {origin} to {destination} on {depart_date}, {len(points)} recorded from {points[0][0]:%Y-%m-%d} to "
        f"{points[-1][0]:%Y-%m-%d}: lowest {plain_amount(lowest, currency)}, last {plain_amount(values[-1], currency)}"
    )
    target = charts.Target(alert.target_price, alert.created_at) if alert and alert.currency == currency else None
    return Prices(
        currency=currency,
        number=len(points),
        begin=points[0][0],
        end=points[-1][0],
        lowest=lowest,
        lowest_at=lowest_at,
        median=statistics.median(values),
        last=values[-1],
        chart=charts.line(points, title=title, show=lambda value: plain_amount(value, currency), target=target),
        others=len(seen) - len(points),
        is_cut=is_cut,
    )


def read_reached(alerts: Iterable[PriceAlert]) -> dict[str, Reached]:
    """Return, by the keys of `alerts`, the recorded prices that reached their targets, in one statement; none if it is late."""
    armed = [alert for alert in alerts if not alert.triggered]
    if not armed:
        return {}
    parameters: list[Any] = []
    for one in armed:
        parameters += [one.pk, one.origin, one.destination, one.depart_date, one.currency, one.target_price, one.created_at]
    try:
        with within(), current().cursor() as cursor:
            cursor.execute(" UNION ALL ".join([REACHED_SQL] * len(armed)), parameters)
            return {key: Reached(number, price, at) for key, number, price, at in cursor.fetchall()}
    except TooSlow:
        return {}


def read_alerts(origin: str, destination: str) -> list[PriceAlert] | None:
    """Return the newest MOST_ALERTS alerts on a route (IATA codes), None if they cannot be found in time."""
    try:
        with within():
            return list(PriceAlert.objects.of_route(origin, destination).select_related("user")[:MOST_ALERTS])
    except TooSlow:
        return None


def next_departure(origin: str, destination: str) -> tuple[str | None, bool]:
    """Return the first departure date from today on for which prices were seen, otherwise the last one; and whether it is past."""
    days = PriceHistory.objects.filter(origin=origin, destination=destination).values_list("depart_date", flat=True)
    today = f"{timezone.now():%Y-%m-%d}"
    if later := days.filter(depart_date__gte=today).order_by("depart_date").first():
        return later, False
    last = days.order_by("-depart_date").first()
    return last, last is not None


def departures(origin: str, destination: str, *, around: str = "") -> Sequence[str]:
    """Return up to MOST_DATES days of departure for which prices were seen, from `around` or today on, in order."""
    since = around or f"{timezone.now():%Y-%m-%d}"
    return values_of(
        PriceHistory, "depart_date", most=MOST_DATES, equal={"origin": origin, "destination": destination}, since=since
    )
