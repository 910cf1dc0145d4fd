"""The migrations that run after an adoption, as steps: with their effects on existing tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.db.migrations.loader import MigrationLoader

from ..schema import Catalog
from .steps import Step


def later_steps(connection, migrations: Iterable[str], live: Catalog) -> tuple[Step, ...]:
    """Return a step for each of `migrations`, with those of its statements that lock a table of `live`."""
    loader = MigrationLoader(None, replace_migrations=False)  # Which are pending is known: the record is not read.
    loader.connection = connection
    tables = {table.name for table in live.tables}
    steps = []
    for name in migrations:
        migration = loader.graph.nodes[tuple(name.split(".", 1))]
        lines = "\n".join(line for line in loader.collect_sql([(migration, False)]) if not line.startswith("--"))
        statements = [statement.strip() for statement in re.split(r";\s*(?:\n|$)", lines)]
        touched = {statement: tables.intersection(re.findall(r'"([^"]+)"', statement)) for statement in statements}
        locking = tuple(
            statement for statement in statements if touched[statement] and not statement.startswith("CREATE TABLE")
        )
        on = ", ".join(sorted(set().union(*(touched[statement] for statement in locking))))
        steps.append(Step(on, f"migration {name}", (locking,)))
    return tuple(steps)
