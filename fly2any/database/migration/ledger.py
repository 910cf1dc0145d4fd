"""The migration ledger (django_migrations): which migrations are applied, pending, or recorded without being known to the code.

journal.py has our own record of each run, and prisma.py reads Prisma's ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from django.db.migrations.loader import MigrationLoader

from fly2any.postgres.take_over import TakeOver

from ..errors import Refusal
from ..findings import Finding, Severity
from ..schema import Catalog, Index, Object, Table, key_of, where
from ..schema.contract import Contract
from ..schema.cures import preceded
from ..schema.protected_tables import LEDGERS
from ..schema.row_security import CONDITION_SQL, RESTRICTED_SQL, reveal
from ..sql import RECORD, fetch_all, fetch_one, literal, quote
from ..units import few, plural

SHOWN = 5
RECORDS_SQL = """
    SELECT app || '.' || name AS name, applied FROM {schema}.django_migrations ORDER BY id
"""
# The role from which policies hide rows of a record, "" if they hide none, and whether they may hide some and show others: one that
# reads no column shows all rows or none.
HIDDEN_SQL = f"""
    SELECT CASE WHEN 'SELECT' = ANY ({RESTRICTED_SQL.format(condition=CONDITION_SQL)}) THEN current_user::text ELSE '' END,
           EXISTS (SELECT FROM pg_catalog.pg_policy AS p
                   JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
                        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.deptype = 'n'
                   WHERE p.polrelid = c.oid AND p.polcmd IN ('*', 'r'))
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = %(name)s
"""


@dataclass(frozen=True, slots=True)
class Applied:
    name: str  # app.migration
    at: datetime


@dataclass(frozen=True, slots=True)
class Lost:
    """A migration that is not recorded as applied, although one that needs it is: `migrate` then refuses to run."""

    name: str
    needed_by: str
    records: tuple[str, ...]  # that are missing: its own, and those of the migrations that it replaces

    @property
    def message(self) -> str:
        if self.name not in self.records:
            return (
                f"The migration {self.name} counts as not applied without the record of {', '.join(self.records)}, although"
                f" {self.needed_by}, which needs it, is recorded as applied: `migrate` refuses to run."
            )
        return f"The migration {self.name} is not recorded as applied, although {self.needed_by}, which needs it, is: `migrate` refuses to run."

    @property
    def cure(self) -> str:
        rows = ", ".join(
            f"({literal(app)}, {literal(name)}, now())" for app, _, name in (one.partition(".") for one in self.records)
        )
        return f"INSERT INTO {RECORD} (app, name, applied) VALUES {rows};"


@dataclass(frozen=True, slots=True)
class MigrationState:
    recorded: bool  # whether the table of records exists
    readable: bool  # whether this role may read it, and row-level security does not hide its rows
    applied: tuple[Applied, ...]
    pending: tuple[str, ...]  # in the order in which `migrate` would apply them
    unknown: tuple[str, ...]
    known: tuple[str, ...]  # known to the code, in the order of application
    lost: tuple[Lost, ...]  # in the order of application
    taking_over: tuple[str, ...] = ()  # pending, and only to take over an unmanaged object
    before: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the other pending migrations that a pending one needs
    conflicts: tuple[Finding, ...] = ()
    hidden_from: str = ""  # the role from which row-level security hides the records

    def refuse_hidden(self) -> None:
        if self.hidden_from:
            raise Refusal(f"{self._hidden}. {self._reveal('')}")

    @property
    def recorded_or_lost(self) -> set[str]:
        """The migrations that ran here, as far as is known: those recorded as applied, and those that they need."""
        return {*(record.name for record in self.applied), *(one.name for one in self.lost)}

    def refuse_lost(self) -> None:
        for one in self.lost:
            raise Refusal(f"{one.message} `manage.py dbstatus` prints the cure.")

    @property
    def _hidden(self) -> str:
        return f"Row-level security hides rows of {RECORD} from the role {self.hidden_from}"

    def _reveal(self, command: str) -> str:
        return f"{reveal(RECORD, self.hidden_from, command)} (or ALTER TABLE {RECORD} DISABLE ROW LEVEL SECURITY;)"

    def findings(self) -> Iterator[Finding]:
        if self.hidden_from:
            message = (
                f"{self._hidden}, so the schema is compared as if every migration were applied, and `migrate` refuses to run."
            )
            yield Finding(Severity.ERROR, "migrations.unreadable", RECORD, message, self._reveal("FOR SELECT "))
        elif not self.readable:
            yield Finding(
                Severity.NOTE,
                "migrations.unreadable",
                "django_migrations",
                "This role may not read django_migrations, so the schema is compared as if every migration were applied.",
                "Grant the role SELECT on django_migrations and fly2any_migration_runs, or connect as a role that may read them.",
            )
        yield from self.conflicts
        yield from self._unknown()

    def _unknown(self) -> Iterator[Finding]:
        """Yield the findings about recorded migrations that the code does not have: a warning for each, but one note for each app that it does not have."""
        apps = {name.partition(".")[0] for name in self.known}
        others: Counter[str] = Counter()
        for name in self.unknown:
            app = name.partition(".")[0]
            if app not in apps:
                others[app] += 1
                continue
            yield Finding(
                Severity.WARNING,
                "migrations.unknown",
                name,
                f"The migration {name} is recorded as applied, but this code does not have it: newer code, or another branch, ran here.",
                f"Deploy the code that has it, or reverse it with that code; if its file was renamed or squashed: `manage.py migrate {app} --prune`.",
            )
        for app, number in others.items():
            yield Finding(
                Severity.NOTE,
                "migrations.unknown",
                app,
                f"{plural(number, 'migration')} of {app}, an app that this code does not have, {'is' if number == 1 else 'are'} recorded"
                " as applied: newer code ran here, the app was removed, or another project uses this database.",
                f"Deploy the code that has it; if the app was removed: DELETE FROM {RECORD} WHERE app = {literal(app)};",
            )


def known_migrations(loader: MigrationLoader | None = None) -> dict[str, frozenset[str]]:
    """Return the code's migrations in the order of application, each with those that it needs."""
    graph = (loader or MigrationLoader(None)).graph
    order = dict.fromkeys(node for leaf in graph.leaf_nodes() for node in graph.forwards_plan(leaf))
    return {".".join(node): frozenset(".".join(parent.key) for parent in graph.node_map[node].parents) for node in order}


