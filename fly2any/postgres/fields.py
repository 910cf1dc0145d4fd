"""Fields of the Fly2Any schema. Migrations import this path: it is frozen."""

import json
from datetime import datetime
from decimal import Decimal

import uuid_utils
from django.db import models
from django.db.models.expressions import DatabaseDefault
from psycopg.types.json import Jsonb

from .values import Beyond, Unreadable, is_deep


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562) as text: 36 characters that sort by time."""
    return str(uuid_utils.uuid7())


class TextIdField(models.TextField):
    """The text primary key of every Fly2Any table.

    The site makes its ids itself (cuid, UUIDv4), so the form of an id is never validated; rows made here get a UUIDv7.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"verbose_name": "ID", "primary_key": True, "default": new_id, "editable": False, **kwargs})

    def deconstruct(self):
        name, path, args, kwargs = super().deconstruct()
        for option, standard, djangos in (
            ("verbose_name", "ID", None),
            ("primary_key", True, False),
            ("default", new_id, models.NOT_PROVIDED),
            ("editable", False, True),
        ):
            if kwargs.pop(option, djangos) != standard:
                kwargs[option] = getattr(self, option)
        return name, path, args, kwargs

    def get_internal_type(self):
        return "TextField"


class DateTimeField(models.DateTimeField):
    """Django's field, truncated to milliseconds: Prisma compares milliseconds, and would not find a row by a time with microseconds.

    Migrations record it as Django's own field, because the column is the same.
    """

    def deconstruct(self):
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def pre_save(self, model_instance, add):
        value = super().pre_save(model_instance, add)
        if (shorter := _in_milliseconds(value)) is not value:
            setattr(model_instance, self.attname, shorter)  # The value as it is read back.
        return shorter

    def get_db_prep_save(self, value, connection):
        if isinstance(value, DatabaseDefault):
            [value] = value.get_source_expressions()  # "DEFAULT" could not be truncated.
        if hasattr(value, "as_sql"):
            return value if isinstance(value, MillisecondsOf) else MillisecondsOf(value)
        return super().get_db_prep_save(_in_milliseconds(value), connection)


class MillisecondsOf(models.Func):
    template = "pg_catalog.date_trunc('milliseconds', (%(expressions)s)::pg_catalog.timestamptz)"
    output_field = models.DateTimeField()


def _in_milliseconds(value):
    if not isinstance(value, datetime) or isinstance(value, Beyond) or not value.microsecond % 1000:
        return value
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def exactly(text: str) -> float:
    """Return the number; raise ValueError if a Python float cannot hold it, so that saving would change it."""
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        raise ValueError(f"{text} is not a float.")
    return number


class JSONField(models.JSONField):
    """Django's field, which here reads JSON that Python cannot parse as `Unreadable`, and writes it back unchanged.

    Migrations record it as Django's own field, because the column is the same. An empty array or object is a value, even where none may be missing.
    """

    empty_values = [None, ""]

    def deconstruct(self):
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs

    def from_db_value(self, value, expression, connection):
        if not isinstance(value, str):
            return super().from_db_value(value, expression, connection)
        if is_deep(value):
            return Unreadable(value)
        try:
            return json.loads(value, cls=self.decoder, parse_float=exactly)
        except (ValueError, RecursionError):
            return Unreadable(value)

    def get_db_prep_value(self, value, connection, prepared=False):
        if isinstance(value, Unreadable):
            return Jsonb(value.text, dumps=str)
        return super().get_db_prep_value(value, connection, prepared)

    def value_to_string(self, obj):
        """Return the value for a fixture; raise ValueError for one that Python cannot read: it would come back as a text."""
        if isinstance(self.value_from_object(obj), Unreadable):
            raise ValueError(f"{self.model._meta.db_table}.{self.column} holds JSON that no fixture can hold: use dbbackup")
        return super().value_to_string(obj)
