"""Creates, reads, updates and deletes a row in each of the 18 tables, and rolls back."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import Error, IntegrityError, connections, models, transaction
from django.utils import timezone
from django.utils.timezone import is_aware

from .schema import Check
from .schema import contract as contracts
from .schema.contract import PHASE7_APPS
from .schema.untrusted_code import refuse_untrusted_code
from .server import read_schema
from .sql import EXPLICIT_TRIGGER_SQL, fetch_all, quote, time_limits

LONGEST = timedelta(hours=1)  # Longer than a write check takes.
# By column, two values that the site may write: its checks and triggers may refuse others.
NEXT_YEAR = timezone.now().year + 1
PLAUSIBLE = {
    "origin": ("LHR", "JFK"),
    "destination": ("FCO", "LIS"),
    "airportCode": ("FCO", "LIS"),
    "departDate": (f"{NEXT_YEAR}-04-25", f"{NEXT_YEAR}-04-26"),
    "returnDate": (f"{NEXT_YEAR}-05-25", f"{NEXT_YEAR}-05-26"),
    "currency": ("USD", "EUR"),
}

# The triggers of a table whose function PostgreSQL names in the context of an error.
NAMED_TRIGGERS_SQL = f"""
    SELECT t.tgname FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    CROSS JOIN (VALUES (' '), ('.')) AS before (sign)
    WHERE t.tgrelid = pg_catalog.to_regclass(%(table)s)::oid AND {EXPLICIT_TRIGGER_SQL}
      AND pg_catalog.strpos(%(context)s, before.sign || pg_catalog.quote_ident(p.proname) || '()') > 0
"""


@dataclass(frozen=True, slots=True)
class WriteCheck:
    """What a write check tried; it ends at the first table that fails."""

    passed: tuple[str, ...]  # tables
    failed: str = ""  # a table
    refused_by: frozenset[str] = frozenset()  # its constraints and triggers that the server named
    error: Error | None = None
    untried: tuple[str, ...] = ()  # "table (check)": the check is one of the contract, and the table's sample row violates it


def check_writes(connection) -> WriteCheck:
    """Write to each table in one transaction, which is rolled back; raise Refusal if another role's code would run."""
    done: list[str] = []
    untried: list[str] = []
    table = ""
    try:
        with time_limits(connection, lock=settings.LOCK_TIMEOUT, statement=30_000):
            refuse_untrusted_code(connection, [model._meta.db_table for model in _models()], deletes=True, updates=None)
            for model in _models():
                table = model._meta.db_table
                if check := _violated(model, connection.alias):
                    untried.append(f"{table} ({check})")
                else:
                    done.append(table)
            transaction.set_rollback(True, using=connection.alias)
    except Error as error:
        if not table:
            return WriteCheck((), error=error)
        said = type(error)(f"The write check failed at the table {table}: {str(error).splitlines()[0]}")
        said.__cause__ = error
        return WriteCheck(tuple(done), table, _named(connection, table, error), said, tuple(untried))
    return WriteCheck(tuple(done), untried=tuple(untried))


def _violated(model: type[models.Model], alias: str) -> str:
    """Try the table of `model`; return the check of the contract that a sample row violates, "" if it was tried."""
    try:
        with transaction.atomic(using=alias):
            _round_trip(model, alias)
    except IntegrityError as error:
        diagnosis = getattr(error.__cause__, "diag", None)
        check = diagnosis and (diagnosis.table_name, diagnosis.constraint_name)
        things = (version.object for version in contracts.load().versions if version.until is None)
        if check not in {(thing.table, thing.name) for thing in things if isinstance(thing, Check)}:
            raise
        return check[1]
    return ""


def _named(connection, table: str, error: Error) -> frozenset[str]:
    """Return the constraints and triggers of a table that the server names in an error."""
    diagnosis = getattr(error.__cause__, "diag", None)
    if diagnosis is None:
        return frozenset()
    names = {diagnosis.constraint_name} if diagnosis.table_name == table else set()
    with suppress(Error):  # The connection may be lost.
        place = f"{quote(read_schema(connection))}.{quote(table)}"
        rows = fetch_all(connection, NAMED_TRIGGERS_SQL, {"table": place, "context": diagnosis.context or ""})
        names.update(name for (name,) in rows)
    return frozenset(filter(None, names))


