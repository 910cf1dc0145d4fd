"""Erasures in the admin since a backup: their certificates outlive a restore, and the people whom it brings back are named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.db import Error, transaction

from ..errors import Refusal, explain, is_lost
from ..facts import column_of, declared
from ..schema.untrusted_code import refuse_untrusted_code
from ..sql import time_limits
from .row_hashes import LOCK_WAIT

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Erasures:
    """The ids of the people who were erased in the admin since the backup, sorted, or why that is unknown, or why the certificates were not copied."""

    people: tuple[str, ...] = ()
    error: str = ""
    uncopied: str = ""


def keep_erasures(connection, old) -> Erasures:
    """Copy the certificates of erasure in `old` to the restored database of `connection`; return the people there who have one.

    Raises django.db.Error if a connection is lost.
    """
    try:
        with time_limits(old, lock=LOCK_WAIT):  # A client may have locked a table of the database in use.
            certified = {(model, field): _rows(old, model, field) for model, field in declared("certificate_field")}
        every = [
            getattr(row, field).get("person")
            for (_, field), rows in certified.items()
            for row in rows
            if _is_object(row, field)
        ]
        erased = sorted({person for person in every if isinstance(person, str)})
        people = get_user_model()._default_manager.using(connection.alias)
        found: list[str] = []
        for start in range(0, len(erased), BATCH):
            batch = people.filter(pk__in=erased[start : start + BATCH])
            found += batch.order_by("pk").values_list("pk", flat=True)
    except Error as error:
        if is_lost(error):
            raise
        return Erasures(error=explain(error) or str(error))
    try:
        for (model, field), rows in certified.items():
            _copy(connection, model, field, rows)
    except Refusal as refusal:
        return Erasures(tuple(found), uncopied=str(refusal).removeprefix("Nothing was changed. ").rstrip("."))
    except Error as error:
        if is_lost(error):
            raise
        return Erasures(tuple(found), uncopied=explain(error) or str(error))
    return Erasures(tuple(found))


def _is_object(row, field: str) -> bool:
    return isinstance(getattr(row, field), dict)


def _rows(connection, model, field: str) -> list[Any]:
    """Return the rows with a certificate, in the order of their keys. Raises django.db.Error if they cannot be read."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):  # Before adoption.
            return []
        columns = {column.name for column in connection.introspection.get_table_description(cursor, table)}
    if column_of(model, field) not in columns:  # Its migration is pending.
        return []
    return list(model._default_manager.using(connection.alias).filter(**{f"{field}__isnull": False}).order_by("pk"))


def _copy(connection, model, field: str, rows: list[Any]) -> None:
    """Insert the rows whose certificates the database lacks, with new keys: other rows may get theirs since the backup.

    Raises Refusal if that would run code of another role.
    """
    with transaction.atomic(using=connection.alias):
        refuse_untrusted_code(connection, [model._meta.db_table])
        known = {_text(row, field) for row in _rows(connection, model, field)} if rows else set()
        fields = [one.attname for one in model._meta.concrete_fields if not one.primary_key]
        copies = [model(**{name: getattr(row, name) for name in fields}) for row in rows if _text(row, field) not in known]
        model._default_manager.using(connection.alias).bulk_create(copies, batch_size=BATCH)


def _text(row, field: str) -> str:
    return json.dumps(getattr(row, field), sort_keys=True)
