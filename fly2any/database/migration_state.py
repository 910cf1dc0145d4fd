"""Which migrations are applied, pending, or recorded without being known to the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import migrations
from django.db.migrations.loader import MigrationLoader

from .findings import Finding, Severity

RECORDS_SQL = """
    SELECT app || '.' || name AS name, applied FROM {table} ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Applied:
    name: str  # app.migration
    at: datetime


@dataclass(frozen=True, slots=True)
class MigrationState:
    recorded: bool  # whether there is a table of records
    readable: bool  # whether this role may read it
    applied: tuple[Applied, ...]
    pending: tuple[str, ...]  # in the order in which `migrate` would apply them
    unknown: tuple[str, ...]
    too_early: tuple[str, ...]  # applied, though a migration they need is not

    def findings(self) -> Iterator[Finding]:
        if not self.readable:
            yield Finding(
                Severity.NOTE,
                "migrations.unreadable",
                "django_migrations",
                "This role may not read django_migrations, so the schema is compared as if every migration were applied.",
                "GRANT SELECT ON django_migrations to the role, or connect as one that may read it.",
            )
        for name in self.unknown:
            yield Finding(
                Severity.WARNING,
                "migrations.unknown",
                name,
                f"The migration {name} is recorded as applied, but this code does not have it: newer code, or another branch, ran here.",
                "Deploy the code that has it, or reverse it with that code.",
            )
        for name in self.too_early:
            yield Finding(
                Severity.ERROR,
                "migrations.out_of_order",
                name,
                f"The migration {name} is recorded as applied before one that it needs, so `migrate` will refuse to run.",
                "Correct the rows of django_migrations to what really ran here.",
            )


def known_migrations() -> tuple[tuple[str, ...], dict[str, migrations.Migration]]:
    """Return the names of the code's migrations in the order of application, and the migrations by name."""
    graph = MigrationLoader(None).graph
    order = dict.fromkeys(node for leaf in graph.leaf_nodes() for node in graph.forwards_plan(leaf))
    return tuple(map(".".join, order)), {".".join(node): graph.nodes[node] for node in order}


def read_migrations(connection, *, recorded: bool, readable: bool) -> MigrationState:
    """Return the state of the migrations; `recorded` and `readable` say whether django_migrations exists and may be read."""
    order, nodes = known_migrations()
    applied: tuple[Applied, ...] = ()
    if recorded and readable:
        with connection.cursor() as cursor:
            cursor.execute(RECORDS_SQL.format(table=connection.ops.quote_name("django_migrations")))
            applied = tuple(Applied(*row) for row in cursor.fetchall())
    elif recorded:
        return MigrationState(recorded, readable, (), (), (), ())
    names = {record.name for record in applied}
    return MigrationState(
        recorded,
        readable,
        applied,
        pending=tuple(name for name in order if name not in names),
        unknown=tuple(sorted(names.difference(order))),
        too_early=tuple(name for name in order if name in names and not _needs(nodes[name], nodes) <= names),
    )


def _needs(migration: migrations.Migration, nodes: dict[str, migrations.Migration]) -> set[str]:
    """Return the names of the migrations that `migration` needs; those of `__first__` and swappable form are Django's to resolve."""
    return {name for name in map(".".join, migration.dependencies) if name in nodes}
