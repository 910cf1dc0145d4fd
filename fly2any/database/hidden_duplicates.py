"""Duplicates that indexes of another version of a collation let in: they prevent the rebuild of a unique index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .findings import Finding
from .schema.cures import comment, duplicates
from .schema.objects import Catalog, Key, Table
from .schema.type_changes import is_text

# An index that misses rows would hide duplicates of them.
OF_TABLES = "Read the tables, not their indexes: SET enable_indexscan TO off; SET enable_indexonlyscan TO off;"


def with_duplicates(finding: Finding, actual: Catalog, ours: Iterable[Table]) -> Finding:
    """Return `finding` with the queries for duplicates in the tables `ours` before the cure that rebuilds all indexes; others as they are.

    Primary keys are left out: their values are random or numbers, and are generated only once.
    """
    if finding.code != "server.collation" or not (keys := _of_text(actual, {table.name for table in ours})):
        return finding
    queries = [comment(f"Remove duplicates first: {duplicates(key)}") for key in keys]
    return replace(finding, cure="\n".join([comment(OF_TABLES), *queries, finding.cure]))


def _of_text(actual: Catalog, tables: set[str]) -> list[Key]:
    texts = {(column.table, column.name) for column in actual.columns if is_text(column.type)}
    keys = (key for key in actual.keys if key.table in tables and not key.primary)
    return [key for key in keys if any((key.table, name) in texts for name in key.columns)]
