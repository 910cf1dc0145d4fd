"""The differences of the live database from the contract and from the migration ledger.

Backups are verified by backup/trial_restore.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from . import staff_permissions, unprintable_definitions
from .extensions import read_untrusted
from .findings import Finding, Severity
from .hidden_duplicates import with_duplicates
from .marked_databases import read_leftovers
from .migration import journal
from .migration.activity import HOLDER_SQL, Activity, read_activity
from .migration.advisory_locks import MIGRATION_LOCK
from .migration.journal import RunRecord, read_runs
from .migration.ledger import (
    MigrationState,
    Unrecorded,
    has_ledger,
    lost_findings,
    read_migrations,
    unrecorded,
    unrecorded_findings,
)
from .migration.other_tools import not_adopted
from .migration.prisma import PrismaMigration, read_prisma
from .migration.taken_names import read_taken_names
from .missing_privileges import Privilege, counted, lacking, of_other_roles, of_server
from .schema import Catalog, Column, ForeignKey, Index, Key, Object, Table, key_of, read_catalog
from .schema import contract as contracts
from .schema.contract import GUIDE_APPS, PHASE7_APPS, Contract, Version
from .schema.drift import Comparison, compare
from .schema.expressions_on_server import Live
from .schema.protected_tables import untrusted_findings
from .schema.row_security import reveal
from .schema.sizes_and_use import Extent, IndexUse, read_extents, read_index_use
from .schema.untrusted_code import read_untrusted_code
from .server import Server, read_server
from .sql import pinned, quote, snapshot

PHASE7 = "Phase 7, total"  # The group that the verdict counts.
PHASE7_BEGINS = "accounts.0001_initial"
RUNS = 10  # The number of migration runs in a report.


@dataclass(frozen=True, slots=True)
class Count:
    found: int  # as defined
    expected: int

    def __add__(self, other: Count) -> Count:
        return Count(self.found + other.found, self.expected + other.expected)


@dataclass(frozen=True, slots=True)
class Group:
    """Counts of one group of tables; indexes are those besides primary keys, unique constraints included."""

    name: str
    tables: Count
    columns: Count
    indexes: Count
    foreign_keys: Count


@dataclass(frozen=True, slots=True)
class Pending:
    """A pending migration, and how many objects of each kind it would create."""

    name: str
    tables: int
    columns: int
    indexes: int
    foreign_keys: int


@dataclass(frozen=True, slots=True)
class TableUse:
    """A table of Phase 7: its rows, estimated, its bytes on disk with indexes, both None where they are not known, and its findings."""

    name: str
    rows: int | None
    bytes: int | None
    state: str  # "as defined", "not adopted", "missing", or the codes of its findings


@dataclass(frozen=True, slots=True)
class Verification:
    """The state of the database, and its differences from what its applied migrations build."""

    server: Server
    privileges: tuple[Privilege, ...]  # of its role, on our tables
    migrations: MigrationState
    pending: tuple[Pending, ...]
    groups: tuple[Group, ...]
    findings: tuple[Finding, ...]
    unmanaged: Catalog
    runs: tuple[RunRecord, ...] = ()  # of migrations, newest first
    running: Activity | None = None  # the session that holds the migration lock
    indexes: tuple[IndexUse, ...] | None = None
    made_by: str = ""  # the tool that created our tables, if the database is not adopted
    tables: tuple[TableUse, ...] | None = None  # of Phase 7

    @property
    def phase7(self) -> Group:
        return next(group for group in self.groups if group.name == PHASE7)


def verify(
    connection, *, with_indexes: bool = False, with_tables: bool = False, contract: Contract | None = None
) -> Verification:
    """Return the state of the database behind `connection`, read in one snapshot without writing.

    Raises django.db.Error if the database cannot be reached or read.
    """
    contract = contract or contracts.load()
    final = [version for version in contract.versions if version.until is None]
    with snapshot(connection), pinned(connection):
        server = read_server(connection)
        schema = server.schema or ""
        actual = read_catalog(connection, schema=schema)
        migrations = _read_migrations(connection, server, actual)
        runs = _read_runs(connection, server, actual)
        left = [*(one.finding for one in read_leftovers(connection)), *_hidden_runs(server, actual)]
        prisma = read_prisma(connection, schema=schema, catalog=actual)
        running = next(iter(read_activity(connection, HOLDER_SQL, lock=MIGRATION_LOCK)), None)
        indexes = read_index_use(connection, schema=schema) if with_indexes else None
        extents = read_extents(connection, schema=schema) if with_tables else None
        untrusted = _read_untrusted(connection, schema, actual)
        applied = migrations.recorded_or_lost if migrations.readable else set(contract.migrations)
        live = Live(connection, schema)
        comparison = _compare(contract, applied, actual, live)
        found = unrecorded(contract, migrations, actual)
        maker = not_adopted(contract, migrations, found, actual, live)
        left += [] if maker else _read_taken(connection, contract, migrations, actual, schema)
        permissions = _read_permissions(connection, schema, migrations, actual)
    stale = [name for name in migrations.known if name not in contract.migrations]
    ours, site = _our_tables(final, actual)
    findings = [*_of_server(server, connection.alias, actual, ours), *lacking(server, ours, site=site), *left]
    findings += of_other_roles(server, ours, site=site)
    findings += [*migrations.findings(), *untrusted, *_of_records(contract, migrations, comparison, found, maker, schema)]
    findings += [*_failed(runs, migrations, running), *_stale(stale), *permissions, *_of_prisma(prisma, migrations, comparison)]
    if applied.isdisjoint(stale):  # Otherwise the expected schema is unknown.
        findings += [in_schema(finding, schema) for finding in comparison.findings]
    return Verification(
        server=server,
        privileges=counted(ours),
        migrations=migrations,
        pending=tuple(_pending(name, final) for name in migrations.pending),
        groups=tuple(_groups(final, _by_name(actual) if maker else map(key_of, comparison.matched))),
        findings=tuple(findings),
        unmanaged=comparison.unmanaged,
        runs=runs,
        running=running,
        indexes=indexes,
        made_by=maker[0] if maker else "",
        tables=None if extents is None else tuple(_tables(final, extents, findings, adopted=not (maker and maker[0]))),
    )


def _compare(contract: Contract, applied: set[str], actual: Catalog, live: Live) -> Comparison:
    """Return how a catalogue differs from what the migrations `applied` build."""
    pending = contracts.catalog_of(version for version in contract.versions if not version.holds(applied))
    return compare(contracts.catalog_of(contract.expected(applied)), actual, pending=pending, live=live)


def _read_migrations(connection, server: Server, actual: Catalog) -> MigrationState:
    recorded, readable = has_ledger(actual), server.may_read_migrations
    return read_migrations(connection, schema=server.schema or "", recorded=recorded, readable=readable)


def _read_runs(connection, server: Server, actual: Catalog) -> tuple[RunRecord, ...]:
    """Return the last runs of migrations, none if this role may not read the journal, or all of its rows."""
    readable = journal.is_whole(actual) and server.may_read_journal and not actual.hides_rows(journal.JOURNAL)
    return read_runs(connection, schema=server.schema or "", limit=RUNS) if readable else ()


def _hidden_runs(server: Server, actual: Catalog) -> list[Finding]:
    """Return the note that no failed run of a migration is reported, because row-level security may hide it."""
    if not actual.hides_rows(journal.JOURNAL):
        return []
    message = f"Row-level security may hide rows of {journal.JOURNAL} from the role {server.role}: no failed run of a migration is reported."
    return [Finding(Severity.NOTE, "migrations.unreadable", journal.JOURNAL, message, reveal(journal.JOURNAL, server.role))]


def _of_server(server: Server, alias: str, actual: Catalog, ours: tuple[Table, ...]) -> Iterable[Finding]:
    return (with_duplicates(one, actual, ours) for one in of_server(server, alias))


def _read_taken(connection, contract: Contract, migrations: MigrationState, actual: Catalog, schema: str) -> list[Finding]:
    """Return the findings about names that pending migrations need and other objects have."""
    taken = read_taken_names(connection, contract, migrations, actual, schema=schema)
    return [in_schema(name.finding, schema) for name in taken]


def _read_untrusted(connection, schema: str, actual: Catalog) -> list[Finding]:
    """Return the findings about ledgers, code and an extension of untrusted roles, and about objects that cannot be printed."""
    code = [one.finding for one in read_untrusted_code(connection, schema=schema)]
    extension = read_untrusted(connection, schema)
    return [
        *untrusted_findings(actual),
        *code,
        *([extension] if extension else []),
        *unprintable_definitions.findings(actual.unprintable),
    ]


def _read_permissions(connection, schema: str, migrations: MigrationState, actual: Catalog) -> list[Finding]:
    """Return the findings about the staff's permissions, none while migrations that create some are pending."""
    is_current = migrations.readable and not migrations.pending and staff_permissions.is_readable(actual)
    return [*staff_permissions.read_permissions(connection, schema)] if is_current else []


