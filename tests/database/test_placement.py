"""The plan by which `dbdistribute` places tables on nodes needs no other key or constraint than the contract has."""

import pytest

from fly2any.database.distribution.plan import Planned, read_plan
from fly2any.database.facts import Placement
from fly2any.database.schema import ForeignKey, Index, Key, Table
from fly2any.database.schema.contract import load
from fly2any.database.schema.relation_kinds import Kind, Relation

CURRENT = [version.object for version in load().versions if version.until is None]
PLAN = {one.table: one for one in read_plan()}


def current(kind):
    return [one for one in CURRENT if isinstance(one, kind)]


def test_the_plan_has_each_table_once_and_reference_tables_after_those_that_their_keys_lead_to():
    tables = [one.table for one in read_plan()]
    placed = [one.table for one in read_plan() if one.placement is not Placement.LOCAL]

    assert sorted(tables) == sorted(table.table for table in current(Table))
    assert tables[: len(placed)] == placed
    assert [
        key.name for key in current(ForeignKey) if key.table in placed and placed.index(key.target) > placed.index(key.table)
    ] == []


def test_the_growing_tables_are_distributed_by_id_and_reference_tables_hold_what_their_keys_lead_to():
    assert {one.table for one in PLAN.values() if one.placement is Placement.REFERENCE} == {"users", "ai_conversations"}
    assert {(one.table, one.key) for one in PLAN.values() if one.placement is Placement.DISTRIBUTED} == {
        (table, "id")
        for table in (
            "price_history", "user_activities", "notifications", "login_history", "recent_searches", "saved_searches",
            "price_alerts", "wishlist_items", "ai_messages", "price_monitor_logs",
        )
    }  # fmt: skip


def test_citus_accepts_each_foreign_key():
    allowed = {(one, Placement.REFERENCE) for one in Placement} | {(Placement.LOCAL, Placement.LOCAL)}

    assert [
        (key.table, key.name)
        for key in current(ForeignKey)
        if (PLAN[key.table].placement, PLAN[key.target].placement) not in allowed
    ] == []


def test_each_unique_key_of_a_distributed_table_contains_its_distribution_key():
    unique = [*current(Key), *(index for index in current(Index) if index.unique)]

    assert [
        (one.table, one.name)
        for one in unique
        if PLAN[one.table].placement is Placement.DISTRIBUTED and PLAN[one.table].key not in one.columns
    ] == []


@pytest.mark.parametrize(
    ("placement", "kinds"),
    [
        (Placement.REFERENCE, {Kind.REFERENCE}),
        (Placement.DISTRIBUTED, {Kind.DISTRIBUTED}),
        (Placement.LOCAL, {Kind.PLAIN, Kind.MANAGED, Kind.PARTITIONED, Kind.FOREIGN, Kind.VIEW}),
    ],
)
def test_a_relation_is_placed_as_planned_or_not(placement, kinds):
    planned = Planned("a table", placement)

    assert {kind for kind in Kind if planned.holds(Relation("a table", 1, kind))} == kinds
