"""The plan: the models' `placement` declarations, for each table that our migrations build.

steps.py compares it with the current placement, and run.py carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..facts import Placement, column_of, declared
from ..schema import Table
from ..schema.contract import load
from ..schema.relation_kinds import Kind, Relation

KINDS = {
    Placement.REFERENCE: frozenset({Kind.REFERENCE}),
    Placement.DISTRIBUTED: frozenset({Kind.DISTRIBUTED}),
    Placement.LOCAL: frozenset(Kind) - {Kind.REFERENCE, Kind.DISTRIBUTED},
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A table's placement, and the column whose hash selects the node of a row, "" unless it is distributed."""

    table: str
    placement: Placement
    key: str = ""

    def holds(self, relation: Relation) -> bool:
        """Return whether the table is placed so."""
        return relation.kind in KINDS[self.placement]


def _planned() -> Iterator[Planned]:
    for model, placement in declared("placement"):
        key = column_of(model, model._meta.pk.name) if placement is Placement.DISTRIBUTED else ""
        yield Planned(model._meta.db_table, placement, key)


def read_plan() -> tuple[Planned, ...]:
    """Return the plan in the order in which it is carried out: first reference tables, because keys of the others lead to them."""
    tables = {
        version.object.table for version in load().versions if isinstance(version.object, Table) and version.until is None
    }
    placed = [one for one in _planned() if one.table in tables]  # In the order of the apps, whose keys lead to earlier ones.
    order = [*Placement]
    local = (Planned(table, Placement.LOCAL) for table in sorted(tables - {one.table for one in placed}))
    return (*sorted(placed, key=lambda one: order.index(one.placement)), *local)