def _our_tables(final: Iterable[Version], actual: Catalog) -> tuple[tuple[Table, ...], frozenset[str]]:
    """Return the existing tables of the contract, and the names of those that are of Phase 7's apps."""
    apps = {version.object.name: version.app for version in final if isinstance(version.object, Table)}
    ours = tuple(table for table in actual.tables if table.name in apps and table.kind in ("table", "partitioned table"))
    return ours, frozenset(name for name, app in apps.items() if app in PHASE7_APPS)


def _phase7_tables(final: Iterable[Version]) -> list[str]:
    return sorted(version.object.name for version in final if version.is_phase7 and isinstance(version.object, Table))


def _tables(
    final: Iterable[Version], extents: dict[str, Extent], findings: Iterable[Finding], *, adopted: bool
) -> Iterable[TableUse]:
    # "accounts" is both an app and a table.
    ours = [finding for finding in findings if not finding.code.startswith("migrations.")]
    for name in _phase7_tables(final):
        codes = [finding.code for finding in ours if finding.where.partition(".")[0] == name]
        state = ", ".join(dict.fromkeys(codes)) or ("as defined" if adopted else "not adopted")
        if (extent := extents.get(name)) is None:
            yield TableUse(name, None, None, "missing")
        else:
            yield TableUse(name, extent.rows, extent.bytes, state)


