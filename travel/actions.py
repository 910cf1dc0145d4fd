"""Writes to more than one row, or with an external effect."""

from django.utils import timezone

from fly2any.administration.updates import update_each


def pause_alerts(*, alerts):
    """Switch `alerts` off, and return those that were on."""
    return update_each(alerts.filter(active=True), active=False, updated_at=timezone.now())


def rearm_alerts(*, alerts):
    """Switch `alerts` on, to fire again, and return those that could not."""
    could_not = alerts.exclude(active=True, triggered=False)
    return update_each(could_not, active=True, triggered=False, triggered_at=None, updated_at=timezone.now())
