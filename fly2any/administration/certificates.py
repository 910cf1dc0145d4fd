"""Moves certificates of erasures between the admin's log and the access records. Migrations import this path: it is frozen.

person_page.py writes new ones and sends them to those who may see them; database/person/erase.py has what is in one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.contrib.admin.models import DELETION
from django.db import migrations, router, transaction

from fly2any.database.errors import Refusal

ACTION, TABLE = "erased", "users"
NAME, MESSAGE = "(erased)", "Erased."  # Of the entry in the admin's log.
BATCH = 500  # Rows of a transaction.


class MoveCertificates(migrations.RunPython):
    """The operation that moves each certificate out of its log entry, which stays, in batches.

    When it is reversed, each returns to its entry, which is created again, for a superuser, if it was deleted with its author. It asks for
    each model it needs, so that not all of them are rendered, and `squashmigrations` can write it.
    """

    requests_each_model = True

    def __init__(self):
        super().__init__(self.move, self.move_back, atomic=False)

    def deconstruct(self):
        return type(self).__name__, [], {}

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if router.allow_migrate(schema_editor.connection.alias, app_label):
            self.code(from_state.apps, schema_editor)

    def move(self, apps, editor):
        using = editor.connection.alias
        held = _rows(apps, "admin.LogEntry", using).filter(
            action_flag=DELETION, object_repr=NAME, change_message__startswith="{"
        )
        _in_batches(held, using, lambda batch: _move(apps, using, batch))

    def move_back(self, apps, editor):
        using = editor.connection.alias
        held = _rows(apps, "administration.Access", using).filter(certificate__isnull=False)
        _in_batches(held, using, lambda batch: _move_back(apps, using, batch))


def _rows(apps, model: str, using: str):
    return apps.get_model(model).objects.using(using)


def _in_batches(held, using: str, move: Callable[[list[Any]], None]) -> None:
    """Move all rows, each batch in a transaction that locks it."""
    last = 0
    while True:
        with transaction.atomic(using=using):
            batch = list(held.filter(pk__gt=last).order_by("pk").select_for_update()[:BATCH])
            if not batch:
                return
            move(batch)
            last = batch[-1].pk


def _move(apps, using: str, entries: list[Any]) -> None:
    moved = [(entry, certificate) for entry in entries if (certificate := _read(entry.change_message)) is not None]
    staff = _rows(apps, settings.AUTH_USER_MODEL, using).filter(pk__in={entry.user_id for entry, _ in moved})
    emails = dict(staff.values_list("pk", "email"))
    accesses = _rows(apps, "administration.Access", using)
    accesses.bulk_create(
        accesses.model(
            at=entry.action_time, staff_id=entry.user_id, staff_email=emails[entry.user_id] or "", action=ACTION,
            table=TABLE, row_id=entry.object_id, person_id=entry.object_id, certificate=certificate,
        )
        for entry, certificate in moved
    )  # fmt: skip
    _rows(apps, "admin.LogEntry", using).filter(pk__in=[entry.pk for entry, _ in moved]).update(change_message=MESSAGE)


def _move_back(apps, using: str, accesses: list[Any]) -> None:
    entries = _rows(apps, "admin.LogEntry", using)
    for access in accesses:
        known: dict[str, Any] = {"object_id": access.person_id, "object_repr": NAME, "action_flag": DELETION}
        text = json.dumps({"format": 2, **access.certificate}, indent=2)  # Earlier code expects the format first.
        entry = entries.filter(**known, change_message=MESSAGE, user=access.staff_id).order_by("pk").first()
        if entry is None:
            entry = entries.model(**known, user_id=_author(apps, using, access), action_time=access.at)
        entry.change_message = text
        entry.save(using=using)
    _rows(apps, "administration.Access", using).filter(pk__in=[access.pk for access in accesses]).delete()


def _author(apps, using: str, access) -> str:
    """Return the id of a user for a log entry: of the author of `access`, or of a superuser if that one was deleted."""
    people = _rows(apps, settings.AUTH_USER_MODEL, using)
    author = people.filter(pk=access.staff_id).first() or people.filter(is_superuser=True).order_by("pk").first()
    if author is None:
        raise Refusal("No superuser exists to take over the certificates of deleted staff: create one first.")
    return author.pk


def _read(message: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        certificate = json.loads(message)
        if isinstance(certificate, dict) and "person" in certificate:
            return certificate
    return None
