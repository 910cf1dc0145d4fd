"""The workers and tables of a database that Citus distributes, and what is wrong with its nodes or with where its tables are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..findings import Finding, Severity
from ..schema.relation_kinds import Kind, Relation, read_relations
from ..sql import fetch_all, pinned
from ..units import plural
from .cluster import Node, read_cluster
from .plan import Planned, read_plan

DEADLINE = 5_000  # Milliseconds for each statement: a node may not answer.

# 1 is a shard in use; Citus reads no other placement.
INACTIVE_SQL = """
    SELECT c.relname::text, count(*), pg_catalog.string_agg(DISTINCT n.nodename || ':' || n.nodeport, ', ' ORDER BY n.nodename || ':' || n.nodeport)
    FROM pg_catalog.pg_dist_placement AS p JOIN pg_catalog.pg_dist_shard AS s ON s.shardid = p.shardid
    JOIN pg_catalog.pg_class AS c ON c.oid = s.logicalrelid::oid
    JOIN pg_catalog.pg_dist_node AS n ON n.groupid = p.groupid AND n.noderole = 'primary'
    WHERE p.shardstate <> 1 GROUP BY c.relname ORDER BY c.relname COLLATE "C"
"""
WORKER = Finding(
    Severity.ERROR, "distribution.worker", "Citus",
    "This server is a worker of Citus: the tables that are not distributed are on the coordinator.",
    "Set POSTGRES_URL to the coordinator.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Citus:
    """Citus: its version, and the numbers of its workers and of the tables that it distributes or copies to each node.

    `workers` is None if this server is one of them: they do not know how many there are.
    """

    version: str
    workers: int | None
    distributed: int
    reference: int

    def __str__(self) -> str:
        if self.workers is None:
            return f"Citus {self.version}, a worker: the coordinator has the tables"
        tables = f"{plural(self.distributed, 'distributed table')}, {plural(self.reference, 'reference table')}"
        return f"Citus {self.version}, {plural(self.workers, 'worker')}, {tables}"


def read_citus(connection, *, schema: str) -> tuple[Citus | None, tuple[Finding, ...]]:
    """Return what Citus distributes, None without Citus, and the findings about its nodes and tables."""
    with pinned(connection, lock=DEADLINE, statement=DEADLINE):
        cluster = read_cluster(connection)
        if not cluster.version:
            return None, ()
        relations = read_relations(connection, schema=schema)
        inactive = fetch_all(connection, INACTIVE_SQL)
    kinds = Counter(relation.kind for relation in relations.values())
    workers = None if cluster.group else sum(not node.is_coordinator for node in cluster.nodes)
    citus = Citus(cluster.version, workers, kinds[Kind.DISTRIBUTED], kinds[Kind.REFERENCE])
    return citus, (WORKER,) if workers is None else tuple(findings_of(cluster.nodes, relations, inactive))


def findings_of(
    nodes: Iterable[Node], relations: dict[str, Relation], inactive: Iterable[tuple[str, int, str]]
) -> Iterator[Finding]:
    """Yield what is wrong with nodes and tables; `inactive` has tables, numbers of copies of their shards, and nodes."""
    yield from (_silent(node) for node in nodes if node.error or not node.active)
    yield from (_inactive(*row) for row in inactive)
    if any(relation.kind in (Kind.DISTRIBUTED, Kind.REFERENCE) for relation in relations.values()):
        yield from _misplaced(relations)


def _silent(node: Node) -> Finding:
    if node.active:
        message = f"Node {node.name} does not answer ({node.error}): queries of its shards fail, and so do writes to reference tables."
        cure = "Start the node, or repair its network; if it is lost, restore it from its backup or standby and run SELECT citus_update_node(…)."
    else:
        message = f"Node {node.name} is disabled: queries of its shards fail."
        cure = "When the node runs again, as a superuser: SELECT citus_activate_node(…) with its host and port."
    return Finding(Severity.ERROR, "distribution.node", node.name, message, cure)


def _inactive(table: str, number: int, nodes: str) -> Finding:
    return Finding(
        Severity.ERROR, "distribution.shard", table,
        f"{plural(number, 'shard placement')} of {table} on {nodes} {'is' if number == 1 else 'are'} inactive, so Citus does not use {'it' if number == 1 else 'them'}.",
        "SELECT citus_copy_shard_placement(…) copies a shard from an active node; for a reference table, SELECT replicate_reference_tables();",
    )  # fmt: skip


def _misplaced(relations: dict[str, Relation]) -> Iterator[Finding]:
    for planned in read_plan():
        relation = relations.get(planned.table)
        if relation and not planned.holds(relation):
            yield _elsewhere(planned, relation)


def _elsewhere(planned: Planned, relation: Relation) -> Finding:
    return Finding(
        Severity.WARNING, "distribution.placement", planned.table,
        f"Table {planned.table} is a {relation.kind}, but the plan makes it a {planned.placement.value} table.",
        "Run `manage.py dbdistribute` to see the plan, and with --yes to carry it out.",
    )  # fmt: skip
