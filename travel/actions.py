"""Writes over more than one row, or with an effect outside."""

from django.utils import timezone


def pause(*, alerts):
    """Switch `alerts` off, and return the number of those that were on."""
    return alerts.filter(active=True).update(active=False, updated_at=timezone.now())


def rearm(*, alerts):
    """Switch `alerts` on, to fire again, and return the number of those that could not."""
    return alerts.exclude(active=True, triggered=False).update(
        active=True, triggered=False, triggered_at=None, updated_at=timezone.now()
    )
