"""The kinds of relations, by where their rows are: in their own blocks, in partitions, or in the shards of Citus.

Every reader of blocks, ctid, estimates, sizes or statistics asks here first: a partitioned table has no blocks of its own, and
what Citus distributes is an empty table on the coordinator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..errors import Refusal
from ..sql import fetch_all, fetch_one


class Kind(StrEnum):
    """The kind of a relation, in words."""

    PLAIN = "plain table"
    PARTITIONED = "partitioned table"
    DISTRIBUTED = "distributed table"  # Its rows are in shards on the workers.
    REFERENCE = "reference table"  # Each node has all its rows, in one shard.
    MANAGED = "local table of Citus"  # Its rows are in one shard on the coordinator: a foreign key leads to a reference table.
    FOREIGN = "foreign table"
    VIEW = "view"

    @property
    def has_blocks(self) -> bool:
        """Whether a walk along the relation's own blocks sees all its rows."""
        return self is Kind.PLAIN

    @property
    def is_of_citus(self) -> bool:
        return self in (Kind.DISTRIBUTED, Kind.REFERENCE, Kind.MANAGED)


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation of a schema, and the id of Citus' group of tables whose shards lie side by side, None if it has none."""

    name: str
    oid: int
    kind: Kind
    colocation: int | None = None


OF_POSTGRES = {"r": Kind.PLAIN, "p": Kind.PARTITIONED, "f": Kind.FOREIGN, "v": Kind.VIEW, "m": Kind.VIEW}

# Only a superuser creates objects in pg_catalog, so no other role can subvert what reads it.
HAS_CITUS_SQL = "(pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL)"
RELATIONS_SQL = f"""
    SELECT c.relname, c.oid::bigint, c.relkind, {HAS_CITUS_SQL} FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'f', 'v', 'm') ORDER BY c.relname COLLATE "C"
"""
PLACED_SQL = """
    SELECT p.logicalrelid::oid::bigint, p.partmethod = 'h', p.repmodel = 't', p.colocationid
    FROM pg_catalog.pg_dist_partition AS p ORDER BY 1
"""
DISTRIBUTED_SQL = """
    SELECT pg_catalog.array_agg(c.relname::text) FROM pg_catalog.pg_dist_partition AS p
    JOIN pg_catalog.pg_class AS c ON c.oid = p.logicalrelid::oid WHERE p.partmethod = 'h'
"""

WORKER_SQL = "SELECT g.groupid <> 0 FROM pg_catalog.pg_dist_local_group AS g"  # The coordinator is group 0.


def has_citus(connection) -> bool:
    """Return whether the database has the extension Citus."""
    return fetch_one(connection, f"SELECT {HAS_CITUS_SQL}")[0]


def read_placed(connection) -> dict[int, tuple[Kind, int | None]]:
    """Return the kind of each table of Citus, which the database must have, and the id of its group, by oid."""
    return {
        oid: (Kind.DISTRIBUTED if by_hash else Kind.REFERENCE if everywhere else Kind.MANAGED, colocation or None)
        for oid, by_hash, everywhere, colocation in fetch_all(connection, PLACED_SQL)
    }


def read_relations(connection, *, schema: str) -> dict[str, Relation]:
    """Return the relations of `schema`, by name."""
    found = fetch_all(connection, RELATIONS_SQL, {"schema": schema})
    placed = read_placed(connection) if any(citus for *_, citus in found) else {}
    return {name: Relation(name, oid, *placed.get(oid, (OF_POSTGRES[letter], None))) for name, oid, letter, _ in found}


def refuse_on_worker(connection) -> None:
    """Raise Refusal if this server is a worker of Citus, which lacks the tables that are not distributed."""
    if has_citus(connection) and fetch_one(connection, WORKER_SQL)[0]:
        raise Refusal("This server is a worker of Citus: set POSTGRES_URL to the coordinator, and run the command again.")