def conflicts(loader: MigrationLoader) -> Iterator[Finding]:
    """Yield a finding for each app whose migrations conflict (several leaf nodes), as after a merge of two branches."""
    for app, names in sorted(loader.detect_conflicts().items()):
        yield Finding(
            Severity.ERROR,
            "migrations.conflict",
            app,
            f"The migrations of {app} conflict (leaf nodes: {', '.join(names)}), so `migrate` refuses to run.",
            "Run `manage.py makemigrations --merge`, then `manage.py dbcontract`, and commit both files.",
        )


def replaced_migrations(loader: MigrationLoader | None = None) -> dict[str, frozenset[str]]:
    """Return the code's squashed migrations, each with those that it replaces: Django records all of them."""
    squashed = (loader or MigrationLoader(None)).replacements.items()
    return {".".join(name): frozenset(map(".".join, migration.replaces)) for name, migration in squashed}


def has_ledger(catalog: Catalog) -> bool:
    """Return whether there is a ledger that no untrusted role created."""
    return any(table.name == RECORD and table.trusted for table in catalog.tables)


def read_migrations(
    connection, *, schema: str, recorded: bool, readable: bool, loader: MigrationLoader | None = None
) -> MigrationState:
    """Return the state of the migrations; `recorded` and `readable` say whether `schema` has a ledger, and whether it may be read.

    `loader` has the migrations of the code, if they were read before.
    """
    loader = loader or MigrationLoader(None)  # It reads every migration, so it is created once.
    known, found = known_migrations(loader), tuple(conflicts(loader))
    if recorded and not readable:
        return MigrationState(recorded, readable, (), (), (), tuple(known), (), conflicts=found)
    applied: tuple[Applied, ...] = ()
    if recorded:
        applied = tuple(Applied(*row) for row in fetch_all(connection, RECORDS_SQL.format(schema=quote(schema))))
    replaced = replaced_migrations(loader)
    records = {record.name for record in applied}
    names = _applied(records, replaced)
    pending = tuple(name for name in known if name not in names)
    if recorded and pending:
        role, some = fetch_one(connection, HIDDEN_SQL, {"schema": schema, "name": RECORD})
        if role and (some or not applied):
            return MigrationState(recorded, False, (), (), (), tuple(known), (), conflicts=found, hidden_from=role)
    return MigrationState(
        recorded,
        readable,
        applied,
        pending=pending,
        unknown=tuple(sorted(names.difference(known, *replaced.values()))),
        known=tuple(known),
        lost=_lost(known, names, records, replaced),
        taking_over=tuple(name for name in known if name not in names and _takes_over(loader, name)),
        before=_before(known, pending),
        conflicts=found,
    )


