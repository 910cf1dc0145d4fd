"""Migrations on a database in use: one run at a time, short waits for locks, and every run in the journal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error, connections

from fly2any.postgres.search_path import local

from ..errors import Refusal, first_line, sqlstate
from ..extensions import refuse_untrusted
from ..progress import Progress
from ..schema import contract as contracts
from ..schema.protected_tables import protect
from ..schema.untrusted_code import block_untrusted_triggers
from ..server import read_home
from ..sql import LONGEST_IDLE
from ..units import span
from . import journal
from .activity import cancel_waiters, terminate
from .advisory_locks import MIGRATION_LOCK, advisory_lock
from .concurrent_indexes import BuiltIndex, build
from .losses import Consent
from .retry import DEADLOCK, LOCKED_OUT, try_again
from .reversing import SAVEPOINT, Reversal
from .watcher import Watcher, say_cancelled

T = TypeVar("T")

COMMENTS = re.compile(r"(?:\s+|--[^\n]*|/\*.*?\*/)*", re.S)
# Other sessions queue behind a statement that waits for a lock, so no statement waits long. A concurrent build blocks no other
# session and would leave an invalid index if it were cancelled, so it has no time limit.
CONCURRENTLY = re.compile(r"\s*(CREATE\s+(UNIQUE\s+)?INDEX|DROP\s+INDEX|REINDEX\b.*?)\s+CONCURRENTLY\b", re.I | re.S)
# The search path with the schema of pg_trgm added, before the temporary one; no row if the path has it already.
PATH_WITH_TRIGRAMS_SQL = """
    SELECT pg_catalog.regexp_replace(current_setting('search_path'), '(, )?"?pg_temp"?$', '')
           || ', ' || pg_catalog.quote_ident(n.nspname) || ', pg_temp'
    FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_trgm' AND n.nspname <> ALL (current_schemas(true))
"""


HELD_SQL = """
    SELECT 1 FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() AND classid = 0::oid AND objid = %s::oid AND objsubid = 1 AND granted
"""
KNOWN_SQL = """
    SELECT COALESCE(pg_catalog.array_agg(name ORDER BY name), '{}') FROM pg_catalog.pg_settings WHERE name = ANY (%s::text[])
