"""Creates, reads, updates and deletes a row in each of the 18 tables, and rolls back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import Error, connections, models, transaction
from django.utils import timezone

from .schema.contract import PHASE7_APPS
from .schema.untrusted_code import refuse_untrusted_code
from .sql import time_limits


def check_writes(connection) -> tuple[str, ...]:
    """Return the tables that passed; raise django.db.Error, naming the table, at the first that fails, and Refusal if another role's
    code would run.

    Everything happens in one transaction, which is rolled back.
    """
    done = []
    with time_limits(connection, lock=settings.LOCK_TIMEOUT, statement=30_000):
        refuse_untrusted_code(connection, [model._meta.db_table for model in _models()], deletes=True, updates=None)
        for model in _models():
            try:
                _round_trip(model, connection.alias)
            except Error as error:
                raise type(error)(
                    f"The write check failed at the table {model._meta.db_table}: {str(error).splitlines()[0]}"
                ) from error
            done.append(model._meta.db_table)
        transaction.set_rollback(True, using=connection.alias)
    return tuple(done)


def _models() -> Iterator[type[models.Model]]:
    for app in PHASE7_APPS:
        yield from apps.get_app_config(app).get_models()


def _round_trip(model: type[models.Model], alias: str) -> None:
    rows = model._base_manager.using(alias)
    try:
        made = _make(model, alias)
    except TypeError:  # Django finds no row in what INSERT … RETURNING returned.
        raise Error("the row was not stored; a trigger or rule may have skipped it silently") from None
    values = rows.filter(pk=made.pk).values().get()
    wrong = [field.name for field in model._meta.local_fields if values[field.attname] != getattr(made, field.attname)]
    if wrong:
        raise Error(f"the row that was read differs from what was written, in {', '.join(wrong)}")
    others = [_make(model, alias), _make(model, alias, optional=False)]
    changed = {field.name: _given(field, alias) for field in model._meta.local_fields if not field.primary_key}
    if rows.filter(pk=made.pk).update(**changed) != 1:
        raise Error("the row could not be updated")
    connections[alias].check_constraints()  # This runs deferred constraints and triggers.
    if made.delete()[0] < 1 or rows.filter(pk=made.pk).exists():
        raise Error("the row could not be deleted")
    for other in others:
        for parent in _parents(other):
            if type(parent)._base_manager.using(alias).filter(pk=parent.pk)._raw_delete(alias) != 1:
                raise Error("the row that it refers to could not be deleted")
    connections[alias].check_constraints()


def _make(model: type[models.Model], alias: str, *, optional: bool = True) -> models.Model:
    """Create a row, with or without its nullable columns."""
    fields = [field for field in model._meta.local_fields if not field.primary_key and (optional or not field.null)]
    return model._base_manager.using(alias).create(**{field.name: _given(field, alias) for field in fields})


def _given(field: models.Field, alias: str) -> Any:
    return _make(field.related_model, alias) if isinstance(field, models.ForeignKey) else _value(field)


def _parents(row: models.Model) -> Iterator[models.Model]:
    for field in row._meta.local_fields:
        if isinstance(field, models.ForeignKey) and (parent := getattr(row, field.name)) is not None:
            yield parent


def _value(field: models.Field) -> Any:
    """Return a value that, in a unique column, no real row has."""
    match field.get_internal_type():
        case "DateTimeField":
            return timezone.now()
        case "BooleanField":
            return False
        case "IntegerField" | "BigIntegerField":
            return 1
        case "FloatField":
            return 1.5
        case "JSONField":
            return {"write check": True}
        case "ArrayField":
            return ["write check"]
        case _:
            return f"write-check-ã✈-{uuid.uuid4()}"
