"""The overview of a row that others hang on: its facts, a panel for each table that points at it, and one timeline of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.utils import label_for_field, quote
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.urls import NoReverseMatch, reverse

from .counts import Count, bounded
from .formats import beginning
from .indexes import time_within
from .light import light, settled
from .paging import value_of

MOST_ROWS = 10  # Of a panel.
MOST_COLUMNS = 5
MOST_EVENTS = 30  # Of a page of the timeline.


@dataclass(frozen=True, slots=True)
class Relation:
    """A table that points at the row: by which foreign key, and by which time an index orders its rows."""

    admin: Any
    key: str
    time: str | None

    @property
    def model(self) -> type[models.Model]:
        return self.admin.model


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    headers: list[str]
    rows: list[tuple[str, list[Any]]]  # (address, cells)
    count: Count
    url: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something on the timeline; `token` is its place there."""

    time: datetime
    kind: str
    text: str
    url: str
    token: str


def page_of_row(row: models.Model, name: str = "change") -> str:
    """Return the address of a page of `row` in the admin; raise NoReverseMatch where there is none."""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{name}", args=[quote(row.pk)])


def best_page(row: models.Model) -> str:
    """Return the address of the overview of `row`, or of its page where it has none; raise NoReverseMatch without either."""
    try:
        return page_of_row(row, "overview")
    except NoReverseMatch:
        return page_of_row(row)


def _list_of(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def relations(admin: Any, request) -> list[Relation]:
    """Return the tables of the admin that point at the model of `admin`, and that the user may see."""
    found = []
    for relation in admin.opts.related_objects:
        other = admin.admin_site._registry.get(relation.related_model)
        if other and isinstance(relation, models.ManyToOneRel) and other.has_view_permission(request):
            found.append(Relation(other, relation.field.name, time_within(relation.related_model, relation.field.name)))
    return found


def panels(admin: Any, request, row: models.Model) -> Iterator[Panel]:
    """Yield a panel for each relation, with its newest rows where an index has them by time."""
    for relation in relations(admin, request):
        rows = relation.model._base_manager.filter(**{relation.key: row.pk})
        newest = light(rows, relation.admin).order_by(f"-{relation.time}" if relation.time else "-pk")
        shown = settled(list(newest[: MOST_ROWS + 1]))
        columns = [
            name for name in relation.admin.get_list_display(request) if name not in (relation.key, f"{relation.key}_link")
        ][:MOST_COLUMNS]
        yield Panel(
            title=str(relation.model._meta.verbose_name_plural),
            headers=[str(label_for_field(name, relation.model, relation.admin)) for name in columns],
            rows=[
                (
                    page_of_row(found),
                    [relation.admin.cell(name, found) for name in columns],
                )
                for found in shown[:MOST_ROWS]
            ],
            count=Count(len(shown)) if len(shown) <= MOST_ROWS else bounded(rows),
            url=f"{_list_of(relation.model)}?{urlencode({relation.key: row.pk})}",
        )


def timeline(admin: Any, request, row: models.Model, *, before: str = "") -> list[Event]:
    """Return the newest MOST_EVENTS + 1 events before a token, newest first; raise ValueError for a token that is none.

    The order is by time, then by table and key, so that events of one moment are neither skipped nor shown twice.
    """
    streams = [_events(relation, row, before) for relation in relations(admin, request) if relation.time]
    return list(
        islice(merge(*streams, key=lambda event: (event.time, *event.token.split("~", 2)[1:]), reverse=True), MOST_EVENTS + 1)
    )


def _events(relation: Relation, row: models.Model, before: str) -> Iterator[Event]:
    table, time = relation.model._meta.db_table, str(relation.time)
    rows = relation.model._base_manager.filter(**{relation.key: row.pk})
    if before:
        moment, their_table, pk = _place(before)
        earlier = Q(**{f"{time}__lt": moment})
        if table < their_table:
            earlier |= Q(**{time: moment})
        elif table == their_table:
            earlier |= Q(**{time: moment, "pk__lt": pk})
        rows = rows.filter(Q(**{f"{time}__lte": moment}) & earlier)
    for found in settled(list(light(rows, relation.admin).order_by(f"-{time}", "-pk")[: MOST_EVENTS + 1])):
        at = getattr(found, time)
        url = page_of_row(found)
        yield Event(at, str(relation.model._meta.verbose_name), beginning(found), url, f"{at.isoformat()}~{table}~{found.pk}")


def _place(token: str) -> tuple[datetime, str, str]:
    moment, table, pk = token.split("~", 2)
    try:
        return value_of(models.DateTimeField(), moment).astimezone(UTC), table, pk
    except ValidationError:
        raise ValueError(f"{token!r} is no place on this timeline.") from None
