"""The steps from the current placement of the tables to the planned one, and what each node stores of them (rows, bytes, skew).

A table above ONLINE is copied while the site writes to it. plan.py reads the placement that the models declare, and run.py carries
out the steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Refusal
from ..facts import Placement
from ..schema.relation_kinds import Kind, Relation, read_relations
from ..schema.sizes_and_use import read_extents, read_shares
from ..server import read_schema
from .cluster import Cluster
from .plan import Planned, read_plan

ONLINE = 64 * 1024**2  # Bytes above which a table's rows are copied while the site writes to it.


@dataclass(frozen=True, slots=True)
class Stored:
    """What a node stores of a table, by the estimates of its statistics."""

    node: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """A table with its planned and its current placement."""

    planned: Planned
    kind: Kind
    stored: tuple[Stored, ...]

    @property
    def done(self) -> bool:
        return self.kind in (Kind.REFERENCE, Kind.DISTRIBUTED)

    @property
    def rows(self) -> int:
        """Return the rows of the table, which each node has if it is a reference table."""
        rows = [one.rows for one in self.stored]
        return max(rows, default=0) if self.kind is Kind.REFERENCE else sum(rows)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.stored)

    @property
    def online(self) -> bool:
        """Return whether the site writes to the table while its rows are copied."""
        return self.planned.placement is Placement.DISTRIBUTED and self.bytes > ONLINE


@dataclass(frozen=True, slots=True)
class Distribution:
    """The plan, with the current placement of each table that exists; `others` are tables that stay on the coordinator."""

    cluster: Cluster
    steps: tuple[Step, ...]
    others: tuple[Relation, ...]

    @property
    def done(self) -> bool:
        return all(step.done for step in self.steps)

    @property
    def nodes(self) -> dict[str, Stored]:
        """Return what each node stores of these tables, by its name."""
        parts = [one for step in self.steps for one in step.stored]
        return {
            node.name: Stored(
                node.name, *(sum(getattr(one, of) for one in parts if one.node == node.name) for of in ("rows", "bytes"))
            )
            for node in self.cluster.nodes
        }

    @property
    def skew(self) -> float | None:
        """Return how much of the distributed tables the fullest worker holds, as a multiple of the average; None without any."""
        parts = [one for step in self.steps if step.kind is Kind.DISTRIBUTED for one in step.stored]
        held = [sum(one.bytes for one in parts if one.node == node.name) for node in self.cluster.workers]
        return max(held) * len(held) / sum(held) if sum(held) else None


def read_distribution(connection, cluster: Cluster) -> Distribution:
    """Return the plan and how much of it is done."""
    schema = read_schema(connection)
    relations = read_relations(connection, schema=schema)
    plan = [one for one in read_plan() if one.placement is not Placement.LOCAL and one.table in relations]
    stored = _read_stored(connection, cluster, schema)
    steps = tuple(Step(one, relations[one.table].kind, stored.get(one.table, ())) for one in plan)
    placed = {step.planned.table for step in steps}
    others = tuple(one for one in relations.values() if one.name not in placed and one.kind in (Kind.PLAIN, Kind.MANAGED))
    return Distribution(cluster, steps, others)


def _read_stored(connection, cluster: Cluster, schema: str) -> dict[str, tuple[Stored, ...]]:
    here = next(node.name for node in cluster.nodes if node.is_coordinator)
    found = {
        extent.name: [Stored(here, extent.rows or 0, extent.bytes or 0)]
        for extent in read_extents(connection, schema=schema).values()
        if not extent.kind.is_of_citus
    }
    names = {node.id: node.name for node in cluster.nodes}
    for node, tables, error in read_shares(connection, schema=schema):
        if error:  # Its rows would count as 0.
            raise Refusal(f"The node {names[node]} does not answer ({error}): repair or remove it, and run the command again.")
        for table, (rows, size) in tables.items():
            found.setdefault(table, []).append(Stored(names[node], rows, size))
    return {table: tuple(parts) for table, parts in found.items()}
