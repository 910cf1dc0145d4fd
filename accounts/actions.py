"""Writes over more than one row, or with an effect outside."""

from .models import UserPreferences


def ensure_preferences(*, user, using):
    """Give `user` the default preferences, unless there are some: signing in on two machines at once makes one row."""
    UserPreferences.objects.using(using).bulk_create([UserPreferences(user=user)], ignore_conflicts=True)
