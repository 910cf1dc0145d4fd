"""The contract file is what the migrations build, and what they build is Phase 7 with the deviations we chose."""

import json
import re
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from fly2any.database.errors import Refusal
from fly2any.database.findings import Finding, Severity
from fly2any.database.schema import Catalog, Column, Table, read_catalog
from fly2any.database.schema import contract as contracts
from fly2any.database.schema.contract import Contract, Version, catalog_of, grow
from fly2any.database.scratch import built_contract, scratch_database
from fly2any.database.verification import verify

PHASE7 = json.loads((Path(__file__).parent.parent / "phase7.json").read_text())
CONTRACT = contracts.load()
FINAL = [version for version in CONTRACT.versions if version.until is None]
OURS = catalog_of(version for version in FINAL if version.is_phase7)
WITHOUT_TIME_ZONE = {"timestamp(3) without time zone": "timestamp with time zone"}  # D1


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_the_file_is_what_the_migrations_build():
    assert contracts.dump(built_contract(connection)) == contracts.PATH.read_text()


@pytest.mark.django_db
def test_two_migrations_after_the_same_one_are_an_error_and_no_contract_is_built(monkeypatch):
    """As after a merge of two branches."""
    build = MigrationLoader.build_graph

    def build_with_another(self):
        build(self)
        self.graph.add_node(("travel", "0005_other"), Migration("0005_other", "travel"))
        self.graph.add_dependency(None, ("travel", "0005_other"), ("travel", "0004_roles"))

    monkeypatch.setattr(MigrationLoader, "build_graph", build_with_another)
    message = "The migrations of travel conflict (leaf nodes: 0005_alert_route_index, 0005_other), so `migrate` refuses to run."
    cure = "Run `manage.py makemigrations --merge`, then `manage.py dbcontract`, and commit both files."

    found = [one for one in verify(connection).findings if one.code == "migrations.conflict"]

    assert found == [Finding(Severity.ERROR, "migrations.conflict", "travel", message, cure)]
    with pytest.raises(Refusal, match=re.escape(f"{message} {cure}")):
        built_contract(connection)


def test_the_tables_are_those_of_phase_7():
    assert {table.name for table in OURS.tables} == set(PHASE7)


@pytest.mark.parametrize("table", PHASE7)
def test_a_table_is_as_prisma_creates_it_except_for_the_chosen_deviations(table):
    facts = PHASE7[table]

    columns = {
        column["name"]: (WITHOUT_TIME_ZONE.get(column["type"], column["type"]), column["nullable"], column["default"])
        for column in facts["columns"]
    }
    assert {c.name: (c.type, c.nullable, c.default) for c in OURS.columns if c.table == table} == columns

    uniques = {index["name"]: tuple(index["columns"]) for index in facts["indexes"] if index["unique"]}
    assert {key.name: key.columns for key in OURS.keys if key.table == table and not key.primary} == uniques  # D3

    indexes = {index["name"]: tuple(index["columns"]) for index in facts["indexes"] if not index["unique"]}
    ours = {index.name: index for index in OURS.indexes if index.table == table}
    assert {name: index.columns for name, index in ours.items()} == indexes
    for index in ours.values():
        assert (index.method, set(index.options), index.include, index.predicate, index.unique) == (
            "btree",
            {""},
            (),
            None,
            False,
        )

    primary = [(key.name, f"PRIMARY KEY ({', '.join(key.columns)})") for key in OURS.keys if key.table == table and key.primary]
    assert primary == ([(facts["primary_key"]["name"], facts["primary_key"]["definition"])] if facts["primary_key"] else [])

    foreign_keys = {fk["name"]: fk["definition"] for fk in facts["foreign_keys"]}
    assert {fk.name: definition(fk) for fk in OURS.foreign_keys if fk.table == table} == foreign_keys


