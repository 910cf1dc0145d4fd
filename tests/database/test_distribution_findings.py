"""What is wrong with the nodes of Citus and with the placement of tables, given what the catalogue says."""

from fly2any.database.distribution.citus import Citus, findings_of
from fly2any.database.distribution.cluster import Node
from fly2any.database.schema.relation_kinds import Kind, Relation

DISTRIBUTED = Relation("price_history", 1, Kind.DISTRIBUTED, 1)


def test_a_node_that_does_not_answer_and_a_disabled_one_are_errors():
    nodes = [
        Node(1, 0, "a:5432", True, False),
        Node(2, 1, "b:5432", True, True, error="refused"),
        Node(3, 2, "c:5432", False, True),
    ]

    found = [*findings_of(nodes, {}, [])]

    assert [(one.severity, one.code, one.where) for one in found] == [
        ("error", "distribution.node", "b:5432"),
        ("error", "distribution.node", "c:5432"),
    ]
    assert "Node b:5432 does not answer (refused)" in found[0].message


def test_a_shard_that_is_not_in_use_is_an_error():
    [found] = findings_of([], {"price_history": DISTRIBUTED}, [("price_history", 1, "b:5432")])

    assert (found.severity, found.code, found.where) == ("error", "distribution.shard", "price_history")
    assert found.message == "1 shard placement of price_history on b:5432 is inactive, so Citus does not use it."


def test_tables_that_are_not_placed_as_planned_are_reported_once_some_are():
    plain = {"users": Relation("users", 2, Kind.PLAIN), "user_sessions": Relation("user_sessions", 3, Kind.MANAGED)}

    assert [*findings_of([], plain, [])] == []
    [found] = findings_of([], {**plain, "price_history": DISTRIBUTED}, [])
    assert (found.severity, found.code, found.where) == ("warning", "distribution.placement", "users")
    assert found.message == "Table users is a plain table, but the plan makes it a reference table."


def test_the_engine_names_its_workers_and_tables():
    assert str(Citus("13.2", 1, 10, 2)) == "Citus 13.2, 1 worker, 10 distributed tables, 2 reference tables"
    assert str(Citus("13.2", None, 10, 2)) == "Citus 13.2, a worker: the coordinator has the tables"
