"""The staff after a restore: their sessions from the backup are ended, and what they regained since it was taken is named (privileges,
passwords, second factors)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import Error, transaction
from django_otp import device_classes

from ..errors import Refusal, explain, is_lost
from ..schema.untrusted_code import refuse_untrusted_code
from ..sql import time_limits
from .row_hashes import LOCK_WAIT


@dataclass(frozen=True, slots=True)
class Rights:
    """What a member of the staff may do, with password and second factors. Permissions are those of the person and of the groups."""

    email: str
    access: tuple[Any, ...]
    permissions: frozenset[tuple[str, str]]  # app and codename: keys differ from database to database


@dataclass(frozen=True, slots=True)
class StaffChanges:
    """How many sessions were ended, or why they could not be; the staff whose privileges a restore changes, or why they are not known."""

    ended: int = 0
    changed: tuple[str, ...] = ()  # E-mail addresses.
    error: str = ""
    uncompared: str = ""


def sign_out_staff(connection, old=None) -> StaffChanges:
    """Sign all staff out of the restored database of `connection`, and compare their privileges with those in `old`, if any.

    Raises django.db.Error if a connection is lost.
    """
    changes = StaffChanges(error="not tried")
    try:
        changes = StaffChanges(end_admin_sessions(connection))
        if old is None:
            return changes
        with time_limits(old, lock=LOCK_WAIT):  # A client may have locked a table of the database in use.
            before = read_staff_privileges(old)
        return replace(changes, changed=tuple(regained_privileges(before, read_staff_privileges(connection))))
    except (Error, Refusal) as error:
        if is_lost(error):
            raise
        reason = explain(error) or str(error)
        return StaffChanges(error=reason) if changes.error else replace(changes, uncompared=reason)


def read_staff_privileges(connection) -> dict[str, Rights]:
    """Return the rights of the staff who may sign in, by the person's id. Raises django.db.Error if they cannot be read."""
    devices = _read_devices(connection)
    people = get_user_model()._default_manager.using(connection.alias).filter(is_staff=True, is_active=True)
    return {
        person.pk: Rights(
            person.email,
            (person.is_superuser, person.password, {group.name for group in person.groups.all()}, devices[person.pk]),
            frozenset(
                (permission.content_type.app_label, permission.codename)
                for holder in (person.user_permissions, *(group.permissions for group in person.groups.all()))
                for permission in holder.all()
            ),
        )
        for person in people.prefetch_related("groups__permissions__content_type", "user_permissions__content_type")
    }


def _read_devices(connection) -> defaultdict[str, set[tuple[Any, ...]]]:
    """Return the second factors by the person's id, each with its secret and the unused recovery codes, not with what each use changes."""
    found: defaultdict[str, set[tuple[Any, ...]]] = defaultdict(set)
    tables = connection.introspection.table_names()
    for model in device_classes():
        if model._meta.db_table in tables:  # Backups of earlier code have none.
            for device in model._default_manager.using(connection.alias):
                codes = sorted(one.token for one in device.token_set.all()) if hasattr(device, "token_set") else ()
                secret = getattr(device, "credential_id", None) or getattr(device, "key", "")
                found[device.user_id].add((model._meta.label, device.pk, device.confirmed, secret, *codes))
    return found


def regained_privileges(before: dict[str, Rights], now: dict[str, Rights]) -> list[str]:
    """Return the e-mail addresses of the staff whose access `now` is not that of `before`, or who have more permissions, sorted."""

    def has_regained(pk: str) -> bool:
        return pk not in before or before[pk].access != now[pk].access or not now[pk].permissions <= before[pk].permissions

    return sorted(rights.email for pk, rights in now.items() if has_regained(pk))


def end_admin_sessions(connection) -> int:
    """Sign all staff out of the admin, and return how many sessions there were.

    Raises django.db.Error, or Refusal if any remain or if that would run code of another role.
    """
    if Session._meta.db_table not in connection.introspection.table_names():  # Before adoption.
        return 0
    sessions = Session._default_manager.using(connection.alias)
    with transaction.atomic(using=connection.alias):
        refuse_untrusted_code(connection, [Session._meta.db_table], deletes=True)
        ended = sessions.all()._raw_delete(connection.alias)
        if sessions.exists():
            raise Refusal("a trigger or policy keeps sessions of the admin")
    return ended
