"""Queries that are slow or take most of the total time (pg_stat_statements)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db import Error, transaction

from ..errors import sqlstate
from ..findings import Finding, Severity
from ..redaction import without_literals
from ..session_defaults import CONFIGURED_SQL, reset, sessions_of
from ..sql import quote, unpinned
from ..units import plural, share, span
from .examine import Figure, Reader
from .planning import MORE_VALUES, Planning
from .sessions import WRITES_SQL

INSTALLED_SQL = """
    SELECT n.nspname AS schema, e.extversion AS version FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements'
"""
LONGEST = 10_000  # Characters of a query that are read: a list of parameters may have hundreds of kilobytes.
# Each query of several roles is one. Those that this role may not see have no ID.
SLOWEST_SQL = f"""
    SELECT min(s.queryid)::text AS id, COALESCE(max(s.text) FILTER (WHERE s.own), max(s.text), '') AS query, sum(s.calls)::bigint AS calls,
           COALESCE(sum(s.total_exec_time) / NULLIF(sum(s.calls), 0), 0)::float8 / 1000 AS mean, sum(s.total_exec_time) / 1000 AS total,
           bool_or(s.own) AS own
    FROM (SELECT s.*, s.userid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) AS own, pg_catalog.left(s.query, {LONGEST}) AS text, pg_catalog.row_number() OVER () AS number
          FROM {{schema}}.pg_stat_statements AS s
          WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) AND s.toplevel) AS s
    GROUP BY COALESCE(s.queryid::text, 'hidden ' || s.number)
    ORDER BY total DESC
"""
# Where the statements of sessions are not counted; for one role, only if it writes our tables: a monitor's may be left out on purpose.
UNCOUNTED_SQL = f"""
    SELECT c.place, current_database()::text AS database
    FROM ({CONFIGURED_SQL}) AS c LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = c.role
    WHERE c.name = 'pg_stat_statements.track' AND c.value ~* '^none$' AND (r.oid IS NULL OR {WRITES_SQL}) ORDER BY 1