def _failed(runs: tuple[RunRecord, ...], migrations: MigrationState, running: Activity | None) -> Iterable[Finding]:
    """Yield a finding for each pending migration whose last run failed or was killed."""
    last = {run.migration: run for run in reversed(runs)}
    for name in migrations.pending:
        run = last.get(name)
        if run is None or run.direction != "forwards" or (run.finished and not run.error) or (running and not run.finished):
            continue
        ended = f"failed: {run.error}" if run.finished else "never ended: it was killed, or its connection was cut."
        yield Finding(
            Severity.WARNING,
            "migrations.failed",
            name,
            f"The last run of {name}, on {run.started:%Y-%m-%d %H:%M} UTC by {run.person}, {ended}",
            "Fix the cause, then run `manage.py migrate` again; it resumes where it stopped.",
        )


def _of_records(
    contract: Contract,
    migrations: MigrationState,
    comparison: Comparison,
    found: tuple[Unrecorded, ...],
    maker: tuple[str, Finding] | None,
    schema: str,
) -> Iterable[Finding]:
    """Yield the findings about migrations that are not recorded, although they ran or their objects exist."""
    ours = migrations.recorded_or_lost.issuperset(contracts.FIRST_MIGRATIONS)
    others = [maker[1]] if maker else unrecorded_findings(found, ours=ours)
    findings = (*lost_findings(contract, migrations.lost, comparison.matched), *others)
    return (in_schema(finding, schema) for finding in findings)


