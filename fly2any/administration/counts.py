"""Row counts whose cost does not grow with the number of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import models

from .deadlines import TooSlow, within
from .replica import current

MOST_COUNTED = 10_000  # Rows that are counted; more is shown as "10,000+".
EXACT_DEADLINE = 1_900  # Milliseconds for an exact count on request.

# -1 is a table that was never analysed; a partitioned table has no estimate of its own.
ESTIMATES_SQL = """
    SELECT cls.relname AS "table", cls.reltuples::bigint AS rows
    FROM pg_catalog.pg_class AS cls
    WHERE cls.oid = ANY (SELECT pg_catalog.to_regclass(pg_catalog.quote_ident(name))::oid FROM pg_catalog.unnest(%(tables)s::text[]) AS name)
    ORDER BY cls.relname
"""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows: exact, a minimum (`more`), or an estimate (`estimated`); None is unknown."""

    number: int | None
    more: bool = False
    estimated: bool = False

    def __str__(self) -> str:
        if self.number is None:
            return "not computed"
        return f"~{short(self.number)}" if self.estimated else f"{self.number:,}{'+' if self.more else ''}"

    @property
    def is_exact(self) -> bool:
        return self.number is not None and not self.more and not self.estimated


def short(number: float) -> str:
    """Return a number with about three significant digits: 950, 12.3 k, 10.0 M, 1.2 G."""
    if number < 1000:
        return f"{number:.0f}"
    place = min(3, int(math.log10(number)) // 3)
    return f"{number / 1000**place:.1f} {' kMG'[place]}"


def estimates(models_: Iterable[type[models.Model]]) -> dict[str, int]:
    """Return the estimated rows of each table of `models_`, by name; -1 without statistics."""
    with current().cursor() as cursor:
        cursor.execute(ESTIMATES_SQL, {"tables": [model._meta.db_table for model in models_]})
        return dict(cursor.fetchall())


def bounded(queryset: models.QuerySet) -> Count:
    """Return the number of rows, counted up to MOST_COUNTED, or unknown if that takes too long."""
    try:
        with within():
            number = queryset.order_by()[: MOST_COUNTED + 1].count()
    except TooSlow:
        return Count(None)
    return Count(min(number, MOST_COUNTED), more=number > MOST_COUNTED)


def exact(queryset: models.QuerySet) -> Count:
    """Return the exact number of rows, or unknown if counting takes too long."""
    try:
        with within(EXACT_DEADLINE):
            return Count(queryset.order_by().count())
    except TooSlow:
        return Count(None)


def of_table(model: type[models.Model]) -> Count:
    """Return the number of rows of a table: counted if there are few, otherwise estimated."""
    estimate = estimates([model]).get(model._meta.db_table, -1)
    if estimate > MOST_COUNTED:
        return Count(estimate, estimated=True)
    return bounded(model._base_manager.all())
