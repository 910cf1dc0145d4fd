"""Reads lists, overviews and the page of a route from the replica, unless it lags too far behind for the page."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from django.conf import settings
from django.core.cache import cache
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.http import HttpRequest

from fly2any.database.database_identity import Origin, read_origin
from fly2any.database.errors import explain
from fly2any.database.schema.contract import PHASE7_APPS
from fly2any.database.units import span

REPLICA = "replica"
PAGES = ("_changelist", "_overview", "_route")  # Forms are not among them, because they must show the current row.
SILENT = 30  # Seconds before a replica that did not answer is tried again.
MOMENT = 0.1  # Seconds that a replica has to replay the latest commits.
WRITTEN = "written"  # Session key: the primary's WAL position after the user's last change.

PRIMARY_SQL = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
REPLICA_SQL = """
    SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text,
           EXTRACT(epoch FROM now() - pg_catalog.pg_last_xact_replay_timestamp())::float
"""

_alias: ContextVar[str] = ContextVar("alias", default=DEFAULT_DB_ALIAS)
# The primary's WAL position, and when this process read it.
_seen: deque[tuple[int, float]] = deque(maxlen=60)
_log = logging.getLogger("fly2any.replica")


@dataclass(frozen=True, slots=True)
class Source:
    """The alias that a page is read from, and why not from the replica, "" if there is nothing to report."""

    alias: str
    note: str = ""


PRIMARY = Source(DEFAULT_DB_ALIAS)


class Missing(Exception):  # noqa: N818  It may be on the primary.
    """The page's row is not on the replica."""


class Router:
    """Routes a page's reads of our tables to its source, and leaves other databases alone."""

    def db_for_read(self, model, **hints):
        if model._meta.app_label in PHASE7_APPS and _alias.get() == REPLICA:
            return REPLICA
        return self.db_for_write(model, **hints)

    def db_for_write(self, model, instance=None, **hints):
        return DEFAULT_DB_ALIAS if instance is not None and instance._state.db == REPLICA else None

    def allow_relation(self, one, other, **hints):
        return True  # Primary and replica have the same rows.

    def allow_migrate(self, db, app_label, **hints):
        return db != REPLICA


def current():
    """Return the connection that the page is read from."""
    return connections[_alias.get()]


@contextmanager
def reading_from(source: Source) -> Iterator[None]:
    token = _alias.set(source.alias)
    try:
        yield
    finally:
        _alias.reset(token)


def source_of(request: HttpRequest) -> Source:
    """Return the source of the page: the replica if it exists, answers and is recent enough for the page."""
    page = (request.resolver_match.url_name if request.resolver_match else None) or ""
    of_ours = page.endswith(PAGES) and page.startswith(tuple(f"{app}_" for app in PHASE7_APPS))
    if REPLICA not in connections.settings or request.method == "POST" or not of_ours:
        return PRIMARY
    if cache.get("fly2any.replica.silent"):
        return _primary("The replica does not answer")
    try:
        origin, (position,) = _origin(DEFAULT_DB_ALIAS), _ask(DEFAULT_DB_ALIAS, PRIMARY_SQL)
    except Error as error:
        _log.warning("the replica is not read: cannot read the primary's WAL position: %s", explain(error))
        return PRIMARY
    now = _number(position)
    if not _seen or time.monotonic() - _seen[-1][1] >= 1:
        _seen.append((now, time.monotonic()))
    try:
        is_standby, replayed, age = _ask(REPLICA, REPLICA_SQL)
        if not is_standby:
            return _primary("POSTGRES_REPLICA_URL does not point to a standby")
        if _origin(REPLICA) != origin:
            return _primary("POSTGRES_REPLICA_URL points to another database")
        behind = _behind(now, _number(replayed), age)
        if behind is None or behind > settings.REPLICA_MAX_LAG:
            time.sleep(MOMENT)
            is_standby, replayed, age = _ask(REPLICA, REPLICA_SQL)
            behind = _behind(now, _number(replayed), age)
        if _number(replayed) > now and _number(replayed) > _number(_ask(DEFAULT_DB_ALIAS, PRIMARY_SQL)[0]):
            return _primary("The replica is ahead of the primary, so it follows another server")
    except Error as error:
        return failed(error)
    if behind is None or behind > settings.REPLICA_MAX_LAG:
        return _primary(f"The replica {'has replayed nothing yet' if behind is None else f'is {span(behind)} behind'}")
    written = _number(request.session.get(WRITTEN))
    # Users must see what they just saved; a position ahead of the primary belongs to another cluster.
    return PRIMARY if _number(replayed) < written <= now else Source(REPLICA)


def _ask(alias: str, statement: str) -> tuple:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


@functools.cache
def _origin(alias: str) -> Origin:
    """Return the identity of an alias's database, equal on a primary and its standby; read once per process."""
    return replace(read_origin(connections[alias]), place="")


def _number(position: str | None) -> int:
    """Return a WAL position, `16/B374D848`, as a number of bytes."""
    high, _, low = (position or "0/0").partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _behind(now: int, replayed: int, age: float | None) -> float | None:
    """Return the replica's lag in seconds at most, None if it is unknown.

    `age` is the age of its last replayed transaction, which overstates the lag if no transaction came. If it has replayed the
    position that this process last read from the primary, the lag is at most the age of that position.
    """
    if replayed >= now:
        return 0
    reached = next((moment for position, moment in reversed(tuple(_seen)) if position <= replayed), None)
    known = [seconds for seconds in (age, None if reached is None else time.monotonic() - reached) if seconds is not None]
    return min(known, default=None)


def _primary(why: str) -> Source:
    return Source(DEFAULT_DB_ALIAS, f"{why}: this page is read from the primary.")


def failed(error: Error) -> Source:
    """Return the primary after the replica failed; log the reason, and do not ask the replica again for a while."""
    _log.warning("the replica is not read for %s s: %s", SILENT, explain(error))
    cache.set("fly2any.replica.silent", True, SILENT)
    connections[REPLICA].close()
    return _primary("The replica does not answer")


def remember_writing(request: HttpRequest) -> None:
    """Store in the session the WAL position that the replica must have replayed to show the user's last change."""
    if REPLICA in connections.settings and request.user.is_authenticated:
        (request.session[WRITTEN],) = _ask(DEFAULT_DB_ALIAS, PRIMARY_SQL)
