"""The erasure of a person, in one transaction, and its certificate; trace.py and without_foreign_key.py decide what is erased, and plan.py shows it."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass
from datetime import datetime
from typing import Protocol

from ..errors import Refusal, leaves_commit_open
from ..marked_databases import refuse_during_restore
from ..migration.advisory_locks import ERASURE_LOCK, hold
from ..migration.retry import try_again
from ..progress import Progress
from ..schema.untrusted_code import refuse_untrusted_code
from ..sql import time_limits
from . import without_foreign_key
from .people import Person, read_again
from .plan import NOT_SEARCHED, RECORD, Change, Reach, reach, reasons
from .remove import remove
from .search import Found, Place, Unsearched, search
from .statistics import refresh_statistics
from .tables import Tables, read_tables
from .trace import rows_of
from .transactions import NO_STATEMENT_TIMEOUT_SQL, TABLE_LOCK_TIMEOUT, writing

FORMAT = 2
PATIENCE = 60  # Seconds in total for the locks on tables without a foreign key.
OUTSIDE = (
    "earlier backups and archives",
    "the logs of the server, the site and the admin",
    "replicas and other databases",
)
LIMITS = (  # Of the search.
    "rows that other sessions commit, after the search began, in tables without a foreign key to the person",
    "comments, defaults, labels, partition bounds and other definitions",
    "compressed or encoded values in columns, including letters and digits written as escapes",
    "accented letters written as two characters, in Latin-1, in Punycode or as named entities",
    "escapes in values above 32 MB, and escapes of more than 63 backslashes in tables of other roles",
)
WRITTEN = "a trigger or a rule wrote these rows during the erasure: check whether they are about the person"
NOW_SQL = "SELECT pg_catalog.clock_timestamp(), pg_catalog.pg_current_xact_id()::pg_catalog.text"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The rows that an erasure removed, changed and cleared, by table; the rows that remain, and why; and what was not searched."""

    at: datetime
    transaction: str  # The argument of pg_xact_status(), which says whether it was committed.
    person: str  # The person's id; the certificate contains no other data about the person.
    removed: dict[str, int]
    changed: tuple[Change, ...]
    cleared: dict[str, int]
    remaining: tuple[Place, ...]
    unsearched: tuple[Unsearched, ...]
    search_began: datetime | None
    beyond: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(self.removed.values())

    @property
    def is_whole(self) -> bool:
        """Whether everything was searched, and nothing remains but the id in the access records, and similar addresses."""
        remaining = [place for place in self.remaining if place.holds != "similar" and place.reason != RECORD]
        return not (self.changed or self.unsearched or remaining)

    def as_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, default=datetime.isoformat)


class Keeper(Protocol):
    """A place where a certificate is kept."""

    def keep(self, certificate: Certificate) -> None:
        """Write it before the erasure is committed: a file is durable when this returns, a row of the database with the COMMIT."""

    def confirm(self) -> None:
        """Mark it as committed."""

    def discard(self) -> None:
        """Withdraw it, because nothing was erased."""


def erase(
    connection,
    person: Person,
    keeper: Keeper,
    *,
    searched: bool = True,
    unsearched: Unsearched = NOT_SEARCHED,
    progress: Progress | None = None,
) -> Certificate:
    """Remove the person and all their rows in one transaction; return the certificate, which `keeper` stores before the commit.

    If the database is not `searched` for the address, the certificate says so by `unsearched`.
    Raises Refusal, with nothing changed, if other people would be deleted, a foreign key prevents it, rows would stay, another
    person is being erased, or a restore is about to replace the database.
    """
    committing = False
    try:
        with writing(connection):
            hold(connection, ERASURE_LOCK)  # Two would wait for each other at the tables without a foreign key.
            certificate = _erase(connection, person, None if searched else unsearched, progress or Progress())
            refuse_during_restore(connection)  # The search may take long, so this is checked again.
            keeper.keep(certificate)
            committing = True
    except BaseException as error:
        if committing and leaves_commit_open(error):
            raise Refusal(
                "The connection was lost during the commit. To see whether the erasure was committed, run"
                f" SELECT pg_xact_status('{certificate.transaction}')."
            ) from error
        keeper.discard()
        raise
    keeper.confirm()
    return certificate


def _erase(connection, person: Person, unsearched: Unsearched | None, progress: Progress) -> Certificate:
    with connection.cursor() as cursor:
        for names, deletes, updates in without_foreign_key.WRITES:
            refuse_untrusted_code(connection, names, deletes=deletes, updates=updates)
        tables = read_tables(connection)
        found = _require(tables, reach(cursor, tables, person, lock=True))
        if not _is_unchanged(cursor, tables, person):
            raise Refusal("The person was changed in the meantime: nothing was erased; try again.")
        changed = found.changed(tables)
        done = [remove(connection, cursor, tables, person, found)]
        places, began = Found((), ()), None
        if unsearched is None:
            cursor.execute(NO_STATEMENT_TIMEOUT_SQL)
            cursor.execute(NOW_SQL)
            began, _ = cursor.fetchone()
            places = search(connection, tables, person, progress, reasons(tables, found), rows_of())
            sampled = refresh_statistics(connection, tables, person)
            places = Found((*places.places, *sampled.places), (*places.unsearched, *sampled.unsearched))
        progress.show("waiting for tables without a foreign key", None)
        unguarded = _lock(connection, tables)
        progress.clear()
        person = read_again(cursor, tables, person)
        found = _require(tables, reach(cursor, tables, person, lock=True))  # Includes rows added meanwhile.
        done.append(remove(connection, cursor, tables, person, found))
        cursor.execute(NOW_SQL)
        at, number = cursor.fetchone()
    removed, cleared, written = (_sum_counts(counts) for counts in zip(*map(astuple, done), strict=True))
    remaining = (*places.places, *(Place(table, "", "written", rows, WRITTEN) for table, rows in written.items()))
    skipped = (*([unsearched] if unsearched else []), *places.unsearched, *unguarded)
    beyond = OUTSIDE if unsearched else (*OUTSIDE, *LIMITS)
    return Certificate(at, number, person.id, removed, changed, cleared, remaining, skipped, began, beyond)


def _is_unchanged(cursor, tables: Tables, person: Person) -> bool:
    """Return whether the person still has the address that is searched for, and is not staff."""
    cursor.execute(
        f'SELECT email, "isStaff" OR "isSuperuser" FROM {tables.people.sql} WHERE id OPERATOR(pg_catalog.=) %s', [person.id]
    )
    return cursor.fetchall() == [(person.email, False)]


def _require(tables: Tables, found: Reach) -> Reach:
    if sentences := found.obstacles(tables):
        raise Refusal(f"Nothing was changed. {' '.join(sentences)}")
    return found


def _lock(connection, tables: Tables) -> list[Unsearched]:
    """Lock the tables that hold a person without a foreign key against writes until the end; return those this role cannot lock."""
    existing = [table for name in without_foreign_key.WITHOUT_KEY if (table := tables.own(name))]
    lockable = [table for table in existing if table.may_update or table.may_delete]

    def attempt():
        with time_limits(connection, lock=TABLE_LOCK_TIMEOUT), connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {', '.join(table.sql for table in lockable)} IN SHARE ROW EXCLUSIVE MODE", [])

    if lockable:
        try_again(attempt, patience=PATIENCE, again=lambda error, pause: None)
    return [
        Unsearched(table.name, "rows added in the meantime: this role may not lock the table")
        for table in existing
        if table not in lockable
    ]


def _sum_counts(counts) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
