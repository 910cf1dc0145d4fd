"""Prisma's own record of its migrations. other_tools.py decides whether a database is Prisma's and not adopted.

run.py and watcher.py cancel a `prisma migrate deploy` that waits for the migration lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..schema import Catalog
from ..schema.protected_tables import PRISMAS_LEDGER
from ..sql import fetch_all, fetch_one, quote

PRISMA_SQL = """
    SELECT migration_name AS name, finished_at AS finished, rolled_back_at AS rolled_back
    FROM {schema}._prisma_migrations ORDER BY started_at, id
"""


@dataclass(frozen=True, slots=True)
class PrismaMigration:
    name: str
    finished: datetime | None
    rolled_back: datetime | None

    @property
    def applied(self) -> bool:
        """Return whether the migration is in effect; one that was marked as rolled back after it had finished is not."""
        return self.finished is not None and self.rolled_back is None

    @property
    def failed(self) -> bool:
        return self.finished is None and self.rolled_back is None


def may_read(connection, schema: str) -> bool:
    """Return whether this role may read Prisma's record."""
    place = f"{quote(schema)}.{PRISMAS_LEDGER}"
    return fetch_one(connection, "SELECT pg_catalog.has_table_privilege(%s, 'SELECT')", [place])[0]


def read_prisma(connection, *, schema: str, catalog: Catalog) -> tuple[PrismaMigration, ...]:
    """Return what Prisma recorded in `schema`, oldest first; () if there is no record that this role may read and trusts."""
    columns = {column.name for column in catalog.columns if column.table == PRISMAS_LEDGER}
    if not columns.issuperset(["id", "migration_name", "started_at", "finished_at", "rolled_back_at"]):
        return ()
    if not all(table.trusted for table in catalog.tables if table.name == PRISMAS_LEDGER) or not may_read(connection, schema):
        return ()
    return tuple(PrismaMigration(*row) for row in fetch_all(connection, PRISMA_SQL.format(schema=quote(schema))))
