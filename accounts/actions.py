"""Writes to more than one row, or with an external effect; the actions on a person's overview are Steps in admin.py."""

from django.utils import timezone

from fly2any.administration.updates import update_each

from .models import UserPreferences


def ensure_preferences(*, user, using):
    """Give `user` the default preferences, unless they exist: signing in on two machines at once creates one row.

    apps.py calls it at each sign-in.
    """
    UserPreferences.objects.using(using).bulk_create([UserPreferences(user=user)], ignore_conflicts=True)


def deactivate(users):
    """Deactivate `users` for the admin, and return those that were active."""
    return update_each(users.filter(is_active=True), is_active=False, updated_at=timezone.now())


def reactivate(users):
    """Undo `deactivate`, and return those that were deactivated."""
    return update_each(users.filter(is_active=False), is_active=True, updated_at=timezone.now())
