"""Fetches only the beginning of large values for the rows of a list, because the site's users write texts of any length.

A page of fifty rows of ten megabytes each would need more memory than a process has. How a value is shortened on the page is
decided by formats.py and its classes in admin.css.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Case, F, Func, When
from django.db.models.functions import Cast, Left
from django.db.models.lookups import LessThanOrEqual

from .access_paths import leads

BEGINNING = 1_000  # Characters of a text.
LARGEST = 16 * 1024  # Bytes of a JSON value or an array; a larger one is shown as missing.
SHORT = "short_"  # Prefix of the attribute with a truncated copy of a field.


class StoredSize(Func):
    function = "pg_catalog.pg_column_size"
    output_field = models.IntegerField()


class Size(Func):
    function = "pg_catalog.octet_length"
    output_field = models.IntegerField()


def large_fields(model: type[models.Model]) -> list[models.Field]:
    """Return the fields that may hold large values. An index cannot hold one, so keys and leading columns of indexes are not among them."""
    kinds = models.TextField | models.JSONField | ArrayField
    fields = [field for field in model._meta.local_concrete_fields if isinstance(field, kinds)]
    return [field for field in fields if not (field.primary_key or field.unique or leads(model, field.name))]


def with_short_copies(rows: models.QuerySet, admin: Any) -> models.QuerySet:
    """Defer the large fields of `rows`, and annotate truncated copies: of texts, and of those other fields that the list of `admin` shows.

    Secrets are not truncated, because a fingerprint needs the whole value.
    """
    fields = large_fields(rows.model)
    shown = {*admin.computed_from, *(name for name in admin.list_display if isinstance(name, str))}
    short: dict[str, Any] = {}
    for field in fields:
        if field.name in admin.secrets:
            continue
        if isinstance(field, models.TextField):
            short[SHORT + field.name] = Left(field.name, BEGINNING, output_field=models.TextField(null=True))
        elif field.name in shown:
            text = Cast(field.name, models.TextField())
            small = LessThanOrEqual(StoredSize(F(field.name)), LARGEST)  # The compressed size, read without the value.
            brief = Case(When(LessThanOrEqual(Size(text), LARGEST), then=F(field.name)), output_field=field)
            short[SHORT + field.name] = Case(When(small, then=brief), output_field=field)
    return rows.defer(*(field.name for field in fields)).annotate(**short)


def with_short_values(rows: list[Any]) -> list[Any]:
    """Return rows of `with_short_copies` with the copies as the values of the fields. The rows cannot be saved."""
    for row in rows:
        for name in [name for name in row.__dict__ if name.startswith(SHORT)]:
            row.__dict__[name.removeprefix(SHORT)] = row.__dict__.pop(name)
            row.save = _refuse
    return rows


def _refuse(*_: Any, **__: Any) -> None:
    raise TypeError("A row of a list holds only the beginning of its texts. Fetch it again to save it.")
