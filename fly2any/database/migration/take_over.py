"""Writes the migration that takes over a constraint or index that another program created on one of our tables; its operation is in postgres/take_over.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django.apps import apps
from django.db.migrations.loader import MigrationLoader

from fly2any.postgres.take_over import TakeOver

from ..durable import rename_exclusively
from ..errors import Refusal
from ..schema import Catalog, Check, ForeignKey, Index, Key, Object, where
from ..schema import contract as contracts
from ..schema.contract import PHASE7_APPS
from ..sql import fetch_all, quote

# What a new database lacks of what a constraint or an index is built with, apart from functions and operators; a constraint's index has
# its name. A migration creates pg_trgm.
PARTS_SQL = """
    SELECT pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT 'pg_catalog.pg_constraint'::regclass, k.oid FROM pg_catalog.pg_constraint AS k
        WHERE k.conrelid = c.oid AND k.conname = %(name)s
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass, x.oid FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND x.relname = %(name)s
    ) AS o (class, object)
    JOIN pg_catalog.pg_depend AS d ON d.classid = o.class AND d.objid = o.object
    WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND d.refobjid >= 16384
      AND d.refclassid IN ('pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_collation'::regclass,
                           'pg_catalog.pg_ts_config'::regclass, 'pg_catalog.pg_ts_dict'::regclass)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS m JOIN pg_catalog.pg_extension AS e ON e.oid = m.refobjid
                      WHERE m.classid = d.refclassid AND m.objid = d.refobjid AND m.deptype = 'e'
                        AND m.refclassid = 'pg_catalog.pg_extension'::regclass AND e.extname = 'pg_trgm')
    ORDER BY 1
"""
FILE = '''"""Takes over {name} of {table}, which another program created: it is created if it does not exist."""

from django.db import migrations

from fly2any.postgres.take_over import TakeOver


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ({app!r}, {last!r}),
    ]

    operations = [
        TakeOver(
            {table!r},
            {name!r},
            [
{statements}
            ],
        ),
    ]
'''


def take_over(connection, place: str, unmanaged: Catalog, *, schema: str) -> Path:
    """Write the migration that takes over the unmanaged object at `place` (table.name), and return its path.

    Raises Refusal if there is none, if a new database could not have it, or if another migration takes it over already.
    """
    kinds: list[Object] = [*unmanaged.keys, *unmanaged.checks, *unmanaged.foreign_keys, *unmanaged.indexes]
    thing = next((one for one in kinds if where(one) == place), None)
    if thing is None:
        raise Refusal(
            f"There is no unmanaged constraint or index at {place}; `manage.py dbstatus -v 2` lists unmanaged objects."
        )
    if why := _why_not(thing, contracts.catalog_of(version for version in contracts.load().versions if version.until is None)):
        raise Refusal(f"{thing.name} cannot be taken over: {why}.")
    for (part,) in fetch_all(connection, PARTS_SQL, {"schema": schema, "table": thing.table, "name": thing.name}):
        raise Refusal(f"{thing.name} cannot be taken over: it needs the {part}, which no migration creates.")
    loader = MigrationLoader(None)
    if taken := _taken_over_by(loader, thing):
        raise Refusal(f"The migration {taken} takes over {place}: run `manage.py dbcontract` and `manage.py migrate`.")
    app = next(model._meta.app_label for model in apps.get_models() if model._meta.db_table == thing.table)
    ((_, last),) = loader.graph.leaf_nodes(app)
    slug = re.sub(r"\W+", "_", thing.name.lower()).strip("_")[:40]
    path = Path(apps.get_app_config(app).path, "migrations", f"{int(last[:4]) + 1:04}_take_over_{slug}.py")
    part = path.with_suffix(".part")
    try:
        part.write_text(_source(thing, app, last), encoding="utf-8")
        rename_exclusively(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise Refusal(
            f"Cannot write {path} ({error.strerror}): run the command in a checkout that you can write to."
        ) from error
    return path


def _taken_over_by(loader: MigrationLoader, thing: Object) -> str:
    """Return the migration that takes over `thing`, "" if none does."""
    for node, migration in loader.graph.nodes.items():
        for operation in migration.operations:
            if isinstance(operation, TakeOver) and (operation.table, operation.name) == (thing.table, thing.name):
                return ".".join(node)
    return ""


def _source(thing: Object, app: str, last: str) -> str:
    statements = "\n".join(f"                {statement!r}," for statement in _statements(thing))
    file = FILE.format(name=thing.name, table=thing.table, app=app, last=last, statements=statements)
    if not thing.name.isidentifier():  # A quote or a backslash could end the string.
        file = file.replace(f"Takes over {thing.name} of", "Takes over the object below of", 1)
    return file


def _why_not(thing: Object, expected: Catalog) -> str:
    ours = {model._meta.db_table for model in apps.get_models() if model._meta.app_label in PHASE7_APPS}
    if thing.table not in ours:
        return f"{thing.table} is not a table of this project"
    used = {*getattr(thing, "columns", ()), *getattr(thing, "include", ())}
    if isinstance(thing, Index):
        used = {*thing.uses, *thing.include}
    managed = {column.name for column in expected.columns if column.table == thing.table}
    if unmanaged := sorted(used - managed):
        return f"it needs the unmanaged column {unmanaged[0]}, so add that to the model first"
    if not getattr(thing, "own", True):
        return "it calls a function that no migration creates"
    if isinstance(thing, ForeignKey) and thing.target not in {table.name for table in expected.tables}:
        return f"it refers to {thing.target}, which no migration creates"
    return ""


def _statements(thing: Object) -> Iterator[str]:
    """Yield the statements that create `thing`: only a unique or exclusion constraint blocks reads and writes while rows are read."""
    alter = f"ALTER TABLE {quote(thing.table)}"
    if isinstance(thing, Index):
        yield thing.sql()
    elif isinstance(thing, Check | ForeignKey) and thing.enforced and not _is_exclusion(thing):
        yield f"{alter} ADD {thing.sql()} NOT VALID"
        if thing.valid:  # Otherwise the other program accepted that older rows violate it.
            yield f"{alter} VALIDATE CONSTRAINT {quote(thing.name)}"
    elif isinstance(thing, Check | ForeignKey | Key):
        yield f"{alter} ADD {thing.sql()}"


def _is_exclusion(thing: Check | ForeignKey) -> bool:
    return isinstance(thing, Check) and not thing.expression.startswith("CHECK ")