"""

# Why query statistics are not collected or not readable, by SQLSTATE.
STATES = {
    "55000": (
        "The extension pg_stat_statements is installed, but the server did not load it, so nothing is counted.",
        "Add pg_stat_statements to shared_preload_libraries, unless it is there already, and restart the server. ALTER SYSTEM needs each name"
        " in quotes of its own (SET shared_preload_libraries TO 'auto_explain', 'pg_stat_statements';): otherwise the server does not start.",
    ),
    "42501": (
        "This role may not read pg_stat_statements.",
        "Grant it SELECT on pg_stat_statements and EXECUTE on its functions; a member of pg_monitor also sees other roles' queries.",
    ),
    "42703": (
        "The extension pg_stat_statements is older than version 1.9, the first that distinguishes top-level statements from those inside functions.",
        "ALTER EXTENSION pg_stat_statements UPDATE;",
    ),
}
HIDDEN = "<insufficient privilege>"
UNKNOWN = {HIDDEN: "a query whose text this role cannot see", "": "a query whose text the server has lost"}
# Queries of the catalogue, of this project, of backups, migrations and maintenance: the statistics name no program.
OURS = re.compile(
    r"^\s*(COPY|DECLARE|FETCH|CLOSE|VACUUM|ANALYZE|REINDEX|CREATE|ALTER|DROP|LOCK|SET|SHOW|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b"
    r"|\b(pg_catalog|information_schema)\.|\b(django_migrations|fly2any_migration_runs)\b|\bpg_(try_)?advisory_",
    re.IGNORECASE,
)
PLANNED = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
# What EXPLAIN and indexes can help, also behind a comment, as Rails and sqlcommenter add it; not CALL, DO, REFRESH, … Another role chooses
# the text, so that nothing is matched twice.
TUNABLE = re.compile(
    r"(?:\s|\(|(?>/\*.*?\*/)|--[^\n]*\n)*+(SELECT|WITH|INSERT|UPDATE|DELETE|MERGE|VALUES|TABLE|PREPARE)\b",
    re.IGNORECASE | re.DOTALL,
)


def queries(
    read: Reader, *, slow: float = 0.5, calls: int = 20, most: float = 0.3, busy: float = 600, shown: int = 5
) -> Iterator[Figure | Finding]:
    """Report queries that take `slow` seconds or more on average, or more than `most` of all time once that is `busy` seconds."""
    installed = read(INSTALLED_SQL)
    if not installed:
        yield Figure("queries", "not counted: the extension pg_stat_statements is not installed")
        yield Finding(
            Severity.NOTE, "queries.not_counted", "pg_stat_statements",
            "Query statistics are not collected (pg_stat_statements is missing).",
            "Add pg_stat_statements to shared_preload_libraries, restart the server, and run CREATE EXTENSION pg_stat_statements.",
        )  # fmt: skip
        return
    try:
        with transaction.atomic(using=read.connection.alias):
            counted = read(SLOWEST_SQL.format(schema=quote(installed[0].schema)))
    except Error as error:
        if (state := sqlstate(error)) not in STATES:
            raise
        message, cure = STATES[state]
        yield Figure("queries", f"not known: version {installed[0].version} of pg_stat_statements is installed")
        yield Finding(Severity.WARNING, "queries.not_counted", "pg_stat_statements", message, cure)
        return
    for row in read(UNCOUNTED_SQL):
        message = f"{sessions_of(row.place)} begin with pg_stat_statements.track = none, so that their queries are not counted."
        cure = f"As a superuser: {reset('pg_stat_statements.track', row.place, row.database)[0]}"
        yield Finding(Severity.WARNING, "queries.not_counted", row.place, message, cure)
    if hidden := sum(row.query == HIDDEN for row in counted):
        yield Figure("queries of other roles", f"{hidden}, whose text this role cannot see (GRANT pg_read_all_stats)", hidden)
    rows = [row for row in counted if not OURS.search(row.query)]
    whole = sum(row.total for row in rows)
    yield Figure("time in queries", span(whole), whole, "query_seconds")
    planning = Planning(read)
    of = functools.cache(lambda place: _of(read, rows[place], planning))  # Each query is planned only once.
    by_mean = sorted(range(len(rows)), key=lambda place: -rows[place].mean)
    for place in dict.fromkeys([*range(min(shown, len(rows))), *by_mean[:shown]]):
        row = rows[place]
        ranks = f"no. {by_mean.index(place) + 1} by mean, no. {place + 1} by total with {share(row.total / whole if whole else 0)} of the time"
        yield Figure(
            _text(row.query),
            f"{plural(row.calls, 'call')}, {span(row.mean)}{' each' if row.calls > 1 else ''}, {ranks}{of(place)}",
            row.mean,
        )
    yield from _demanding(rows, of, whole, slow=slow, calls=calls, most=most, busy=busy)


def _demanding(rows, of, whole: float, *, slow: float, calls: int, most: float, busy: float) -> Iterator[Finding]:
    """Yield the queries that take long on average, or much of all time."""
    for place, row in enumerate(rows):
        if row.query not in UNKNOWN and not TUNABLE.match(row.query):
            continue
        if row.calls >= calls and row.mean >= slow:
            yield Finding(
                Severity.WARNING, "queries.slow", f"query {row.id}",
                f"{_subject(row.query)} takes {span(row.mean)} on average over {plural(row.calls, 'call')} (limit {span(slow)}){of(place)}.",
                f"Run EXPLAIN (ANALYZE, BUFFERS) on it; add a missing index by a migration, or select fewer rows and columns.{_count_anew(row.id)}",
            )  # fmt: skip
        elif whole > busy and row.total > most * whole:
            yield Finding(
                Severity.NOTE, "queries.heavy", f"query {row.id}",
                f"{_subject(row.query)} takes {share(row.total / whole)} of all time in queries (limit {share(most)}), {plural(row.calls, 'call')} of {span(row.mean)}{of(place)}.",
                f"Run EXPLAIN (ANALYZE, BUFFERS) on it, or run it less often.{_count_anew(row.id)}",
            )  # fmt: skip


def _count_anew(id: str | None) -> str:
    return f" Its earlier calls count until: SELECT pg_stat_statements_reset(0, 0, {id});" if id else ""


def _text(query: str) -> str:
    return UNKNOWN.get(query) or without_literals(query)


def _subject(query: str) -> str:
    """Return a query between quotation marks, or what is known of it, as the beginning of a sentence."""
    text = _text(query)
    return f"{text[0].upper()}{text[1:]}" if query in UNKNOWN else f"“{text}”"


def _of(read: Reader, row, planning: Planning) -> str:
    """Return a clause that names the models a query reads or writes, and the indexes it uses."""
    models = {model._meta.db_table: model._meta.label for model in apps.get_models()}
    names = re.findall(r'(?:FROM|JOIN|UPDATE|INTO)\s+"?(?:\w+"?\.)?"?(\w+)', row.query, re.IGNORECASE)
    found = [models[name] for name in dict.fromkeys(names) if name in models]
    return "".join([f", on {', '.join(found)}" if found else "", *(_by(read, row, planning) if found else ())])


def _by(read: Reader, row, planning: Planning) -> Iterator[str]:
    """Yield how the server reads the tables of a query: PostgreSQL 16 or later plans it without its values.

    Only for queries that this role ran, and that planning.py allows: planning calls functions as this role.
    """
    if not row.own or not PLANNED.match(row.query) or read.connection.pg_version < 160000:
        return
    query = row.query.replace(MORE_VALUES, " ")
    if len(row.query) >= LONGEST:
        yield ", not planned, because its text is too long"
        return
    if prevented := planning.prevented(query):
        yield f", not planned, because {prevented}"
        return
    path = f"pg_catalog, {quote(read.schema)}, pg_temp"
    try:
        with unpinned(read.connection, lock=100, statement=500), read.connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", [path])
            cursor.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {query}")
            (plan,) = cursor.fetchone()
    except Error:
        return  # An object was dropped, or a parameter needs a type.
    nodes = list(_nodes(plan[0]["Plan"]))
    indexes = sorted({node["Index Name"] for node in nodes if "Index Name" in node})
    whole = sorted({node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"})
    yield f", by {', '.join(indexes)}" if indexes else ""
    yield f", reading all of {', '.join(whole)}" if whole else ""


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
