"""The people whom a restore brings back, although the record of access has the certificate of their erasure."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.db import Error

from ..errors import explain
from ..facts import column_of, declared

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Erasures:
    """The ids of the people who were erased in the admin since the backup, sorted; or why that is unknown."""

    people: tuple[str, ...] = ()
    error: str = ""


def find_erased(connection, old) -> Erasures:
    """Return the people of the restored database of `connection` whose certificates of erasure `old` has."""
    try:
        erased = sorted(_read_erased(old))
        people = get_user_model()._default_manager.using(connection.alias)
        found: list[str] = []
        for start in range(0, len(erased), BATCH):
            batch = people.filter(pk__in=erased[start : start + BATCH])
            found += batch.order_by("pk").values_list("pk", flat=True)
        return Erasures(tuple(found))
    except Error as error:
        return Erasures(error=explain(error) or str(error))


def _read_erased(connection) -> set[str]:
    """Return the ids of the people whose certificates the database keeps. Raises django.db.Error if they cannot be read."""
    found: set[str] = set()
    for model, field in declared("certificate_field"):
        table = model._meta.db_table
        with connection.cursor() as cursor:
            if table not in connection.introspection.table_names(cursor):  # Before adoption.
                continue
            columns = {column.name for column in connection.introspection.get_table_description(cursor, table)}
        if column_of(model, field) in columns:  # Else its migration is pending.
            rows = model._default_manager.using(connection.alias).filter(**{f"{field}__isnull": False})
            found.update(person for person in rows.values_list(f"{field}__person", flat=True) if isinstance(person, str))
    return found
