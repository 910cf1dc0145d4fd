"""The contents of an overview: a row's facts, a panel for each table that references it, and one timeline of all events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import merge
from itertools import islice
from typing import Any
from urllib.parse import quote as urlquote
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.admin.utils import label_for_field, quote
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.urls import NoReverseMatch, get_script_prefix, get_urlconf, reverse
from django.utils import timezone
from django.utils.http import RFC3986_SUBDELIMS

from fly2any.database.units import plural

from . import charts
from .access_paths import leads, newest_within, time_added, time_within
from .counts import MOST_COUNTED, Count, bounded
from .deadlines import TooSlow, within
from .formats import beginning
from .long_values import with_short_copies, with_short_values
from .paging import value_of
from .replica import current

MOST_ROWS = 5  # Rows of a panel.
MOST_COLUMNS = 5
MOST_EVENTS = 30  # Events of a page of the timeline.
WEEKS = 12  # Weeks in the activity chart.

WEEKS_SQL = f"""
    SELECT least(floor(extract(epoch FROM e.at - %s) / 604800.0), {WEEKS - 1})::int AS week, count(*), e.part FROM ({{events}}) AS e GROUP BY week, e.part
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table that points at the row: by which foreign key, the time of its rows, and whether an index has their order."""

    admin: Any
    key: str
    time: str | None
    is_ordered: bool

    @property
    def model(self) -> type[models.Model]:
        return self.admin.model


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    headers: list[str]
    rows: list[tuple[str, list[Any]]]  # (URL, cells)
    count: Count
    url: str


@dataclass(frozen=True, slots=True)
class Event:
    """An event on the timeline; `token` is its position."""

    time: datetime
    text: str
    url: str
    token: str


def page_of_row(row: models.Model, name: str = "change") -> str:
    """Return the URL of a page of `row` in the admin; raise NoReverseMatch if there is none."""
    page, key = f"admin:{row._meta.app_label}_{row._meta.model_name}_{name}", quote(row.pk)
    around = _around(page, get_script_prefix(), get_urlconf() or settings.ROOT_URLCONF)
    if around is None:
        raise NoReverseMatch(f"The admin has no page {page}.")
    if key == "":
        return reverse(page, args=[key])
    return urlquote(str(key), safe=RFC3986_SUBDELIMS + "/~:@").join(around)


@lru_cache(maxsize=1_000)
def _around(page: str, prefix: str, urlconf: Any) -> tuple[str, str] | None:
    """Return the parts of the page's URL before and after the key, None if there is no such page: a list needs one per row."""
    try:
        before, _, after = reverse(page, urlconf, args=["-key-"]).partition("-key-")
    except NoReverseMatch:
        return None
    return before, after


def best_page(row: models.Model) -> str:
    """Return the URL of the overview of `row`, otherwise of its page; raise NoReverseMatch without either."""
    try:
        return page_of_row(row, "overview")
    except NoReverseMatch:
        return page_of_row(row)