def _before(known: dict[str, frozenset[str]], pending: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the other pending migrations that each needs, also indirectly, in the order of application."""
    needed: dict[str, set[str]] = {}
    for name in pending:  # Those that a migration needs come before it.
        needed[name] = set().union(*({one, *needed[one]} for one in known[name] if one in needed))
    return {name: tuple(one for one in pending if one in needs) for name, needs in needed.items()}


def _applied(records: set[str], replaced: dict[str, frozenset[str]]) -> set[str]:
    """Return the migrations that Django counts as applied: a squashed one by the records of those that it replaces, if there are any."""
    names = set(records)
    for name, parts in replaced.items():
        if parts <= names:
            names.add(name)
        elif parts & names:
            names.discard(name)
    return names


def _lost(
    known: dict[str, frozenset[str]], names: set[str], records: set[str], replaced: dict[str, frozenset[str]]
) -> tuple[Lost, ...]:
    """Return the migrations not in `names`, the applied ones, that one of these needs, also indirectly."""
    needed: dict[str, str] = {}
    for name, needs in reversed(known.items()):
        if by := name if name in names else needed.get(name):
            needed |= dict.fromkeys(needs - names, by)
    missing = {name: (*sorted(replaced.get(name, frozenset()) - records), *({name} - records)) for name in needed}
    return tuple(Lost(name, needed[name], missing[name]) for name in known if name in needed)


def _takes_over(loader: MigrationLoader, name: str) -> bool:
    operations = loader.graph.nodes[tuple(name.split(".", 1))].operations
    return bool(operations) and all(isinstance(operation, TakeOver) for operation in operations)


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A pending migration some of whose objects already exist."""

    migration: str
    existing: tuple[Object, ...]
    different: tuple[Object, ...]  # those that are not as defined
    is_whole: bool = True  # whether all of its objects exist
    first: tuple[str, ...] = ()  # the pending migrations that it needs, and whose objects do not exist

    @property
    def is_leftover(self) -> bool:
        """Return whether an interrupted run left it, so that the next one repairs it: indexes built concurrently."""
        return all(isinstance(thing, Index) for thing in self.existing)

    @property
    def places(self) -> str:
        """Return the existing tables, or else parts of tables: five at most."""
        parts = [thing.name for thing in self.existing if isinstance(thing, Table)] or [where(thing) for thing in self.existing]
        return few(parts, SHOWN)

    @property
    def exists(self) -> str:
        """Return what of it exists, as part of a sentence."""
        differing = f", but not as it defines {few([where(one) for one in self.different], SHOWN)}" if self.different else ""
        return f"{'its objects' if self.is_whole else 'some of its objects'} already exist ({self.places}){differing}"

    @property
    def fake(self) -> str:
        """Return how to record it, as part of a sentence."""
        fake = f"run `manage.py migrate --fake {self.migration.replace('.', ' ')}`"
        if self.different or not self.is_whole:
            fake += ", then the cures that `manage.py dbstatus` prints"
        if not self.first:
            return fake
        them = "it" if len(self.first) == 1 else "them"
        return (
            f"run `manage.py migrate {self.first[-1].replace('.', ' ')}` first, because --fake would record {few(self.first, SHOWN)} too,"
            f" without running {them}; then {fake}"
        )


def unrecorded(contract: Contract, migrations: MigrationState, actual: Catalog) -> tuple[Unrecorded, ...]:
    """Return the pending migrations some of whose objects already exist, in the order in which they would be applied."""
    applied = migrations.recorded_or_lost if migrations.readable else set(contract.migrations)
    known = {key_of(version.object) for version in contract.expected(applied)}
    live = {key_of(thing): thing for thing in actual if thing.table not in LEDGERS}
    found = []
    for name in (one for one in migrations.pending if one not in applied):
        new = [version.object for version in contract.versions if version.since == name and name not in migrations.taking_over]
        if existing := tuple(thing for thing in new if key_of(thing) in live and key_of(thing) not in known):
            different = tuple(thing for thing in existing if _valid(live[key_of(thing)]) != thing)
            found.append(Unrecorded(name, existing, different, is_whole=all(key_of(thing) in live for thing in new)))
    made = {one.migration for one in found if not one.is_leftover}
    return tuple(
        replace(one, first=tuple(name for name in migrations.before.get(one.migration, ()) if name not in made))
        for one in found
    )


def _valid(thing: Object) -> Object:
    return replace(thing, valid=True, ready=True) if isinstance(thing, Index) else thing


def lost_findings(contract: Contract, lost: tuple[Lost, ...], matched: Container[Object]) -> Iterator[Finding]:
    """Yield the finding of `dbstatus` about each lost record; `matched` are the objects that exist as they should."""
    ran = {version.since for version in contract.versions if version.object in matched}
    for one in lost:
        ran_here = one.name in ran
        unless = f"run it only if {one.name} ran here, which no object shows; otherwise delete from {RECORD} the rows of the migrations that need it"
        first = "" if ran_here else unless
        yield Finding(
            Severity.ERROR, "migrations.out_of_order", one.name,
            f"{one.message}{' Its objects exist: only its record is lost.' if ran_here else ''}",
            preceded(first, one.cure), is_sql=True, loses=first,
        )  # fmt: skip


def unrecorded_findings(found: Iterable[Unrecorded], *, ours: bool) -> Iterator[Finding]:
    """Yield the findings of `dbstatus` about each; `ours`: the first migrations are recorded."""
    for one in found:
        if one.is_leftover and one.different:
            drops = "\n".join(f"DROP INDEX CONCURRENTLY {quote(thing.name)};" for thing in one.different)
            yield Finding(
                Severity.ERROR,
                "migrations.unrecorded",
                one.migration,
                f"The migration {one.migration} is pending, but an index of another definition has the name of one that it creates ({one.places}).",
                f"{drops}\n-- Then run `manage.py migrate`.",
                is_sql=True,
            )
        elif one.is_leftover:
            yield Finding(
                Severity.ERROR,
                "migrations.unrecorded",
                one.migration,
                f"The migration {one.migration} is not recorded, but its objects already exist ({one.places}):"
                " an interrupted run left them.",
                "Run `manage.py migrate`: an index as defined is kept, an invalid one is rebuilt.",
            )
        else:
            yield Finding(
                Severity.ERROR,
                "migrations.unrecorded",
                one.migration,
                f"The migration {one.migration} is not recorded, but {one.exists}:"
                f" {'the record is lost, or ' if ours else ''}another tool created them, and `migrate` refuses to run.",
                f"If the record is lost, {one.fake}. Drop them only if another tool created them and nothing uses them: their data is lost."
                if ours
                else "Run `manage.py dbadopt`: it shows its plan, and changes nothing without --yes.",
            )