def _of_prisma(prisma: Iterable[PrismaMigration], migrations: MigrationState, comparison: Comparison) -> Iterable[Finding]:
    """Yield a finding for each migration of Prisma that ran after our first one, where something is wrong."""
    first = next((record for record in migrations.applied if record.name == PHASE7_BEGINS), None)
    if first and any(finding.severity is Severity.ERROR for finding in comparison.findings):
        for migration in prisma:
            if migration.applied and migration.finished and migration.finished > first.at:
                yield _by_prisma(migration)


def _by_prisma(migration: PrismaMigration) -> Finding:
    return Finding(
        Severity.WARNING,
        "migrations.by_prisma",
        migration.name,
        f"Prisma's migration {migration.name} ran here on {migration.finished:%Y-%m-%d %H:%M} UTC, although this project owns the schema:"
        " it may have dropped the missing objects.",
        "In the site, run `npx prisma db pull`, and stop using `prisma migrate` and `prisma db push`; here, run the cures for the other findings.",
    )


def _stale(names: list[str]) -> Iterable[Finding]:
    if names:
        yield Finding(
            Severity.ERROR,
            "contract.stale",
            "contract.json",
            f"The contract does not contain {', '.join(names)}, so their effect cannot be verified.",
            "Run `manage.py dbcontract` on a server where the role may create databases, and commit the file.",
        )


def in_schema(finding: Finding, schema: str) -> Finding:
    """Return the finding with a cure that works in psql, whose search path may differ."""
    if not finding.is_sql or schema == "public":
        return finding
    return replace(finding, cure=f"SET search_path TO {quote(schema)};\n{finding.cure}")


def _is_index(thing: Object) -> bool:
    return isinstance(thing, Index) or (isinstance(thing, Key) and not thing.primary)


COUNTED: dict[str, Callable[[Object], bool]] = {
    "tables": lambda thing: isinstance(thing, Table),
    "columns": lambda thing: isinstance(thing, Column),
    "indexes": _is_index,
    "foreign_keys": lambda thing: isinstance(thing, ForeignKey),
}


def _pending(name: str, final: Iterable[Version]) -> Pending:
    new = [version.object for version in final if version.since == name]
    return Pending(name, **{kind: sum(map(is_one, new)) for kind, is_one in COUNTED.items()})


def _by_name(actual: Catalog) -> Iterable[tuple[type, str, str]]:
    """Yield the objects that exist by name, whatever their definition: Prisma's unique indexes are constraints in the contract."""
    yield from map(key_of, actual)
    yield from ((Key, index.table, index.name) for index in actual.indexes)


def _groups(final: Iterable[Version], found: Iterable[tuple[type, str, str]]) -> Iterable[Group]:
    there = set(found)

    def group(name: str, belongs: Callable[[Version], bool]) -> Group:
        objects = [version.object for version in final if belongs(version)]
        counts: dict[str, Any] = {}
        for kind, is_one in COUNTED.items():
            wanted = [thing for thing in objects if is_one(thing)]
            counts[kind] = Count(sum(key_of(thing) in there for thing in wanted), len(wanted))
        return Group(name, **counts)

    for app in GUIDE_APPS:
        yield group(app, lambda version, app=app: version.is_phase7 and version.app == app)  # type: ignore[misc]
    yield group("without the AI group", lambda version: version.is_phase7 and version.app in GUIDE_APPS)
    yield group("ai_consultant", lambda version: version.is_phase7 and version.app == "ai_consultant")
    yield group(PHASE7, lambda version: version.is_phase7)
    yield group("added since", lambda version: version.app in PHASE7_APPS and not version.is_phase7)
    yield group("Django and journal", lambda version: version.app not in PHASE7_APPS)
