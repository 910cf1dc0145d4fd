"""The reason why a price alert fired, or did not, from the columns that the price monitor reads.

querysets.py selects the alerts that the monitor would check, and those due for a check.
"""

from __future__ import annotations

from enum import StrEnum

from django.utils import timezone

from fly2any.administration import formats
from fly2any.database.units import plural

from .models import PriceAlert
from .prices import Reached


class State(StrEnum):
    FIRED = "Fired"
    PAUSED = "Paused"
    DEPARTED = "Departed"
    WAITING = "Waiting"
    FIRES_NEXT = "Fires next"


OWN_PRICE = "The site's check decides whether an alert fires. The check looks up the price itself, and that price may differ from the recorded ones."
# The first sentence of why_in_full(); {ago} is when it fired, with a blank before it.
REASONS = {
    State.FIRED: "Fired{ago}; will not fire again until re-armed.",
    State.PAUSED: "Paused; will not fire until active.",
    State.DEPARTED: "The departure date has passed; will not fire.",
    State.WAITING: "Active, waiting for a lower price.",
    State.FIRES_NEXT: "Active; fires at the next check if the price is still as low.",
}


def state_of(alert: PriceAlert) -> State:
    """Return the first reason why an alert cannot fire, otherwise whether it waits for a lower price."""
    if alert.triggered:
        return State.FIRED
    if not alert.active:
        return State.PAUSED
    if alert.depart_date < f"{timezone.now():%Y-%m-%d}":
        return State.DEPARTED
    return State.WAITING if alert.current_price > alert.target_price else State.FIRES_NEXT


def alert_state(alert: PriceAlert, reached: Reached | None = None) -> str:
    """Return the state of an alert and its reason in one line, with the lowest recorded price that reached its target."""
    recorded = (
        f"; recorded at {formats.plain_amount(reached.lowest, alert.currency)} {formats.age(reached.at)}" if reached else ""
    )
    state = state_of(alert)
    current, target, checked = _facts(alert)
    return {
        State.FIRED: f"Fired{_fired_ago(alert)}; re-arm it to let it fire again",
        State.PAUSED: "Paused",
        State.DEPARTED: "The departure date has passed",
        State.WAITING: f"Waiting: {current} is above {target}, checked {checked}",
        State.FIRES_NEXT: f"Fires at the next check if the price is still as low: {current} is at or below {target}, checked {checked}",
    }[state] + recorded


def why_in_full(alert: PriceAlert, reached: Reached | None = None) -> str:
    """Return the reason, the price at which an alert fires, the price that its last check found, and what was recorded."""
    current, target, checked = _facts(alert)
    reason = REASONS[state_of(alert)].format(ago=_fired_ago(alert))
    checks = f"Target: {target} or less. Last checked price: {current}, {checked}."
    return " ".join(filter(None, [reason, checks, reached and _recorded(alert, reached)]))


def _recorded(alert: PriceAlert, reached: Reached) -> str:
    lowest = formats.plain_amount(reached.lowest, alert.currency)
    return (
        f"Since the alert was created, {plural(reached.number, 'recorded price')} reached the target, the lowest {lowest} "
        f"{formats.age(reached.at)}. {OWN_PRICE}"
    )


def _facts(alert: PriceAlert) -> tuple[str, str, str]:
    current, target = (formats.plain_amount(price, alert.currency) for price in (alert.current_price, alert.target_price))
    return current, target, formats.age(alert.last_checked)


def _fired_ago(alert: PriceAlert) -> str:
    return f" {formats.age(alert.triggered_at)}" if alert.triggered_at else ""