"""
OPERATOR_CLASS = "gin_trgm_ops"
ENDLESS = ("statement_timeout", "transaction_timeout", "idle_session_timeout")
# A transaction that changed a reference table, or read shards before it drops them, must use one connection to each node.
ONE_CONNECTION = {"citus.multi_shard_modify_mode": "sequential", "citus.max_adaptive_executor_pool_size": "1"}
IDLE = "idle_in_transaction_session_timeout"
SHORTEST_WAIT = 0.1  # Seconds: most transactions of the site end within it.
THERE_ALREADY = ("42P07", "42701", "42710")  # Duplicate relation, column or other object.


def require_utf8(connection) -> None:
    """Raise Refusal for a database of another encoding, in which a later migration would fail."""
    encoding = connection.connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise Refusal(
            f"The database's encoding is {encoding}, in which the migrations cannot run: dump it, create a new database with"
            " ENCODING 'UTF8' TEMPLATE template0, restore the dump there, and run the command again."
        )


class Run:
    """A run of migrations over one connection, which holds the migration lock."""

    def __init__(self, connection, *, patience: float, progress: Progress):
        self.connection = connection
        self.patience = patience
        self.progress = progress
        self.watcher = Watcher(connection, progress)
        self.session = connection.connection
        self.migration = ""
        self.reversal: Reversal | None = None  # The Reversal of the current migration.
        self.waited = 0.0  # Seconds that this attempt of an atomic migration waited for locks, before the current statement.
        self.attempting = False
        self.endless = self.ask(KNOWN_SQL, [*ENDLESS])
        self.of_citus = self.ask(KNOWN_SQL, [*ONE_CONNECTION])

    def migrate(self, migration, direction: str, action: Callable[[], T], *, consent: Consent | None = None) -> T:
        """Run `action`, which applies or reverses `migration`, and return its result; retry it while it is locked out.

        With `consent` it is a reversal, which deletes rows only if the consent allows it.
        """
        self.migration = f"{migration.app_label}.{migration.name}"
        if self.connection.connection is not self.session:
            raise Refusal("The connection was replaced during the run, so the migration lock is lost: run the command again.")
        if direction == "forwards":
            require_utf8(self.connection)
        self.waited = 0.0
        self.settle()  # Reset the settings of the previous migration.
        if not self.ask(HELD_SQL, MIGRATION_LOCK):
            raise Refusal(
                "A migration released the migration lock (it runs DISCARD ALL or pg_advisory_unlock_all), so another run may have begun:"
                " remove that statement, and run the command again."
            )
        journal.ensure(self.connection)
        retried = partial(self.with_retries, what=self.migration)
        with journal.recorded(self.connection, self.migration, direction, retried), self.reversing(consent):
            if migration.atomic:
                once = partial(self.reversal.transaction, action) if self.reversal else action
                return self.with_retries(partial(self.attempt, once), what=self.migration)
            try:
                return action()  # Each statement is retried by itself, because committed ones cannot be run again.
            except Error as error:
                if (
                    direction == "forwards"
                    and sqlstate(error) in THERE_ALREADY
                    and self.migration not in contracts.load().migrations
                ):
                    raise Refusal(
                        f"{self.migration} is not atomic, and an object that it creates already exists ({first_line(str(error))}), perhaps from an"
                        " interrupted run: drop the object and run the command again, or, if everything the migration creates exists, run"
                        f" `manage.py migrate --fake {self.migration.replace('.', ' ')}`."
                    ) from error
                if sqlstate(error) in LOCKED_OUT:  # The migration itself began this transaction, so it is not retried.
                    raise self.locked_out(self.migration, self.watcher.seconds) from error
                raise

    def block_untrusted_triggers(self) -> None:
        with self.watched():
            block_untrusted_triggers(self.connection)

    def refuse_untrusted_extension(self) -> None:
        refuse_untrusted(self.connection, read_home(self.connection)[0] or "")

    def attempt(self, action: Callable[[], T]) -> T:
        """Run `action` and return its result; its waits for locks together last about as long as one statement may wait."""
        self.waited, self.attempting = 0.0, True
        try:
            return action()
        finally:
            self.attempting = False

    @contextmanager
    def reversing(self, consent: Consent | None) -> Iterator[None]:
        if consent:
            consent.read_backup()
        self.reversal = Reversal(self.connection, self.migration, consent, self.watched) if consent else None
        try:
            yield
        finally:
            self.reversal = None

    def with_retries(self, action: Callable[[], T], *, what: str) -> T:
        """Run `action` and return its result, retrying while it is locked out; then raise LockedOut, which names the blockers."""
        begun = time.monotonic()
        try:
            return try_again(action, patience=self.patience, again=lambda error, pause: self.again(what, error, pause))
        except Error as error:
            if sqlstate(error) not in LOCKED_OUT:
                raise
            raise self.locked_out(what, time.monotonic() - begun) from error

    def again(self, what: str, error: Error, pause: float) -> None:
        behind = f" for {self.watcher.blockers[0]}" if self.watcher.blockers else ""
        if sqlstate(error) == DEADLOCK:
            self.cancel_waiters()
            self.progress.say(
                f"{what} ran into a deadlock{behind.replace(' for', ' with', 1)} and was rolled back; retrying in {pause:.1f} s."
            )
        else:
            seconds = self.waited + self.watcher.seconds
            self.progress.say(
                f"{what} waited {span(seconds)}{behind} and gave way to other sessions; retrying in {pause:.1f} s."
            )

    def cancel_waiters(self) -> None:
        """Cancel other sessions' waits for the migration lock; raise LockedOut for one that this role may not cancel.

        A session that waits in pg_advisory_lock holds a snapshot, and a concurrent build waits for that snapshot to end.
        """
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            cancelled, left = cancel_waiters(cursor, MIGRATION_LOCK)
        say_cancelled(self.progress, cancelled)
        if left:
            raise LockedOut(
                f"The session of {left[0]} waits for the migration lock that this run holds, and the run would in turn wait for that"
                f" session. The role {self.ask('SELECT current_user')} may not cancel it. As {left[0].role} or a superuser, run"
                f" SELECT pg_cancel_backend({left[0].pid}); or wait until the session ends. Then run the command again."
            )

    def locked_out(self, what: str, seconds: float) -> LockedOut:
        blockers = self.watcher.blockers
        if not blockers:
            return LockedOut(
                f"{what} did not get a lock within {span(seconds)}: run the command again when the database is less busy."
            )
        names = "; ".join(map(str, blockers))
        cure = " ".join(terminate(blocker) for blocker in blockers)
        return LockedOut(
            f"{what} did not get a lock within {span(seconds)}, because of {names}: run the command again when that transaction has"
            f" ended, or end it: {cure}"
        )

    # Every statement passes through here, including those of RunSQL and RunPython.

    def __call__(self, execute, statement, parameters, many, context) -> Any:
        text = str(statement)
        text = text[COMMENTS.match(text).end() :]  # type: ignore[union-attr]
        if self.connection.in_atomic_block and SAVEPOINT.fullmatch(text):
            # It waits for no lock; watched, it would make the run forget who blocked the statement before it.
            return execute(statement, parameters, many, context)
        if OPERATOR_CLASS in text:  # Another role may have created the extension after the run began.
            self.refuse_untrusted_extension()
        concurrent = CONCURRENTLY.match(text) is not None
        rows = list(parameters) if many else parameters  # A list, because it may be run more than once.

        def run():
            with self.watched(concurrent=concurrent), self.with_trigram_schema(text):
                return execute(statement, rows, many, context)

        if concurrent:
            return self.concurrently(text, run)
        once = partial(self.reversal.statement, text, run) if self.reversal else run
        if self.connection.in_atomic_block:  # Then the whole migration is rolled back and run again.
            return once()
        return self.with_retries(once, what=self.migration or "the run")

    @contextmanager
    def watched(self, *, concurrent: bool = False) -> Iterator[None]:
        """Watch the statement inside, which may wait for a lock; its wait shortens the lock timeout of the next one.

        The site, too, waits for the locks that the attempt already holds.
        """
        with self.watcher.statement(self.migration or "the run", concurrent=concurrent):
            yield
        if self.attempting and self.watcher.blockers:
            self.waited += self.watcher.seconds
            left = max(settings.LOCK_TIMEOUT / 1000 - self.waited, SHORTEST_WAIT)
            self.execute(f"SET LOCAL lock_timeout TO '{left * 1000:.0f}ms'")

    @contextmanager
    def with_trigram_schema(self, text: str) -> Iterator[None]:
        """Add the schema of pg_trgm to the search path for a statement that names its operator class, if it is not in it.

        Supabase, for example, puts the extension into the schema `extensions`.
        """
        path = self.ask(PATH_WITH_TRIGRAMS_SQL) if OPERATOR_CLASS in text else None
        if path is None:
            yield
            return
        before = self.ask("SELECT current_setting('search_path')")
        self.ask("SELECT pg_catalog.set_config('search_path', %s, false)", path)
        try:
            yield
        finally:
            with suppress(Error):  # The transaction failed, and its rollback resets the setting.
                self.ask("SELECT pg_catalog.set_config('search_path', %s, false)", before)

    def concurrently(self, text: str, run: Callable[[], T]) -> T | None:
        index = BuiltIndex.of(text)
        return self.with_retries(
            lambda: build(self, index, run) if index else self.without_lock_timeout(run), what=self.migration or "the run"
        )

    def without_lock_timeout(self, action: Callable[[], T]) -> T:
        """Run `action` without a lock timeout, and return its result."""
        self.cancel_waiters()
        self.set("lock_timeout", "0")
        try:
            return action()
        finally:
            with suppress(Error):
                self.set("lock_timeout", f"{settings.LOCK_TIMEOUT}ms")

    def settle(self) -> None:
        """Override the time limits of the role or provider, which would cancel long builds and pauses.

        A transaction whose client is gone keeps its locks no longer than LONGEST_IDLE.
        """
        limits = "".join(f"SET {name} TO '0'; " for name in self.endless)
        limits += "".join(f"SET {name} TO '{ONE_CONNECTION[name]}'; " for name in self.of_citus)
        idle = f"SET {IDLE} TO '{LONGEST_IDLE}'; "
        self.execute(f"SET lock_timeout TO '{settings.LOCK_TIMEOUT}ms'; {limits}{idle}{self.sets_path}")

    @property
    def sets_path(self) -> str:
        """The statement that sets the connection's own search path again: RESET would search what "$user" stands for by now."""
        own = getattr(self.connection.connection, "own_path", None)
        return local(own).replace("SET LOCAL", "SET", 1) if own else "RESET search_path"

    def set(self, name: str, value: str) -> None:
        self.execute(f"SET {name} TO '{value}'")

    # Statements of the run itself, which are not watched.

    def execute(self, statement: str) -> None:
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            cursor.execute(statement)

    def ask(self, question: str, *parameters) -> Any:
        """Return the first value of the first row, None without a row."""
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            row = cursor.execute(question, parameters).fetchone()
        return row and row[0]


