"""Writes to more than one row, or with an external effect."""

from django.utils import timezone

from fly2any.administration.updates import update_each

from .models import LoginHistory
from .user_agents import describe


def mark_notifications_read(*, notifications):
    """Mark the unread ones of `notifications` as read, and return them."""
    return update_each(notifications.filter(read=False), read=True, read_at=timezone.now())


def record_sign_in(*, user, agent, address, success):
    """Add a sign-in of `user`, or a failed one, to `login_history`."""
    device, browser, system = describe(agent)
    LoginHistory.objects.create(user=user, device=device, browser=browser, os=system, ip_address=address, success=success)
