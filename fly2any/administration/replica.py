"""Lists and overviews are read from the replica, while it is no further behind than the page can bear."""

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

from fly2any.database.errors import explain
from fly2any.database.schema.contract import PHASE7_APPS
from fly2any.database.server import Origin, read_origin
from fly2any.database.units import span

REPLICA = "replica"
PAGES = ("_changelist", "_overview", "_route")  # Not forms: what is saved over must be what there is.
SILENT = 30  # Seconds for which a replica that does not answer is not asked again.
MOMENT = 0.1  # Seconds that a replica is given for what was committed just now.
WRITTEN = "written"  # In the session: where the log of the primary was when its person last changed something.

PRIMARY_SQL = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
REPLICA_SQL = """
    SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text,
           EXTRACT(epoch FROM now() - pg_catalog.pg_last_xact_replay_timestamp())::float
"""

_alias: ContextVar[str] = ContextVar("alias", default=DEFAULT_DB_ALIAS)
# Where the log of the primary was, and when this process saw it there.
_seen: deque[tuple[int, float]] = deque(maxlen=60)
_log = logging.getLogger("fly2any.replica")


@dataclass(frozen=True, slots=True)
class Source:
    """Which of DATABASES a page is read from, and why not from the replica, "" where there is nothing to say."""

    alias: str
    note: str = ""


PRIMARY = Source(DEFAULT_DB_ALIAS)


class Missing(Exception):  # noqa: N818  Perhaps it is on the primary.
    """What a page is of is not on the replica."""


class Router:
    """Sends what a page reads of our tables to where it is read from, and says nothing of other databases."""

    def db_for_read(self, model, **hints):
        if model._meta.app_label in PHASE7_APPS and _alias.get() == REPLICA:
            return REPLICA
        return self.db_for_write(model, **hints)

    def db_for_write(self, model, instance=None, **hints):
        return DEFAULT_DB_ALIAS if instance is not None and instance._state.db == REPLICA else None

    def allow_relation(self, one, other, **hints):
        return True  # They are the same rows.

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
    """Return where the page is read from: the replica, where there is one, it answers, and it has all that the page must show."""
    page = (request.resolver_match.url_name if request.resolver_match else None) or ""
    of_ours = page.endswith(PAGES) and page.startswith(tuple(f"{app}_" for app in PHASE7_APPS))
    if REPLICA not in connections.settings or request.method == "POST" or not of_ours:
        return PRIMARY
    if cache.get("fly2any.replica.silent"):
        return _primary("The replica does not answer")
    try:
        origin, (position,) = _origin(DEFAULT_DB_ALIAS), _ask(DEFAULT_DB_ALIAS, PRIMARY_SQL)
    except Error as error:
        _log.warning("the replica is not read: the primary does not say where its log is: %s", explain(error))
        return PRIMARY
    now = _number(position)
    if not _seen or time.monotonic() - _seen[-1][1] >= 1:
        _seen.append((now, time.monotonic()))
    try:
        is_standby, replayed, age = _ask(REPLICA, REPLICA_SQL)
        if not is_standby:
            return _primary("POSTGRES_REPLICA_URL does not lead to a standby")
        if _origin(REPLICA) != origin:
            return _primary("POSTGRES_REPLICA_URL leads to another database")
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
    # What somebody just saved they must see; a position beyond the log is of another cluster's.
    return PRIMARY if _number(replayed) < written <= now else Source(REPLICA)


def _ask(alias: str, statement: str) -> tuple:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


@functools.cache
def _origin(alias: str) -> Origin:
    """Return whose database an alias leads to, on a primary and its standby the same; a process asks once."""
    return replace(read_origin(connections[alias]), place="")


def _number(position: str | None) -> int:
    """Return a position in the log, `16/B374D848`, as a number of bytes."""
    high, _, low = (position or "0/0").partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _behind(now: int, replayed: int, age: float | None) -> float | None:
    """Return how many seconds the replica is behind at most, None where nobody knows.

    Its last transaction is `age` old, which is little to go by where one has taken long, or none came; that it has what the
    primary had when this process last looked is more.
    """
    if replayed >= now:
        return 0
    reached = next((moment for position, moment in reversed(tuple(_seen)) if position <= replayed), None)
    known = [seconds for seconds in (age, None if reached is None else time.monotonic() - reached) if seconds is not None]
    return min(known, default=None)


def _primary(why: str) -> Source:
    return Source(DEFAULT_DB_ALIAS, f"{why}: this page is read from the primary.")


def failed(error: Error) -> Source:
    """Return the primary, for a replica that failed, which is then left alone for a while; the log says why."""
    _log.warning("the replica is not read for %s s: %s", SILENT, explain(error))
    cache.set("fly2any.replica.silent", True, SILENT)
    connections[REPLICA].close()
    return _primary("The replica does not answer")


def remember_writing(request: HttpRequest) -> None:
    """Keep in the session how far the replica must be for its person to see what they just changed."""
    if REPLICA in connections.settings and request.user.is_authenticated:
        (request.session[WRITTEN],) = _ask(DEFAULT_DB_ALIAS, PRIMARY_SQL)
