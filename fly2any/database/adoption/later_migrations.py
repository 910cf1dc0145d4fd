"""The migrations that run after an adoption, as steps: with their effects on existing tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from django.db.migrations.loader import MigrationLoader

from ..migration.lazy_state import LazyState
from ..schema import Catalog
from .steps import Step


def later_steps(connection, migrations: Iterable[str], live: Catalog) -> tuple[Step, ...]:
    """Return a step for each of `migrations`, with its statements that lock a table of `live`."""
    tables, steps = {table.name for table in live.tables}, []
    for name, lines in _collected(connection, set(migrations)):
        statements = [
            statement.strip()
            for statement in re.split(r";\s*(?:\n|$)", "\n".join(line for line in lines if not line.startswith("--")))
        ]
        touched = {statement: tables.intersection(re.findall(r'"([^"]+)"', statement)) for statement in statements}
        locking = tuple(
            statement for statement in statements if touched[statement] and not statement.startswith("CREATE TABLE")
        )
        on = ", ".join(sorted(set().union(*(touched[statement] for statement in locking))))
        steps.append(Step(on, f"migration {name}", (locking,)))
    return tuple(steps)


def _collected(connection, names: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each migration in `names` and its SQL, in the order in which they run."""
    loader = MigrationLoader(None, replace_migrations=False)  # The pending migrations are known, so the record is not read.
    state = LazyState({}, loader.unmigrated_apps)
    for key in dict.fromkeys(key for leaf in loader.graph.leaf_nodes() for key in loader.graph.forwards_plan(leaf)):
        migration = loader.graph.nodes[key]
        if str(migration) not in names:
            state = migration.mutate_state(state, preserve=False)
            continue
        with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
            state = migration.apply(state.prepared_for(migration), editor, collect_sql=True)
        yield str(migration), editor.collected_sql
