"""Adds demo data to all tables of the four apps, in SQL on the server: the same rows for the same seed.

functions.py makes a few users very active. management/commands/dbseed.py refuses where DEBUG is off, and creates the demo staff.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time

from django.apps import apps

from ..errors import Refusal
from ..marked_databases import refuse_during_restore
from ..schema.relation_kinds import refuse_on_worker
from ..schema.untrusted_code import refuse_untrusted_code
from ..server import flush_statistics, read_schema
from ..sql import PEOPLE, pinned, quote
from . import places
from .functions import CLEAR_SQL, FUNCTIONS_SQL
from .statements import ON_CONFLICT, STATEMENTS

DEMO_DOMAIN = "@demo.fly2any.example"  # Reserved by RFC 2606.
CHUNK = 5_000  # Users in one transaction.

REAL_USERS_SQL = f"SELECT EXISTS (SELECT FROM {quote(PEOPLE)} WHERE email NOT LIKE %(pattern)s)"


def seed(
    connection,
    *,
    users: int,
    seed: int,
    until: date,
    among_real_users: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """Add the demo data of `users` users, with rows until shortly before `until`, a moment or the beginning of a day in UTC;
    return the number of rows added to each table.

    Existing rows stay as they are. Calls `progress` with the number of users done. Each chunk of users is
    one transaction: after an interruption a second run adds what is missing. Raises Refusal, having written nothing,
    where there are real users and `among_real_users` is false.
    """
    refuse_on_worker(connection)
    refuse_during_restore(connection)
    refuse_untrusted_code(connection, STATEMENTS)
    if not among_real_users:
        _refuse_among_real_users(connection)
    values = {
        "seed": str(seed),
        "until": until if isinstance(until, datetime) else datetime.combine(until, time(), UTC),
        "domain": DEMO_DOMAIN,
        **_choices(),
    }
    added = dict.fromkeys(STATEMENTS, 0)
    schema = quote(read_schema(connection)).replace("%", "%%")
    for low in range(1, users + 1, CHUNK):
        high = min(low + CHUNK, users + 1)
        with pinned(connection, read_only=False), connection.cursor() as cursor:
            refuse_untrusted_code(connection, STATEMENTS)
            values["routes"] = _prepare(cursor, seed)
            for table, statement in STATEMENTS.items():
                cursor.execute(
                    statement.replace("INTO ", f"INTO {schema}.", 1) + ON_CONFLICT[table], {**values, "low": low, "high": high}
                )
                added[table] += cursor.rowcount
            cursor.execute(CLEAR_SQL)
        progress(high - 1)
    if any(added.values()):
        flush_statistics(connection)
        with pinned(connection, read_only=False), connection.cursor() as cursor:
            for table in STATEMENTS:
                cursor.execute(f"ANALYZE {schema}.{table}", [])
    return added


def _refuse_among_real_users(connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute(REAL_USERS_SQL, {"pattern": f"%{DEMO_DOMAIN}"})
        if cursor.fetchone()[0]:
            raise Refusal(
                "This database holds users who are not demo data, so nothing was added: give --yes (make admin SEED=--yes) to add demo data anyway."
            )


def _prepare(cursor, seed: int) -> int:
    """Make the functions and the routes of this transaction; return the number of routes."""
    cursor.execute(FUNCTIONS_SQL.format(seed=int(seed)))
    rows = [(n, r.origin, r.destination, r.city, r.country, r.kilometres) for n, r in enumerate(places.routes())]
    with cursor.db.wrap_database_errors, cursor.copy("COPY pg_temp.seed_routes FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    cursor.execute("ANALYZE pg_temp.seed_routes")
    return len(rows)


def _choices() -> dict[str, list[str]]:
    # A team's label is `what it does: who 🙂`.
    teams = dict(apps.get_model("ai_consultant", "Message")._meta.get_field("consultant_team").choices)  # type: ignore[arg-type]
    people = [label.partition(": ")[2].rpartition(" ") for label in teams.values()]
    return {
        "first_names": places.FIRST_NAMES,
        "last_names": places.LAST_NAMES,
        "airlines": places.AIRLINES,
        "airports": places.AIRPORTS,
        "teams": list(teams),
        "consultants": [name for name, _, _ in people],
        "emojis": [emoji for _, _, emoji in people],
    }
