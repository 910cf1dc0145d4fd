"""Restores: into a new database, or in place of the existing one (swap.py). While one runs, a mark (../marked_databases.py) makes other commands refuse to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from io import FileIO
from typing import TypeVar

from django.db import Error, transaction

from ..clock import read_clock
from ..database_identity import read_origin
from ..errors import Refusal, explain, is_lost
from ..marked_databases import INTO, MARK, RESTORE, comment, drop_leftovers, mark
from ..migration.advisory_locks import PATIENCE, wait_for_writers
from ..migration.ledger import known_migrations, replaced_migrations
from ..progress import Progress
from ..schema.contract import PHASE7_APPS
from ..scratch import drop, require_createdb
from ..server import MARKING_TABLE, read_home
from ..sql import fetch_one, quote
from ..verification import verify
from . import tools
from .creatable_extensions import require_extensions
from .disk_space import require_disk_space
from .erasures import Erasures, keep_erasures
from .load import load
from .manifest import COMPUTED, Manifest, home_of, other_homes
from .not_dumped import read_attached
from .owners import require_owners
from .properties import copy_grants, copy_properties, create
from .restore_connections import connection_to, prepare_session
from .row_hashes import clauses, differences, read_computed, read_contents, read_hash_partitions
from .staff_after_restore import StaffChanges, sign_out_staff
from .store import Store
from .stored_file import opened
from .swap import MAINTENANCE, STARTED_SQL, require_same_server, require_swappable, swap
from .tablespaces import describe_unusable
from .take import new_findings
from .toc_entries import NOTHING, LeftOut

T = TypeVar("T")
COMMENT_SQL = """
    SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database
    WHERE datname = pg_catalog.current_database()
"""
USED_SQL = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
"""


def require_restorable(manifest: Manifest, connection) -> None:
    """Raise Refusal for a backup of another application, a newer server or newer code."""
    major, version = tools.server_version(connection)
    if int(manifest.server.partition(".")[0]) > major:
        raise Refusal(
            f"{manifest.name} is of PostgreSQL {manifest.server}, and this server is {version}: restore it on that version or a later one."
        )
    known = {*known_migrations(), *(part for parts in replaced_migrations().values() for part in parts)}
    apps = {name.partition(".")[0] for name in manifest.migrations}
    # A database created by Prisma and not adopted yet has our tables without our migrations.
    if apps.isdisjoint(PHASE7_APPS) and not any(name.endswith(f".{quote(MARKING_TABLE)}") for name in manifest.tables):
        raise Refusal(f"{manifest.name} is not a backup of a Fly2Any database: it has neither our migrations nor our tables.")
    if newer := [name for name in manifest.migrations if name not in known]:
        raise Refusal(f"{manifest.name} was taken by newer code, which has {newer[0]}: deploy that code first.")


def compare(connection, manifest: Manifest, progress: Progress, left_out: LeftOut = NOTHING) -> str:
    """Return how the database of `connection` differs from the backup without `left_out`, "" if it does not.

    `_try` in trial_restore.py makes the same comparison, to verify a backup.
    """
    with transaction.atomic(using=connection.alias):
        found = read_contents(connection, progress.show, how=manifest.hashing, registered=manifest.registered)
    different = differences(left_out.rest(manifest.tables), found, read_hash_partitions(connection))
    different += new_findings(verify(connection), manifest.findings)
    progress.clear()
    return clauses(different)


def is_used(connection) -> bool:
    """Return whether the database has tables, views or sequences of any role."""
    return fetch_one(connection, USED_SQL)[0]


@dataclass(frozen=True, slots=True)
class Replaced:
    """The database that a restore replaced, by its new name, "" if there was none; `filled` if it should have been empty but no longer is."""

    name: str
    filled: bool
    staff: StaffChanges
    erasures: Erasures


def restore_into(
    connection,
    name: str,
    store: Store,
    manifest: Manifest,
    progress: Progress,
    *,
    trust: Sequence[str] = (),
    without: Sequence[str] = (),
    extensions: Sequence[str] = (),
) -> Replaced:
    """Restore into the database `name` of the server, which is created if it does not exist.

    An existing empty database is replaced, as by restore_over(), and returned. Raises Refusal, with nothing changed, if it is
    not empty or if the restored database differs from the backup.
    """
    with connection.direct():
        exists = fetch_one(connection, "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)", [name])[0]
        if not exists:
            require_createdb(connection)
            _restore_new(
                connection, name, store, manifest, progress, trust=trust, without=without, extensions=extensions, purpose=INTO
            )
            with drop_on_failure(connection, name, progress):
                staff = _if_lost_again(connection, lambda: _finish_new(connection, name, manifest))
            return Replaced("", False, staff, Erasures())
        with connection_to(connection, name) as target:
            if is_used(target):
                raise Refusal(f"The database {name} is not empty: give --into an empty database or a new name.")
            return restore_over(
                target, store, manifest, progress, empty=True, trust=trust, without=without, extensions=extensions
            )


