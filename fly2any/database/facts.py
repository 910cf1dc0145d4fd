"""Facts that models declare about their rows, such as secret fields, the person a row belongs to, and its retention.

A model declares a fact once, as a class attribute; models of packages get theirs from
`fly2any.administration.package_facts`. All are optional:

- `secret_fields`: the names of the fields with secrets, such as password hashes, tokens and the keys of push subscriptions. The
  admin shows their fingerprints, an export leaves them out, and the role that only reads may not select them.
- `person_field`: the name of the foreign key to the person a row belongs to.
- `on_erasure`: of a table that names people by their e-mail address, an `OnErasure`.
- `address_fields`: the names of the fields whose whole value is an e-mail address; a longer one is another address.
- `address_suffixes`: the texts that may follow the address in these.
- `texts_of_others`: of a table with `OnErasure.REMOVE`, the names of the fields from which a person's address is cleared in rows that
  are not theirs.
- `fields_of_staff`: the names of the fields about the staff who did something to a row; a person's export omits them.
- `ids_of_subject`: the names of the fields with the ids of what the staff did something to; a person's export omits those of others.
- `ids_kept`: the names of the fields whose ids stay when a person is erased.
- `certificate_field`: the name of the JSON field with the certificate of a person's erasure, NULL in other rows.
- `retention`: a `Retention`.
- `placement`: the `Placement` of its rows where the database is distributed; without it they stay on the coordinator.
- `long_texts`: the names of the fields with texts of several lines, which may be long.
- `append_only`: whether the site's role may add rows, but not change them.
- `marks_schema`: whether no other project has a table of this name: the schema that has it is ours.
- `key_beyond_guide`: whether the migration guide's table has no primary key, and the model's first migration adds it.
- `nullable_beside`: a field that may be NULL where the site's table has a column of its own: {"field": "column"}.

Two facts are only for the admin: `named_by`, the columns of a name that its search reads (administration/search.py), and
`nouns`, what one row and several are called after a number (administration/counts.py).

They are read at import time, after Django has loaded the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import AppRegistryNotReady
from django.db import models

Place = tuple[str, str]  # A table and a column of it.


class OnErasure(Enum):
    """The treatment, in an erasure, of rows that have the person's e-mail address."""

    REMOVE = "remove"  # If it is the address in one of `address_fields`.
    CLEAR = "clear"  # If it is anywhere: the rows stay, without the address.


@dataclass(frozen=True, slots=True)
class Retention:
    """Rows are too old when the latest of the times in `fields` is before a given time and `only`, SQL over the columns, holds.

    `with_rows` is the related name of a foreign key: the rows that refer to an old one are deleted with it. `time_of_rows` is the field
    with their time: a row stays while one of them is not old.
    """

    what: str  # A noun phrase for the rows.
    fields: tuple[str, ...]
    only: str = "true"
    with_rows: str = ""
    time_of_rows: str = ""
    archived: bool = True  # False for secrets, which are useless once they have expired.
    expires: bool = False  # Whether the time is an expiry: only then may the age be 0 days.


class Placement(Enum):
    """The nodes that hold a table's rows where `manage.py dbdistribute` spread the database over several with Citus."""

    REFERENCE = "reference"  # Every node has all rows: a key may lead to it, and any of its columns may be unique.
    DISTRIBUTED = "distributed"  # Each row is on the node that its primary key selects.
    LOCAL = "local"  # All rows are on the coordinator.


def declared(name: str) -> Iterator[tuple[type[models.Model], Any]]:
    """Yield the models that declare the fact `name`, with its value, in the order of the apps.

    Raises AppRegistryNotReady before all apps are ready: the facts about the models of packages would be missing.
    """
    if not apps.ready:
        raise AppRegistryNotReady("The declarations of models are not complete before all apps are ready.")
    for model in apps.get_models():
        if value := getattr(model, name, None):
            yield model, value


def tables(name: str) -> tuple[str, ...]:
    """Return the tables whose models declare the fact `name`."""
    return tuple(model._meta.db_table for model, _ in declared(name))


def columns(name: str) -> dict[str, tuple[str, ...]]:
    """Return the columns of the fields that the fact `name` lists, by table."""
    return {model._meta.db_table: tuple(column_of(model, field) for field in fields) for model, fields in declared(name)}


def places(name: str) -> tuple[Place, ...]:
    """Return the (table, column) of the fields that the fact `name` lists."""
    return tuple((table, column) for table, listed in columns(name).items() for column in listed)


def column_of(model: type[models.Model], field: str) -> str:
    """Return the column of a field; raise FieldDoesNotExist if the model has none of this name."""
    found: Any = model._meta.get_field(field)
    return found.column


def people_table() -> str:
    """Return the table of people (users)."""
    return get_user_model()._meta.db_table


def person_columns(*, with_key: bool | None = None) -> dict[str, str]:
    """Return the column with the id of the person a row belongs to, by table.

    `with_key` chooses those that are, or are not, foreign keys of the database.
    """
    found = {}
    for model, name in declared("person_field"):
        field: Any = model._meta.get_field(name)
        if with_key is None or field.db_constraint is with_key:
            found[model._meta.db_table] = field.column
    return found


def erased(how: OnErasure) -> tuple[str, ...]:
    """Return the tables with this treatment of rows that hold the address of an erased person."""
    return tuple(model._meta.db_table for model, value in declared("on_erasure") if value is how)


def nullable_columns() -> dict[Place, str]:
    """Return the (table, column) that may be NULL where the site's table has a column of its own, and that column."""
    return {
        (model._meta.db_table, column_of(model, field)): beside
        for model, value in declared("nullable_beside")
        for field, beside in value.items()
    }


def added_keys() -> tuple[Place, ...]:
    """Return the (table, column) of the primary keys that first migrations add to the guide's tables."""
    return tuple((model._meta.db_table, column_of(model, model._meta.pk.name)) for model, _ in declared("key_beyond_guide"))
