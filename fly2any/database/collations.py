"""Collations whose version is not the one that the indexes of the database were built with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .findings import Finding, Severity
from .sql import literal, quote

# The version that the database's indexes were built with and the one that the library has now, where they differ; from PostgreSQL
# 15 on. A library without versions (musl, in Alpine's images) has NULL. The builtin provider never changes an order.
OF_DATABASE_SQL = """(
    SELECT ARRAY[d.datcollversion, v.now]
    FROM pg_catalog.pg_database AS d CROSS JOIN LATERAL (SELECT pg_catalog.pg_database_collation_actual_version(d.oid) AS now) AS v
    WHERE d.datname = current_database() AND d.datcollversion IS DISTINCT FROM v.now AND (d.datcollversion IS NOT NULL OR d.datlocprovider <> 'b')
)"""
# Others that columns and indexes of our schema use, quoted, and whether REFRESH VERSION can record the version of now.
OTHERS_SQL = """ARRAY(
    SELECT DISTINCT ARRAY[quote_ident(cn.nspname) || '.' || quote_ident(co.collname), (co.collversion IS NOT NULL AND v.now IS NOT NULL)::text]
    FROM pg_catalog.pg_collation AS co JOIN pg_catalog.pg_namespace AS cn ON cn.oid = co.collnamespace
    CROSS JOIN LATERAL (SELECT pg_catalog.pg_collation_actual_version(co.oid) AS now) AS v
    JOIN pg_catalog.pg_attribute AS a ON a.attcollation = co.oid
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = home.schema AND co.collversion IS DISTINCT FROM v.now AND co.collprovider <> 'd'
      AND (co.collversion IS NOT NULL OR co.collprovider <> 'b')
    ORDER BY 1
)"""
# The indexes that REINDEX … CONCURRENTLY skips with a warning.
EXCLUSIONS_SQL = """ARRAY(
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
    FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE i.indisexclusion AND c.relkind = 'i' AND c.relpersistence <> 't'
    ORDER BY 1
)"""
HARM = "indexes on text may miss rows and let duplicates in"


def of_database(database: str, before: str | None, now: str | None, exclusions: Iterable[str]) -> Finding:
    """Return the finding about the database's own collation; a version is None if the library has none, as musl."""
    built = (
        f"with version {before} of its collation"
        if before
        else "with an unknown version of its collation (Alpine's images record none)"
    )
    name = quote(database)
    record = [f"ALTER DATABASE {name} REFRESH COLLATION VERSION;"]
    if not (before and now):
        record = [
            "-- As a superuser, because REFRESH COLLATION VERSION fails where one of the versions is missing:",
            "UPDATE pg_catalog.pg_database SET datcollversion = pg_catalog.pg_database_collation_actual_version(oid) WHERE datname = pg_catalog.current_database();",
        ]
    return Finding(
        Severity.ERROR, "server.collation", database,
        f"The indexes of {database} were built {built}, and the server now has {now or 'none'}: {HARM}.",
        "\n".join([*_rebuilt(name, exclusions), *record]), is_sql=True,
    )  # fmt: skip


def of_collations(database: str, collations: Iterable[list[str]], exclusions: Iterable[str]) -> Iterator[Finding]:
    """Yield the findings about other collations, rows of OTHERS_SQL."""
    for collation, refreshable in collations:
        record = [f"ALTER COLLATION {collation} REFRESH VERSION;"]
        if refreshable == "false":
            record = [
                "-- As a superuser, because REFRESH VERSION fails where one of the versions is missing:",
                f"UPDATE pg_catalog.pg_collation SET collversion = pg_catalog.pg_collation_actual_version(oid) WHERE oid = {literal(collation)}::regcollation;",
            ]
        yield Finding(
            Severity.ERROR, "server.collation", collation,
            f"The recorded version of the collation {collation}, which columns or indexes use, differs from the server's: {HARM}.",
            "\n".join([*_rebuilt(quote(database), exclusions), *record]), is_sql=True,
        )  # fmt: skip


def _rebuilt(database: str, exclusions: Iterable[str]) -> Iterator[str]:
    """Yield the statements that rebuild the indexes of every schema: the version is recorded once for all of them."""
    yield f"REINDEX DATABASE CONCURRENTLY {database};"
    if exclusions:
        yield "-- It skips exclusion constraints; these block writes to their tables while they are rebuilt:"
        yield from (f"REINDEX INDEX {index};" for index in exclusions)