def definition(fk):
    """A foreign key as pg_get_constraintdef writes it."""
    assert (fk.deferrable, fk.deferred, fk.valid, fk.enforced) == (False, False, True, True)
    (column,), (target,) = fk.columns, fk.target_columns
    quoted = f'"{column}"' if column != column.lower() else column
    return f"FOREIGN KEY ({quoted}) REFERENCES {fk.target}({target}) ON UPDATE {fk.on_update} ON DELETE {fk.on_delete}"


def test_verification_tokens_have_a_key_of_our_own():
    added = [version.object for version in FINAL if (version.object.table, version.object.name) in contracts.NOT_PHASE7]

    assert {thing.name for thing in added} == {"id", "verification_tokens_pkey"}
    assert Column("verification_tokens", "id", "text", nullable=False, default="(gen_random_uuid())::text") in added


def test_every_foreign_key_to_users_cascades_in_the_database():
    assert {fk.on_delete for fk in catalog_of(FINAL).foreign_keys if fk.target == "users"} == {"CASCADE"}


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_every_migration_can_be_reversed_and_applied_again():
    with scratch_database(connection) as scratch:
        executor = MigrationExecutor(scratch)
        executor.migrate(executor.loader.graph.leaf_nodes())
        executor.loader.build_graph()
        forward = read_catalog(scratch, schema="public")

        for app in ("travel", "engagement", "ai_consultant", "admin", "accounts"):
            executor.migrate([(app, None)])
            executor.loader.build_graph()
        ours = {table.name for table in catalog_of(v for v in FINAL if v.app in contracts.PHASE7_APPS).tables}
        left = {table.name for table in read_catalog(scratch, schema="public").tables}
        executor.migrate(executor.loader.graph.leaf_nodes())

        assert left & ours == set()
        assert read_catalog(scratch, schema="public") == forward


@pytest.mark.slow
@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("app", contracts.PHASE7_APPS)
def test_reversing_a_migration_restores_the_schema_before_it(app):
    with scratch_database(connection) as scratch:
        executor = MigrationExecutor(scratch)
        executor.migrate(executor.loader.graph.leaf_nodes())
        executor.loader.build_graph()
        steps = sorted(name for label, name in executor.loader.graph.nodes if label == app)
        executor.migrate([("admin", None)])
        executor.loader.build_graph()
        passed = []
        for step, before in reversed(list(zip(steps[1:], steps, strict=False))):
            passed.append((step, read_catalog(scratch, schema="public")))
            applied = set(executor.loader.applied_migrations)
            executor.migrate([(app, before)])
            executor.loader.build_graph()
            undone = {".".join(key) for key in applied - set(executor.loader.applied_migrations)}
            changes = any({version.since, version.until} & undone for version in CONTRACT.versions)
            assert (step, read_catalog(scratch, schema="public") != passed[-1][1]) == (step, changes)
        for step, after in reversed(passed):
            executor.migrate([(app, step)])
            executor.loader.build_graph()
            assert read_catalog(scratch, schema="public") == after, step


def test_an_object_changed_later_is_expected_as_it_was_until_then():
    first = Column("t", "c", "integer")
    second = Column("t", "c", "bigint")
    contract = grow(Contract((), ()), "app.0001", Catalog(tables=(Table("t"),), columns=(first,)))
    contract = grow(contract, "app.0002", Catalog(tables=(Table("t"),), columns=(second,)))

    assert contract.versions == (
        Version(Table("t"), "app.0001"),
        Version(first, "app.0001", "app.0002"),
        Version(second, "app.0002"),
    )
    assert catalog_of(contract.expected({"app.0001"})).columns == (first,)
    assert catalog_of(contract.expected({"app.0001", "app.0002"})).columns == (second,)
    assert contract.expected(set()) == ()


def test_the_file_loses_nothing(tmp_path):
    path = tmp_path / "contract.json"
    path.write_text(contracts.dump(CONTRACT))

    again = contracts.load(path)

    assert again.migrations == CONTRACT.migrations
    assert set(again.versions) == set(CONTRACT.versions)