def _restore_new(
    connection,
    name: str,
    store: Store,
    manifest: Manifest,
    progress: Progress,
    *,
    trust: Sequence[str],
    without: Sequence[str],
    extensions: Sequence[str],
    purpose: str,
) -> datetime:
    """Create the database `name`, marked for `purpose`, and restore into it; return the server's start time.

    Objects of the roles `without`, and `extensions`, are left out, and `progress` reports them. Raises Refusal, and drops the
    database, if it differs from the backup or if the server was replaced meanwhile.
    """
    connection.ensure_connection()
    require_restorable(manifest, connection)
    require_owners(connection, manifest, trust=trust, without=without, into=name if purpose == INTO else "")
    require_extensions(connection, manifest, without=extensions)
    require_disk_space(connection, manifest)
    if unusable := describe_unusable(connection):
        progress.say(unusable)
    (started,) = fetch_one(connection, STARTED_SQL)
    elsewhere = purpose == RESTORE and _is_elsewhere(connection, manifest)
    connection.close()  # A server or a pooler may end a connection that is idle for this long.
    with opened(store, manifest, progress) as dump:
        prepare_session(connection)
        create(connection, name)  # Raises if another client has created it meanwhile; it is then not dropped.
        with drop_on_failure(connection, name, progress):
            mark(connection, name, purpose)
            if purpose == RESTORE:
                wait_for_writers(connection, patience=PATIENCE, say=progress.say)
            connection.close()
            _restore(connection, name, dump, manifest, progress, without=without, extensions=extensions, elsewhere=elsewhere)
            require_same_server(connection, started)
            prepare_session(connection)
            copy_grants(connection, name)
    return started


def _finish_new(connection, name: str, manifest: Manifest) -> StaffChanges:
    """Sign all staff out of the new database `name`, then remove its mark: no database without one has sessions of the backup."""
    home = home_of(manifest)
    with connection_to(connection, name, schema=home) as target:
        staff = sign_out_staff(target)
    staff = _with_others(connection, name, manifest, home, staff)
    prepare_session(connection)
    comment(connection, name, None)
    return staff


@contextmanager
def drop_on_failure(connection, name: str, progress: Progress) -> Iterator[None]:
    """Run the block; if it raises, drop the database `name`, or report that it is left over."""
    try:
        yield
    except BaseException:
        try:
            connection.close()  # Its session may have been ended.
            prepare_session(connection)
            drop(connection, name)
        except Error as error:
            progress.say(
                f"The unfinished database {name} could not be dropped ({explain(error)}): DROP DATABASE {quote(name)};"
            )
        raise


def require_name(connection, name: str) -> None:
    """Raise Refusal if `name` cannot be the name of another database to restore into."""
    if name == read_origin(connection).database:
        raise Refusal(f"{name} is the database in use: leave out --into to restore over it, or give another name.")
    if not name or len(name.encode()) > 63 or name in (*MAINTENANCE, "template0"):
        raise Refusal(f"“{name}” is empty, reserved or longer than 63 bytes: give --into another name.")


