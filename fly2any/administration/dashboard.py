"""The first page: the state of the database, and each table by its size, growth and last row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from django.core.cache import cache
from django.db import connection, models
from django.utils import timezone

from fly2any.database.backup.inventory import BackupState, read_newest
from fly2any.database.findings import Finding
from fly2any.database.report.collect import Report, collect, compare_and_collect, verify_or_report
from fly2any.database.verification import Verification
from fly2any.postgres.values import Beyond

from . import charts
from .access_paths import time_added, time_of
from .counts import MOST_COUNTED, Count, bounded, extents, short
from .deadlines import TooSlow, within

BACKUPS_KNOWN = 300
VERIFYING = 1_000  # Milliseconds for each statement of a verification; the first one of a process is the slowest.
VERIFIED_FOR = 30  # Seconds for which the first page shows one verification; the Database page and `dbstatus` verify each time.
GROWTH = timedelta(days=30)
SPARK_POINTS = 30

# The histogram bounds of the planner statistics.
HISTOGRAMS_SQL = """
    SELECT st.tablename AS "table", st.histogram_bounds::text::timestamptz[] AS bounds
    FROM pg_catalog.pg_stats AS st
    JOIN unnest(%(tables)s::text[], %(columns)s::text[]) AS asked (name, time) ON st.tablename = asked.name AND st.attname = asked.time
    JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(asked.name))::oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = st.schemaname
    WHERE st.histogram_bounds IS NOT NULL
    ORDER BY st.tablename
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number on the first page: the rows of a table that match `where`; the list shows them with the parameters in `query`."""

    label: str
    where: Callable[[], models.Q]
    query: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True, slots=True)
class Tile:
    label: str
    value: Any
    url: str
    more: Any = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table on the first page; without statistics the growth is empty, without an index the last row of a large table."""

    name: str
    url: str
    count: Count
    growth: str = ""
    last: datetime | None = None
    spark: str = ""
    since: str = ""  # Where `spark` begins.
    reason: str = ""  # Why there is no `spark`.


@dataclass(frozen=True, slots=True)
class Known:
    """A verification, and when it was made, by the server's clock and by this process's."""

    verification: Verification
    at: datetime
    clock: float


_known: Known | None = None


def read_verification(milliseconds: int = VERIFYING) -> tuple[Verification | None, tuple[Finding, ...]]:
    """Return the verification, each statement within `milliseconds`; if it is not available, a finding says why."""
    with within(milliseconds):
        return verify_or_report(connection)


def read_report(**wanted: Any) -> Report:
    """Return the report that a page shows: the comparison within the deadline of a page, and the backups as they are known."""
    return compare_and_collect(connection, limited=within(VERIFYING), backups=read_backups(), **wanted)


def read_summary(**wanted: Any) -> tuple[Report, datetime]:
    """Return the report of the first page, and when its verification was made: at most VERIFIED_FOR seconds ago in this process."""
    global _known
    known = _known
    if known is not None and monotonic() - known.clock < VERIFIED_FOR:
        return collect(connection, verification=known.verification, backups=read_backups(), **wanted), known.at
    report = read_report(**wanted)
    if report.verification is not None:
        _known = Known(report.verification, report.at, monotonic())
    return report, report.at


def read_backups() -> BackupState:
    """Return the newest backups, as known for BACKUPS_KNOWN seconds: they may be far away."""
    return cache.get_or_set("fly2any.backups", lambda: read_newest(connection), BACKUPS_KNOWN)  # type: ignore[return-value]


def read_page(admins: list[tuple[Any, str]]) -> tuple[dict[type[models.Model], Table], list[Tile]]:
    """Return the tables of the first page, given ModelAdmins and the URLs of their lists, and their figures."""
    return read_tables(admins), read_tiles(admins)


def read_tables(admins: Iterable[tuple[Any, str]]) -> dict[type[models.Model], Table]:
    """Return the first page's entry for each model, given its ModelAdmin and the URL of its list."""
    admins = list(admins)
    stored = extents(admin.model for admin, _ in admins)
    numbers = {name: extent.estimate or 0 for name, extent in stored.items()}
    added = {admin.model: name for admin, _ in admins if (name := time_added(admin.model))}
    histograms = _histograms(added)
    lasts = _lasts({model: name for model in added if (name := time_of(model))})
    small = _counted([admin.model for admin, _ in admins if numbers.get(admin.opts.db_table, 0) <= MOST_COUNTED], added)
    tables = {}
    for admin, url in admins:
        model, table = admin.model, admin.opts.db_table
        estimate = numbers.get(table, 0)
        count, last = small.get(table, (Count(None), None))
        if estimate > MOST_COUNTED:
            count = Count(estimate, estimated=True)
        bounds = histograms.get(table, [])
        growth, drawn = _growth(bounds, estimate), _spark(bounds)
        since = f"since {bounds[0]:%b %Y}" if drawn else ""
        reason = "No rows" if count.number == 0 else "" if model in added else "No creation time"
        if not drawn and not reason and table in stored and stored[table].kind.is_of_citus:
            reason = f"Not known for a {stored[table].kind}"
        name = str(admin.opts.verbose_name_plural)
        tables[model] = Table(name, url, count, growth, lasts.get(table, last), drawn, since, reason)
    return tables


