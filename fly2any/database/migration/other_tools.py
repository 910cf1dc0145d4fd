"""Refuses to migrate a database whose tables another tool created, such as Prisma; `dbadopt` adopts it.

Also one where another object has a name that a pending migration needs (taken_names.py).
"""

from __future__ import annotations

from django.db.migrations.exceptions import AmbiguityError
from django.db.migrations.loader import MigrationLoader

from fly2any.postgres.search_path import split

from ..errors import Refusal
from ..findings import Finding, Severity
from ..other_schemas import of_other_schemas
from ..schema import Catalog, read_catalog
from ..schema import contract as contracts
from ..schema.contract import FIRST_MIGRATIONS
from ..schema.drift import compare
from ..schema.expressions_on_server import Live
from ..schema.protected_tables import PRISMAS_LEDGER
from ..server import Server, read_home, read_server
from .ledger import MigrationState, Unrecorded, read_migrations, unrecorded
from .taken_names import read_taken_names

NONE_IS_RECORDED = "All tables match our migrations, but none is recorded: the rows of django_migrations are lost."
RECORDED_ANEW = "`manage.py migrate --fake` records them again, and changes nothing else."
RECORD_IS_LOST = f"{NONE_IS_RECORDED} {RECORDED_ANEW}"


def is_built(contract: contracts.Contract, live: Catalog, server: Live) -> bool:
    """Return whether all objects of our migrations exist as defined; `server` is the one that `live` was read from."""
    expected = contracts.catalog_of(contract.expected(contract.migrations))
    found = compare(expected, live, live=server).findings
    return all(finding.severity is Severity.NOTE or finding.code == "grants.missing" for finding in found)


def not_adopted(
    contract: contracts.Contract, migrations: MigrationState, found: tuple[Unrecorded, ...], live: Catalog, server: Live
) -> tuple[str, Finding] | None:
    """Return the tool that created the tables of Phase 7, "" if only our record is lost, and the finding about it.

    None if the first migrations are recorded, or none of their objects exist; `found` are the unrecorded migrations.
    """
    applied, place = migrations.recorded_or_lost, FIRST_MIGRATIONS[0]
    if not migrations.readable or not applied.isdisjoint(FIRST_MIGRATIONS):
        return None
    if all(one.migration not in FIRST_MIGRATIONS for one in found):
        return None
    if not applied and is_built(contract, live, server):
        return "", Finding(Severity.ERROR, "migrations.unrecorded", place, NONE_IS_RECORDED, RECORDED_ANEW)
    maker = "Prisma" if any(table.name == PRISMAS_LEDGER for table in live.tables) else "another tool"
    message = (
        f"Our tables exist, but no migration that creates them is recorded: {maker} created them, and `migrate` refuses to run."
    )
    cure = "Run `manage.py dbadopt`: it shows its plan, and changes nothing without --yes."
    return maker, Finding(Severity.ERROR, "migrations.unrecorded", place, message, cure)


def refuse_hidden_records(connection) -> None:
    """Raise Refusal if row-level security hides applied migrations from this role, which would be listed as pending."""
    schema, recorded = read_home(connection)
    if schema is not None:
        read_migrations(connection, schema=schema, recorded=recorded, readable=True).refuse_hidden()


def refuse_tables_of_other_tools(connection, *, fake: bool = False, app: str | None = None, name: str | None = None) -> None:
    """Raise Refusal if objects of a pending migration already exist and were not left by an interrupted run of ours.

    With `app`, and perhaps the `name` of a migration of it or a prefix of that, only those that it needs count in a database of ours.
    """
    schema, recorded = read_home(connection)
    if schema is None:
        return  # The server will report the error.
    if not recorded:
        _refuse_second_home(connection, read_server(connection))
    loader = MigrationLoader(None)
    migrations = read_migrations(connection, schema=schema, recorded=recorded, readable=True, loader=loader)
    migrations.refuse_hidden()
    if not migrations.pending or migrations.lost:  # Django reports the error.
        return
    contract, live = contracts.load(), read_catalog(connection, schema=schema)
    if not migrations.applied and is_built(contract, live, Live(connection, schema)):
        if fake:
            return
        raise Refusal(RECORD_IS_LOST)
    found = unrecorded(contract, migrations, live)
    if made := [one for one in found if not one.is_leftover]:
        if {record.name for record in migrations.applied}.issuperset(FIRST_MIGRATIONS):
            planned = _planned(loader, migrations, app, name)
            made = [one for one in made if one.migration in planned]
            if fake or not made:
                return
            raise Refusal(
                f"{made[0].migration} is not recorded, but {made[0].exists}. If the record is lost, {made[0].fake}."
                " Drop them only if another tool created them and nothing uses them: their data is lost."
            )
        raise Refusal(
            f"{made[0].migration} is not recorded, but its objects already exist ({made[0].places}): another tool"
            " created this database. Adopt it with `manage.py dbadopt`, which shows its plan and changes nothing without --yes."
        )
    names = read_taken_names(connection, contract, migrations, live, schema=schema)
    if not app and not fake and (taken := next(names, None)):
        raise Refusal(f"{taken.message}. Ask that role, then rename the object ({taken.cure}) or drop it. Nothing was changed.")


def _planned(loader: MigrationLoader, migrations: MigrationState, app: str | None, name: str | None) -> set[str]:
    """Return the pending migrations that a run with these arguments may apply: all of them, if Django will report an error."""
    if not app or name == "zero":
        return {*migrations.pending}
    try:
        nodes = [loader.get_migration_by_prefix(app, name)] if name else []
    except (AmbiguityError, KeyError):
        return {*migrations.pending}
    targets = [".".join(node) for node in ([(one.app_label, one.name) for one in nodes] or loader.graph.leaf_nodes(app))]
    return {one for target in targets for one in (target, *migrations.before.get(target, ()))}


def _refuse_second_home(connection, server: Server) -> None:
    """Raise Refusal if other schemas of `server` have our tables, unless the URL names the schema to create them in."""
    if server.elsewhere and split(connection.settings_dict["OPTIONS"].get("options", ""))[1] is None:
        found = of_other_schemas(server.database, server.schema or "", server.elsewhere, next(iter(server.sets_path), None))
        raise Refusal(f"Nothing was changed. {found.message} {found.cure}")