class LockedOut(Refusal):
    """A lock was not granted within `--lock-wait`; the message names its holders."""


@contextmanager
def migrating(alias: str, *, patience: float, progress: Progress) -> Iterator[Run]:
    """Hold the migration lock of the database `alias`, over its direct connection, and yield the run inside it.

    Raises Refusal if the lock is not granted, or if the connection goes through a transaction pooler.
    """
    if alias == "replica":
        raise Refusal("The replica gets its schema from its primary: run the command without --database replica.")
    connection = connections[alias]
    with ExitStack() as stack:
        stack.enter_context(connection.direct())  # type: ignore[attr-defined]
        connection.ensure_connection()
        stack.enter_context(advisory_lock(connection, MIGRATION_LOCK, patience=patience, say=progress.say))
        stack.callback(protect, connection)  # Before the lock is released, even if the run failed.
        run = Run(connection, patience=patience, progress=progress)
        stack.enter_context(run.watcher.running())
        stack.enter_context(_session(run))
        run.with_retries(run.block_untrusted_triggers, what="the run")
        run.refuse_untrusted_extension()
        stack.enter_context(connection.execute_wrapper(run))
        yield run


@contextmanager
def _session(run: Run) -> Iterator[None]:
    run.settle()
    try:
        yield
    finally:
        with suppress(Error, AttributeError):  # The connection may be lost.
            run.execute(
                "; ".join([run.sets_path, *(f"RESET {name}" for name in ("lock_timeout", IDLE, *run.endless, *run.of_citus))])
            )