def _histograms(timed: Mapping[type[models.Model], str]) -> dict[str, list[datetime]]:
    columns = [_column(model, name) for model, name in timed.items()]
    with connection.cursor() as cursor:
        cursor.execute(HISTOGRAMS_SQL, {"tables": [model._meta.db_table for model in timed], "columns": columns})
        return dict(cursor.fetchall())


def _counted(
    small: Iterable[type[models.Model]], added: Mapping[type[models.Model], str]
) -> dict[str, tuple[Count, datetime | None]]:
    """Return the row counts and newest times of tables that are small according to the statistics, in one statement."""
    quote = connection.ops.quote_name
    parts = []
    for model in small:
        time = f"{quote(_column(model, added[model]))}::timestamptz" if model in added else "NULL::timestamptz"
        rows = f"SELECT {time} AS at FROM {quote(model._meta.db_table)} LIMIT {MOST_COUNTED + 1}"
        parts.append(f"SELECT '{model._meta.db_table}', count(*), max(at) FROM ({rows}) AS r")
    if not parts:
        return {}
    try:
        with within(), connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts))
            return {
                table: (Count(min(number, MOST_COUNTED), more=number > MOST_COUNTED), None if number > MOST_COUNTED else last)
                for table, number, last in cursor.fetchall()
            }
    except TooSlow:
        return {}


def _lasts(timed: Mapping[type[models.Model], str]) -> dict[str, datetime]:
    """Return the newest time of each table, read from the end of an index."""
    quote = connection.ops.quote_name
    parts = [
        f"SELECT '{model._meta.db_table}', max({quote(_column(model, name))}) FROM {quote(model._meta.db_table)}"
        for model, name in timed.items()
    ]
    if not parts:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts))
        return dict(cursor.fetchall())


def _column(model: type[models.Model], name: str) -> str:
    field: Any = model._meta.get_field(name)
    return field.column


def _growth(bounds: list[datetime], estimate: int) -> str:
    if len(bounds) < 2 or estimate < 1:
        return ""
    share = 1 - _rank(bounds, timezone.now() - GROWTH) / (len(bounds) - 1)
    return f"+{short(estimate * share)}" if share else "0"


def _rank(bounds: list[datetime], moment: datetime) -> float:
    """Return the number of bounds before `moment`, plus the fraction of the way to the next."""
    place = bisect_right(bounds, moment)
    if place in (0, len(bounds)):
        return float(max(0, place - 1))
    earlier, later = bounds[place - 1], bounds[place]
    return place - 1 + (moment - earlier) / (later - earlier)


def _spark(bounds: list[datetime]) -> str:
    """Return the rows added in each of SPARK_POINTS equal intervals from the first bound to the last."""
    if len(bounds) < SPARK_POINTS or bounds[0] == bounds[-1]:
        return ""
    if isinstance(bounds[0], Beyond) or isinstance(bounds[-1], Beyond):
        return ""
    step = (bounds[-1] - bounds[0]) / SPARK_POINTS
    # The last is not computed: rounded up, it could be beyond the last time that Python has.
    ends = [*(bounds[0] + step * place for place in range(SPARK_POINTS)), bounds[-1]]
    ranks = [_rank(bounds, end) for end in ends]
    counts = [later - earlier for earlier, later in pairwise(ranks)]
    return charts.spark(counts, f"Rows over time, {bounds[0]:%Y-%m-%d} to {bounds[-1]:%Y-%m-%d}")


def read_tiles(admins: Iterable[tuple[Any, str]]) -> list[Tile]:
    """Return the figures and the newest rows that the ModelAdmins put on the first page."""
    tiles = []
    for admin, url in admins:
        for figure in getattr(admin, "figures", ()):
            count = bounded(admin.model._base_manager.filter(figure.where()))
            query = urlencode(figure.query())
            tiles.append(Tile(figure.label, count, f"{url}?{query}" if query else url))
        label, time = getattr(admin, "newest", ""), time_of(admin.model)
        if label and time:
            row = admin.model._base_manager.order_by(f"-{time}").first()
            tiles.append(Tile(label, getattr(row, time) if row else None, url))
    return tiles
