"""Routes and airports in the results of the search of all tables."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from fly2any.administration import formats
from fly2any.administration.airports import Airport
from fly2any.administration.counts import Count
from fly2any.administration.overview import Panel

from .models import PriceHistory
from .prices import next_departure


def route_panel(origin: Airport, destination: Airport) -> Panel:
    """Return the route with its next departure for which prices were seen, and the newest of these prices."""
    day, is_past = next_departure(origin.code, destination.code)
    price = PriceHistory.objects.of_route(origin.code, destination.code, day).first() if day else None
    query = {"origin": origin.code, "destination": destination.code, **({"day": day} if is_past else {})}
    url = f"{reverse('admin:travel_pricehistory_route')}?{urlencode(query)}"
    cells: list[Any] = [
        f"{origin.code}\u00a0→\u00a0{destination.code}",
        _place(origin),
        _place(destination),
        day or formats.NOTHING,
        formats.amount(price.price, price.currency) if price else formats.NOTHING,
        formats.when(price.timestamp) if price else formats.NOTHING,
    ]
    headers = ["route", "from", "to", "last departure" if is_past else "next departure", "last recorded price", "recorded"]
    return Panel("Route", headers, [(url, cells)], Count(1), "")


def airports_panel(airports: list[Airport]) -> Panel:
    """Return airports, each leading to the prices of departures from there."""
    prices = reverse("admin:travel_pricehistory_changelist")
    rows: list[tuple[str, list[Any]]] = [
        (f"{prices}?{urlencode({'q': found.code})}", [found.code, found.name, found.city, found.country]) for found in airports
    ]
    return Panel("Airports", ["code", "name", "city", "country"], rows, Count(len(rows)), "")


def _place(found: Airport) -> str:
    return f"{found.city}, {found.country}"
