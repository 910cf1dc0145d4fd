"""The sessions in which staff are signed in to the admin."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone


def admin_sessions(request: HttpRequest, people: Collection[Any]) -> QuerySet:
    """Return the admin sessions of the users with these keys, except that of this browser."""
    valid = Session.objects.filter(expire_date__gt=timezone.now()).exclude(pk=request.session.session_key)
    keys = [session.pk for session in valid.iterator() if session.get_decoded().get("_auth_user_id") in people]
    return Session.objects.filter(pk__in=keys)
