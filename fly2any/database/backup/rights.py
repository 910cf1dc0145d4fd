"""The privileges that a restore brings back: those of staff who were dismissed since the backup, and sessions that were ended."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import transaction

from ..errors import Refusal
from ..sql import execute

# By the person's id: the e-mail address, and the rights and password.
Rights = dict[str, tuple[str, tuple[Any, ...]]]


def read_staff_privileges(connection) -> Rights:
    """Return the rights of the staff who may sign in. Raises django.db.Error if they cannot be read."""
    people = get_user_model()._default_manager.using(connection.alias).filter(is_staff=True, is_active=True)
    return {
        person.pk: (
            person.email,
            (
                person.is_superuser,
                person.password,
                {group.name for group in person.groups.all()},
                {permission.pk for permission in person.user_permissions.all()},
            ),
        )
        for person in people.prefetch_related("groups", "user_permissions")
    }


def regained_privileges(before: Rights, now: Rights) -> list[str]:
    """Return the e-mail addresses of the staff whose rights or passwords `now` are not those of `before`, sorted."""
    return sorted(email for pk, (email, rights) in now.items() if pk not in before or before[pk][1] != rights)


def end_sessions(connection) -> int:
    """Sign all staff out of the admin, and return how many sessions there were. Raises django.db.Error, or Refusal if any remain."""
    sessions = Session._default_manager.using(connection.alias)
    with transaction.atomic(using=connection.alias):
        execute(connection, "SET TRANSACTION READ WRITE")
        ended = sessions.all()._raw_delete(connection.alias)
        if sessions.exists():
            raise Refusal("a trigger or policy keeps sessions of the admin")
    return ended
