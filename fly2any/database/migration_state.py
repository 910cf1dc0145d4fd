"""Which migrations are applied, pending, or recorded without being known to the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.migrations.loader import MigrationLoader

from .catalog import quote
from .findings import Finding, Severity

RECORDS_SQL = """
    SELECT app || '.' || name AS name, applied FROM {schema}.django_migrations ORDER BY id
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
    known: tuple[str, ...]  # to the code, in the order of application
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


def known_migrations() -> dict[str, frozenset[str]]:
    """Return the code's migrations in the order of application, each with those that it needs."""
    graph = MigrationLoader(None).graph
    order = dict.fromkeys(node for leaf in graph.leaf_nodes() for node in graph.forwards_plan(leaf))
    return {".".join(node): frozenset(".".join(parent.key) for parent in graph.node_map[node].parents) for node in order}


def read_migrations(connection, *, schema: str, recorded: bool, readable: bool) -> MigrationState:
    """Return the state of the migrations; `recorded` and `readable` say whether `schema` has a ledger, and whether it may be read."""
    known = known_migrations()
    if recorded and not readable:
        return MigrationState(recorded, readable, (), (), (), tuple(known), ())
    applied: tuple[Applied, ...] = ()
    if recorded:
        with connection.cursor() as cursor:
            cursor.execute(RECORDS_SQL.format(schema=quote(schema)))
            applied = tuple(Applied(*row) for row in cursor.fetchall())
    names = {record.name for record in applied}
    return MigrationState(
        recorded,
        readable,
        applied,
        pending=tuple(name for name in known if name not in names),
        unknown=tuple(sorted(names.difference(known))),
        known=tuple(known),
        too_early=tuple(name for name, needs in known.items() if name in names and not needs <= names),
    )