def restore_over(
    connection,
    store: Store,
    manifest: Manifest,
    progress: Progress,
    *,
    empty: bool,
    trust: Sequence[str] = (),
    without: Sequence[str] = (),
    extensions: Sequence[str] = (),
) -> Replaced:
    """Restore into a new database, compare it, and swap it with the one of `connection`; return the old one, which is kept.

    Until the swap, which is one transaction, the old database stays unchanged and in use. Raises Refusal, with nothing changed,
    if a prepared transaction, a role or the backup itself prevents it, or if the database must be `empty` and no longer is.
    """
    with connection.direct():
        connection.ensure_connection()
        current, description = fetch_one(connection, COMMENT_SQL)
        # The mark of an unfinished restore with --into, which this one replaces.
        if description and description.startswith(MARK):
            description = None
        beside = require_swappable(connection, current)
        read_attached(connection).require_no_prepared(current)
        oid, stamp = read_origin(connection).oid, stamp_of(connection)
        short = current.encode()[:30].decode(errors="ignore")
        new, old = f"{short}_restored_{stamp}", f"{short}_before_{stamp}"
        prepare_session(connection)
        drop_leftovers(connection, RESTORE)
        started = _restore_new(
            connection, new, store, manifest, progress, trust=trust, without=without, extensions=extensions, purpose=RESTORE
        )
        with drop_on_failure(connection, new, progress), connection_to(connection, beside) as elsewhere:
            copy_properties(connection, elsewhere, new, progress)
            if empty and is_used(connection):
                raise Refusal(
                    f"{current} is no longer empty: tables were created in it during the restore. Nothing was replaced."
                )
            # Before the swap, so that no session of the backup becomes valid even if this process is killed.
            staff, erasures = _sign_out_and_keep_erasures(connection, new, manifest, empty=empty)
            connection.close()
            swap(elsewhere, current, oid=oid, new=new, old=old, description=description, started=started)
        filled = False
        # Tables may also be created between the check and the swap.
        with suppress(Error), connection_to(connection, old) as replaced:
            filled = empty and is_used(replaced)
    return Replaced(old, filled, staff, erasures)


def _sign_out_and_keep_erasures(connection, new: str, manifest: Manifest, *, empty: bool) -> tuple[StaffChanges, Erasures]:
    """Sign all staff out of the database `new`, and copy to it the erasures recorded in that of `connection`, unless that is `empty`."""

    def run() -> tuple[StaffChanges, Erasures]:
        home = _home(connection, manifest, empty=empty)
        with connection_to(connection, new, schema=home) as target:
            staff = sign_out_staff(target, None if empty else connection)
            erasures = Erasures() if empty else keep_erasures(target, connection)
        return _with_others(connection, new, manifest, home, staff), erasures

    return _if_lost_again(connection, run)


def _if_lost_again(connection, run: Callable[[], T]) -> T:
    """Return what `run` returns; run it once more if a connection is lost."""
    try:
        return run()
    except Error as error:
        if not is_lost(error):
            raise
    connection.close()
    return run()


def _home(connection, manifest: Manifest, *, empty: bool) -> str | None:
    """Return the schema of the restored tables that replace those of `connection`."""
    home = home_of(manifest)
    own = None if empty else read_home(connection)[0]
    return own if own in other_homes(manifest, home) else home


def _with_others(connection, name: str, manifest: Manifest, home: str | None, staff: StaffChanges) -> StaffChanges:
    """Sign the staff of other installations, in other schemas than `home`, out of the database `name` too; return `staff` with them."""
    for schema in other_homes(manifest, home):
        with connection_to(connection, name, schema=schema) as target:
            others = sign_out_staff(target)
        staff = replace(staff, ended=staff.ended + others.ended, error=staff.error or others.error)
    return staff


def stamp_of(connection) -> str:
    """Return the server's time as a suffix for database names."""
    return f"{read_clock(connection).now():%Y%m%dT%H%M%S%f}"


def _is_elsewhere(connection, manifest: Manifest) -> bool:
    """Return whether the database of `connection` has not the privileges and settings of the original: one on a new server, or a new one."""
    origin = read_origin(connection)
    return not manifest.is_of(origin) or (manifest.oid != origin.oid and not is_used(connection))


def _restore(
    connection,
    name: str,
    dump: FileIO,
    manifest: Manifest,
    progress: Progress,
    *,
    without: Sequence[str],
    extensions: Sequence[str],
    elsewhere: bool,
) -> None:
    with connection_to(connection, name, schema=home_of(manifest)) as target:
        left_out = load(target, dump, manifest, progress, without=without, extensions=extensions, elsewhere=elsewhere)
        computed = read_computed(target)
        if reason := compare(target, manifest, progress, left_out):
            changed = sorted({one.extension for name, one in manifest.registered.items() if name in reason})
            cure = f" If {', '.join(changed)} changes its own rows, leave it out with --without-extension." if changed else ""
            raise Refusal(
                f"The restored database differs from {manifest.name}: {reason}. Nothing was replaced; use another backup.{cure}"
            )
    if computed:
        progress.say(
            f"Not compared: {COMPUTED}{', '.join(computed)}. The backup does not contain them; the restore recomputed them, and"
            " their values differ if a function that they use was replaced after the rows had been written."
        )
