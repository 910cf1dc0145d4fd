"""Lists and overviews are read from the replica, while it is no further behind than the page can bear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.http import HttpRequest

from fly2any.database.contract import PHASE7_APPS
from fly2any.database.units import span

REPLICA = "replica"
PAGES = ("_changelist", "_overview", "_route")  # Not forms: what is saved over must be what there is.
SILENT = 30  # Seconds for which a replica that does not answer is not asked again.
WRITTEN = "written"  # In the session: where the log of the primary was when its person last changed something.

NOW_SQL = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
# Behind is how old the last transaction is that it has, where there is a newer one.
BEHIND_SQL = """
    SELECT pg_catalog.pg_is_in_recovery(),
           pg_catalog.pg_last_wal_replay_lsn() >= %s::pg_lsn,
           COALESCE(pg_catalog.pg_last_wal_replay_lsn() >= %s::pg_lsn, true),
           EXTRACT(epoch FROM now() - pg_catalog.pg_last_xact_replay_timestamp())::float
"""

_alias: ContextVar[str] = ContextVar("alias", default=DEFAULT_DB_ALIAS)


@dataclass(frozen=True, slots=True)
class Source:
    """Which of DATABASES a page is read from, and why not from the replica, "" where there is nothing to say."""

    alias: str
    note: str = ""


PRIMARY = Source(DEFAULT_DB_ALIAS)


class Router:
    """Sends what a page reads of our tables to where it is read from; everything else to the primary."""

    def db_for_read(self, model, **hints):
        return _alias.get() if model._meta.app_label in PHASE7_APPS else DEFAULT_DB_ALIAS

    def db_for_write(self, model, **hints):
        return DEFAULT_DB_ALIAS

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
    page = request.resolver_match.url_name if request.resolver_match else None
    if REPLICA not in connections.settings or request.method == "POST" or not (page or "").endswith(PAGES):
        return PRIMARY
    if cache.get("fly2any.replica.silent"):
        return Source(DEFAULT_DB_ALIAS, "The replica does not answer: this page is read from the primary.")
    try:
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(NOW_SQL)
            now = cursor.fetchone()[0]
        with connections[REPLICA].cursor() as cursor:
            cursor.execute(BEHIND_SQL, [now, request.session.get(WRITTEN)])
            is_standby, has_all, has_own, behind = cursor.fetchone()
    except Error:
        return failed()
    if not is_standby:
        return Source(DEFAULT_DB_ALIAS, "POSTGRES_REPLICA_URL leads to no standby: this page is read from the primary.")
    if not has_all and (behind is None or behind > settings.REPLICA_MAX_LAG):
        how = "has replayed nothing yet" if behind is None else f"is {span(behind)} behind"
        return Source(DEFAULT_DB_ALIAS, f"The replica {how}: this page is read from the primary.")
    return Source(REPLICA) if has_own else PRIMARY  # What somebody just saved they must see.


def failed() -> Source:
    """Return the primary, for a replica that failed, which is then left alone for a while."""
    cache.set("fly2any.replica.silent", True, SILENT)
    connections[REPLICA].close()
    return Source(DEFAULT_DB_ALIAS, "The replica does not answer: this page is read from the primary.")


def remember_writing(request: HttpRequest) -> None:
    """Keep in the session how far the replica must be for its person to see what they just changed."""
    if REPLICA in connections.settings:
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(NOW_SQL)
            request.session[WRITTEN] = cursor.fetchone()[0]
