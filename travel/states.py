"""The reason why a price alert fired, or did not, from the columns that the price monitor reads."""

from __future__ import annotations

from django.utils import timezone

from fly2any.administration import formats

from .models import PriceAlert


def alert_state(alert: PriceAlert) -> str:
    """Return the first reason why an alert cannot fire, otherwise what it waits for."""
    if alert.triggered:
        return f"Fired{f' {formats.age(alert.triggered_at)}' if alert.triggered_at else ''}; re-arm it to let it fire again"
    if not alert.active:
        return "Paused"
    if alert.depart_date < f"{timezone.now():%Y-%m-%d}":
        return "The departure date has passed"
    current, target = (formats.plain_amount(price, alert.currency) for price in (alert.current_price, alert.target_price))
    checked = formats.age(alert.last_checked)
    if alert.current_price > alert.target_price:
        return f"Waiting: {current} is above {target}, checked {checked}"
    return f"Fires at the next check: {current} is at or below {target}, checked {checked}"
