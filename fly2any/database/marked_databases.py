"""Databases that our commands created beside another: marked with a comment, listed, and dropped only by that mark.

The mark of a running restore also keeps other commands from writing (`refuse_during_restore`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import Error
from psycopg import sql

from .clock import LIMIT
from .errors import Refusal, sqlstate
from .findings import Finding, Severity
from .sql import fetch_all, quote

MARK = "fly2any: "  # The prefix of a mark, before its JSON.
LONGEST_MARK = 2_000  # Bytes; a comment may have a gigabyte.
SCRATCH, RESTORE, INTO, BEFORE = "scratch", "restore", "into", "before"
WHAT = {
    SCRATCH: "Left by a command that did not finish, created",
    RESTORE: "Left by a restore that did not finish, created",
    INTO: "Left by a restore with --into that did not finish, so rows may be missing, created",
    BEFORE: "The database that a restore replaced, kept since",
}
GRACE = timedelta(hours=1)  # A running command sometimes has no session in its database.
OLD = timedelta(days=1)
IN_USE = "55006"
FACTS_SQL = "SELECT pg_catalog.current_database(), pg_catalog.clock_timestamp()"
# Every role sees comments and sessions of other databases, and may mark a database of its own.
DATABASES_SQL = f"""
    SELECT d.datname, CASE WHEN pg_catalog.octet_length(comment.text) < {LONGEST_MARK} AND pg_catalog.left(comment.text, {len(MARK)}) = '{MARK}' THEN comment.text END,
           (r.rolsuper OR r.rolname = current_user OR r.oid = c.datdba) AND pg_catalog.pg_has_role(r.oid, 'USAGE'),
           r.rolsuper OR r.rolname = current_user OR r.oid = c.datdba,
           EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS s WHERE s.datid = d.oid), pg_catalog.clock_timestamp(), c.datname,
           d.datconnlimit = -2
    FROM pg_catalog.pg_database AS d JOIN pg_catalog.pg_roles AS r ON r.oid = d.datdba
    JOIN pg_catalog.pg_database AS c ON c.datname = pg_catalog.current_database()
    CROSS JOIN LATERAL pg_catalog.shobj_description(d.oid, 'pg_database') AS comment (text)
    WHERE NOT d.datistemplate AND d.oid <> c.oid
    ORDER BY d.datname COLLATE "C"
"""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A database that a command created beside `of`, with the time by the server's clock; without a mark, `purpose` is ""."""

    name: str
    purpose: str
    made: datetime | None
    owned: bool  # trusted, and the current role may drop it
    trusted: bool  # owned by a role that may restore `of`
    used: bool
    age: timedelta  # Negative if a clock was ahead when it was marked.
    invalid: bool  # a DROP DATABASE was interrupted

    @property
    def may_be_worked_in(self) -> bool:
        """Return whether the command that created it may still be running."""
        return not self.invalid and (self.used or -LIMIT <= self.age <= GRACE)

    @property
    def finding(self) -> Finding:
        named = quote(self.name)
        if self.invalid:
            return Finding(
                Severity.WARNING, "server.leftover", self.name,
                "Its removal was interrupted: no client can connect to it, and it may have lost data.",
                f"DROP DATABASE {named};", is_sql=self.owned, loses="the database is dropped with everything in it",
            )  # fmt: skip
        if not self.purpose:
            return Finding(
                Severity.NOTE, "server.leftover", self.name,
                f"The name {self.name} looks like one that a restore creates, but no comment marks it as such.",
                f"Check what it holds. If it is not needed: DROP DATABASE {named};",
            )  # fmt: skip
        as_owner = "" if self.owned else " as its owner"
        return Finding(
            Severity.NOTE if self.purpose == BEFORE else Severity.WARNING, "server.leftover", self.name,
            f"{WHAT[self.purpose]} {self.made:%Y-%m-%d %H:%M} UTC{' (in the future, so a clock was wrong)' if self.age < -LIMIT else ''}.",
            f"DROP DATABASE {named};" if not as_owner else f"If it is not needed,{as_owner}: DROP DATABASE {named};",
            is_sql=not as_owner, loses="the database is dropped with everything in it",
        )  # fmt: skip


def mark(connection, name: str, purpose: str, *, of: str = "") -> None:
    """Mark the database `name` as made for `purpose` beside the database `of`, by default the connection's."""
    with connection.cursor() as cursor:
        cursor.execute(FACTS_SQL)
        current, now = cursor.fetchone()
        facts = {"purpose": purpose, "name": name, "of": of or current, "made": now.astimezone(UTC).isoformat()}
        comment(connection, name, MARK + json.dumps(facts))


def comment(connection, name: str, text: str | None) -> None:
    """Set the comment of the database `name`, or remove it."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(text)))


def read_leftovers(connection) -> Iterator[Leftover]:
    """Yield the databases made beside the connection's that no running command works in, by name."""
    for one in _marked(connection):
        if one.purpose in ("", BEFORE) or not one.may_be_worked_in:
            yield one


def drop_leftovers(connection, purpose: str) -> list[str]:
    """Drop unused databases of this role, or of one as which it may act, that were marked for `purpose` at least a day ago (server time); return their names."""
    dropped = []
    for one in list(_marked(connection)):
        if one.purpose == purpose and one.owned and not one.used and one.age > OLD:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(one.name)))
            except Error as error:
                if sqlstate(error) != IN_USE:  # A client has connected meanwhile.
                    raise
            else:
                dropped.append(one.name)
    return dropped


def refuse_during_restore(connection) -> None:
    """Raise Refusal while a restore is about to replace the connection's database, because writes would only be in the old one."""
    for one in _marked(connection):
        if one.purpose == RESTORE and one.trusted and one.may_be_worked_in:
            raise Refusal(
                f"Nothing was changed. A restore of this database is running, into {one.name}, and will replace it: try again when"
                f" it is done. If none is running: DROP DATABASE {quote(one.name)};"
            )


def _marked(connection) -> Iterator[Leftover]:
    rows = fetch_all(connection, DATABASES_SQL)
    for name, text, owned, trusted, used, now, current, invalid in rows:
        short = current.encode()[:30].decode(errors="ignore")
        facts = _facts(text)
        if facts.get("name") == name and facts.get("of") == current:
            made = facts["made"]
            yield Leftover(name, facts["purpose"], made, owned, trusted, used, now - made, invalid)
        elif not facts and re.fullmatch(rf"{re.escape(short)}_(restored|before)_\d{{8}}T\d{{6,12}}", name):
            yield Leftover(name, "", None, owned, trusted, used, timedelta(0), invalid)


def _facts(text: str | None) -> dict[str, Any]:
    """Return the facts in a mark, {} if `text` is not one, because every role may comment on its own databases."""
    try:
        facts = json.loads((text or "").removeprefix(MARK)) if (text or "").startswith(MARK) else {}
        if facts["purpose"] in WHAT and (made := datetime.fromisoformat(facts["made"])).tzinfo:
            return {**facts, "made": made.astimezone(UTC)}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass
    return {}