def _list_of(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def relations(admin: Any, request, row: models.Model) -> list[Relation]:
    """Return the tables that point at the model of `row`, that the user may see, and that can have rows for it."""
    found = []
    for relation in admin.opts.related_objects:
        other = admin.admin_site._registry.get(relation.related_model)
        if (
            not other
            or not other.in_overviews
            or not isinstance(relation, models.ManyToOneRel)
            or (other.of_staff and not getattr(row, "is_staff", True))
        ):
            continue
        if other.has_view_permission(request):
            model, key = relation.related_model, relation.field.name
            ordered = time_within(model, key)
            found.append(Relation(other, key, ordered or (time_added(model) if leads(model, key) else None), bool(ordered)))
    return sorted(found, key=lambda one: one.admin.place_in_overview)


def panels(request, row: models.Model, found: list[Relation]) -> Iterator[Panel]:
    """Yield a panel for each relation, with its newest rows."""
    for relation in found:
        rows = relation.model._base_manager.filter(**{relation.key: row.pk})
        newest = with_short_copies(rows, relation.admin).order_by(*_newest_first(relation))
        shown = with_short_values(list(newest[: MOST_ROWS + 1]))
        relation.admin.prepare_panel(request, shown[:MOST_ROWS])
        columns = [
            name for name in relation.admin.panel_columns(request) if name not in (relation.key, f"{relation.key}_link")
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


def _newest_first(relation: Relation) -> list[str]:
    time = newest_within(relation.model, relation.key)
    return [f"-{time}", "-pk"] if time else ["-pk"]


def timeline(row: models.Model, found: list[Relation], *, before: str = "") -> list[Event]:
    """Return the newest MOST_EVENTS + 1 events before a token, newest first; raise ValueError for an invalid token.

    The order is by time, then by table and key, so that events of one moment are neither skipped nor shown twice. Where no index
    has the order, the person's rows are sorted; raise TooSlow if that takes too long.
    """
    streams = [_events(relation, row, before) for relation in found if relation.is_ordered]
    others = [
        (relation, time)
        for relation in found
        if relation.time
        for time in ([*relation.admin.also_happened] if relation.is_ordered else ["", *relation.admin.also_happened])
    ]
    if others:
        with within():
            streams += [_events(relation, row, before, time) for relation, time in others]
    return list(
        islice(merge(*streams, key=lambda event: (event.time, *event.token.split("~", 2)[1:]), reverse=True), MOST_EVENTS + 1)
    )


def _events(relation: Relation, row: models.Model, before: str, other_time: str = "") -> Iterator[Event]:
    """Fetch the events of a table by its time, or by one of `also_happened`; each is described when it is its turn."""
    table, time = relation.model._meta.db_table, other_time or str(relation.time)
    table = f"{table}.{other_time}" if other_time else table
    happened = getattr(relation.admin, relation.admin.also_happened[other_time]) if other_time else relation.admin.happened
    rows = relation.model._base_manager.filter(**{relation.key: row.pk})
    if other_time:
        rows = rows.filter(**{f"{time}__isnull": False})
    if before:
        moment, their_table, pk = _place(before)
        earlier = Q(**{f"{time}__lt": moment})
        if table < their_table:
            earlier |= Q(**{time: moment})
        elif table == their_table:
            earlier |= Q(**{time: moment, "pk__lt": pk})
        rows = rows.filter(Q(**{f"{time}__lte": moment}) & earlier)
    newest = with_short_copies(rows, relation.admin).order_by(f"-{time}", "-pk")[: MOST_EVENTS + 1]

    def event(found: models.Model) -> Event:
        at = getattr(found, time)
        return Event(at, beginning(happened(found)), page_of_row(found), f"{at.isoformat()}~{table}~{found.pk}")

    return map(event, with_short_values(list(newest)))


def activity(row: models.Model, found: list[Relation]) -> str:
    """Return a chart of the events of `row` in each of the last WEEKS weeks, "" if there are none or too many."""
    connection = current()
    quoted = connection.ops.quote_name
    first = timezone.now() - timedelta(weeks=WEEKS)
    parts: list[str] = []
    parameters: list[Any] = []
    for relation in found:
        if relation.time:
            fields: list[Any] = [relation.model._meta.get_field(name) for name in (relation.time, relation.key)]
            time, key = (quoted(field.column) for field in fields)
            table = quoted(relation.model._meta.db_table)
            parts.append(
                f"(SELECT {len(parts)} AS part, {time} AS at FROM {table}"
                f" WHERE {key} = %s AND {time} >= %s AND {time} < 'infinity' ORDER BY {time} LIMIT {MOST_COUNTED + 1})"
            )
            parameters += [row.pk, first]
    if not parts:
        return ""
    try:
        with within(), connection.cursor() as cursor:
            cursor.execute(WEEKS_SQL.format(events=" UNION ALL ".join(parts)), [first, *parameters])
            rows = cursor.fetchall()
    except TooSlow:
        return ""
    numbers, of_parts = [0] * WEEKS, [0] * len(parts)
    for week, count, part in rows:
        numbers[week] += count
        of_parts[part] += count
    if not rows or max(of_parts) > MOST_COUNTED:
        return ""
    title = (
        f"Activity per week, {first:%Y-%m-%d} to today: {plural(sum(numbers), 'event')}, {max(numbers):,} in the busiest week"
    )
    return charts.bars(numbers, title)


def _place(token: str) -> tuple[datetime, str, str]:
    moment, table, pk = token.split("~", 2)
    try:
        return value_of(models.DateTimeField(), moment).astimezone(UTC), table, pk
    except ValidationError:
        raise ValueError(f"{token!r} is not a position on this timeline.") from None
