"""Row counts whose cost does not grow with the number of rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache
from django.db import models

from fly2any.database.schema.sizes_and_use import Extent, ask_nodes, read_estimates

from .deadlines import TooSlow, within
from .replica import current

MOST_COUNTED = 10_000  # Rows that are counted; more is shown as "10,000+".
EXACT_DEADLINE = 1_900  # Milliseconds for an exact count on request.
NODES_KNOWN = 60  # Seconds: each node of Citus is asked over a new connection.


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


def nouns(model: type[models.Model]) -> tuple[str, str]:
    """Return what one row and several are called after a number: the model's `nouns` if its plural name cannot be counted."""
    options = model._meta
    return getattr(model, "nouns", None) or (str(options.verbose_name), str(options.verbose_name_plural))


def short(number: float) -> str:
    """Return a number with about three significant digits: 950, 12.3k, 10.0M, 1.2B."""
    if number < 1000:
        return f"{number:.0f}"
    place = min(3, int(math.log10(number)) // 3)
    return f"{number / 1000**place:.1f}{'kMB'[place - 1]}"


def extents(models_: Iterable[type[models.Model]]) -> dict[str, Extent]:
    """Return what the statistics say about the table of each of `models_`, by name."""
    return read_estimates(current(), [model._meta.db_table for model in models_], ask=_ask_nodes)


def _ask_nodes(connection, command: str) -> list[dict[str, Any]]:
    key = f"fly2any.nodes.{hashlib.sha256(command.encode()).hexdigest()}"
    return cache.get_or_set(key, lambda: ask_nodes(connection, command), NODES_KNOWN)  # type: ignore[return-value]


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
    extent = extents([model]).get(model._meta.db_table)
    if extent and (estimate := extent.estimate or 0) > MOST_COUNTED:
        return Count(estimate, estimated=True)
    return bounded(model._base_manager.all())
