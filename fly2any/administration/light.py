"""Rows as lists show them: of what may be large, the beginning. The site's users write texts of any length.

A page of fifty rows with ten megabytes each would take more memory than a process has.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Case, F, Func, When
from django.db.models.functions import Cast, Left
from django.db.models.lookups import LessThanOrEqual

from .indexes import leads

BEGINNING = 1_000  # Characters of a text.
LARGEST = 16 * 1024  # Bytes of a JSON value or an array; a larger one is as if it were missing.
SHORT = "short_"  # Before the name of a field: the attribute with what is shown of it.


class StoredSize(Func):
    function = "pg_catalog.pg_column_size"
    output_field = models.IntegerField()


class Size(Func):
    function = "pg_catalog.octet_length"
    output_field = models.IntegerField()


def large(model: type[models.Model]) -> list[models.Field]:
    """Return the fields that may be large: no key, and none that an index begins with, which holds no large value."""
    kinds = models.TextField | models.JSONField | ArrayField
    fields = [field for field in model._meta.local_concrete_fields if isinstance(field, kinds)]
    return [field for field in fields if not (field.primary_key or field.unique or leads(model, field.name))]


def light(rows: models.QuerySet, admin: Any) -> models.QuerySet:
    """Return `rows` of the model of `admin` for `settled`: large texts cut, and no other large value but for what its list shows.

    Secrets are as they are where they are asked for: a fingerprint is of the whole.
    """
    fields = large(rows.model)
    shown = {*admin.computed_from, *(name for name in admin.list_display if isinstance(name, str))}
    short: dict[str, Any] = {}
    for field in fields:
        if field.name in admin.secrets:
            continue
        if isinstance(field, models.TextField):
            short[SHORT + field.name] = Left(field.name, BEGINNING, output_field=models.TextField(null=True))
        elif field.name in shown:
            text = Cast(field.name, models.TextField())
            small = LessThanOrEqual(StoredSize(F(field.name)), LARGEST)  # Compressed, and so not all of it is read.
            brief = Case(When(LessThanOrEqual(Size(text), LARGEST), then=F(field.name)), output_field=field)
            short[SHORT + field.name] = Case(When(small, then=brief), output_field=field)
    return rows.defer(*(field.name for field in fields)).annotate(**short)


def settled(rows: list[Any]) -> list[Any]:
    """Return `rows` of `light` with what is short in place of what is large. They are to be looked at, and cannot be saved."""
    for row in rows:
        for name in [name for name in row.__dict__ if name.startswith(SHORT)]:
            row.__dict__[name.removeprefix(SHORT)] = row.__dict__.pop(name)
            row.save = _refuse
    return rows


def _refuse(*_: Any, **__: Any) -> None:
    raise TypeError("A row of a list holds only the beginning of its texts. Fetch it again to save it.")