def _models() -> Iterator[type[models.Model]]:
    for app in PHASE7_APPS:
        yield from apps.get_app_config(app).get_models()


def _round_trip(model: type[models.Model], alias: str) -> None:
    rows = model._base_manager.using(alias)
    try:
        made = _make(model, alias)
    except TypeError:  # Django finds no row in what INSERT … RETURNING returned.
        raise Error("the row was not stored; a trigger or rule may have skipped it silently") from None
    _compare(made, "written", {field.attname: getattr(made, field.attname) for field in model._meta.local_fields})
    others = [_make(model, alias), _make(model, alias, optional=False)]
    changed = {field: _given(field, alias, changed=True) for field in model._meta.local_fields if not field.primary_key}
    if rows.filter(pk=made.pk).update(**{field.name: value for field, value in changed.items()}) != 1:
        raise Error("the row could not be updated")
    connections[alias].check_constraints()  # This runs deferred constraints and triggers.
    _compare(made, "updated", {field.attname: getattr(value, "pk", value) for field, value in changed.items()})
    if made.delete()[0] < 1 or rows.filter(pk=made.pk).exists():
        raise Error("the row could not be deleted")
    for other in others:
        for parent in _parents(other):
            if type(parent)._base_manager.using(alias).filter(pk=parent.pk)._raw_delete(alias) != 1:
                raise Error("the row that it refers to could not be deleted")
    connections[alias].check_constraints()


def _compare(made: models.Model, done: str, expected: Mapping[str, Any]) -> None:
    """Raise Error unless the stored row has the expected values; a trigger may normalise a text, or set a column to the current time."""
    now = timezone.now()
    rows = type(made)._base_manager.using(made._state.db)
    try:
        values = rows.filter(pk=made.pk).values().get()
    except (TypeError, ValueError) as error:  # A column of another type, such as json for jsonb.
        raise Error(f"the row that was {done} cannot be read: {error}") from None
    wrong = [
        field.name
        for field in made._meta.local_fields
        if field.attname in expected and not _is_as_expected(values[field.attname], expected[field.attname], now)
    ]
    if wrong:
        raise Error(f"the row that was read differs from what was {done}, in {', '.join(wrong)}")


def _is_as_expected(value: Any, expected: Any, now: datetime) -> bool:
    if isinstance(value, str) and isinstance(expected, str) and (kept := _letters(value)):
        rest = iter(_letters(expected))
        return all(letter in rest for letter in kept)  # In the same order; some may be missing.
    return value == expected or (isinstance(value, datetime) and is_aware(value) and abs(value - now) < LONGEST)


def _letters(text: str) -> list[str]:
    """Return its letters and digits, without case and accents."""
    return [sign for sign in unicodedata.normalize("NFKD", text).casefold() if sign.isalnum()]


def _make(model: type[models.Model], alias: str, *, optional: bool = True) -> models.Model:
    """Create a row, with or without its nullable columns."""
    fields = [field for field in model._meta.local_fields if not field.primary_key and (optional or not field.null)]
    return model._base_manager.using(alias).create(**{field.name: _given(field, alias) for field in fields})


def _given(field: models.Field, alias: str, *, changed: bool = False) -> Any:
    return _make(field.related_model, alias) if isinstance(field, models.ForeignKey) else _value(field, changed=changed)


def _parents(row: models.Model) -> Iterator[models.Model]:
    for field in row._meta.local_fields:
        if isinstance(field, models.ForeignKey) and (parent := getattr(row, field.name)) is not None:
            yield parent


def _value(field: models.Field, *, changed: bool) -> Any:
    """Return a value that, in a unique column, no real row has; that of a row which is `changed` is another one."""
    match field.get_internal_type():
        case "DateTimeField":
            return timezone.now().replace(microsecond=0) - timedelta(hours=2 if changed else 3)
        case "BooleanField":
            return changed
        case "IntegerField" | "BigIntegerField":
            return 1 + changed
        case "FloatField":
            return 1.5 + changed
        case "JSONField":
            return {"write check": changed}
        case "ArrayField":
            return ["write check", str(changed)]
        case _ if field.column in PLAUSIBLE:
            return PLAUSIBLE[field.column][changed]
        case _ if field.choices:
            return list(field.choices)[-changed][0]
        case _ if field.name == "email":
            return f"write-check-{uuid.uuid4()}@example.com"
        case _:
            return f"write-check-ã✈-{uuid.uuid4()}"
