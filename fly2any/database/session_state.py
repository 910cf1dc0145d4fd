"""What code of other roles may change in our session: settings, and temporary tables, which come before every schema of the search path.

A foreign key from another role's table runs that role's code in the session that deletes or changes rows of ours. A rollback undoes
such changes; a commit would keep them for the next transaction, and for the next user of a pooled connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from .errors import Refusal
from .sql import TRUSTED_ROLES_SQL, catalogue

# The statements that foreign keys follow, now or, deferred, at the end.
FOLLOWED = re.compile(r"\s*(?:DELETE|UPDATE|MERGE|SET\s+CONSTRAINTS)\b", re.IGNORECASE)
SESSION_SQL = """
    SELECT s.name, s.setting FROM pg_catalog.pg_settings AS s
    UNION ALL SELECT 'temporary tables', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class AS c WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())::pg_catalog.text
"""
# Whether a table of an untrusted role refers to another role's: its code then runs with deletions and changes of rows there.
REFERRED_SQL = f"""
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid JOIN pg_catalog.pg_class AS t ON t.oid = k.confrelid
        WHERE k.contype = 'f' AND c.relowner <> t.relowner AND c.relowner NOT IN ({TRUSTED_ROLES_SQL.format(schema="t.relnamespace")}))
"""


def read_session(cursor) -> dict[str, str]:
    """Return the settings of the session, and the number of its temporary tables."""
    cursor.execute(SESSION_SQL)
    return dict(cursor.fetchall())


def require_unchanged(before: dict[str, str], after: dict[str, str]) -> None:
    """Raise Refusal if code of another role changed the session: later statements could mean something else."""
    if changed := sorted(name for name, value in before.items() if after.get(name) != value):
        raise Refusal(f"Code of another role's table changed the session's {', '.join(changed)}: nothing was changed.")


def is_referred(connection) -> bool:
    """Return whether deletions and changes of rows may run code of another role, by its foreign keys."""
    with catalogue(connection) as cursor:
        cursor.execute(REFERRED_SQL)
        return cursor.fetchone()[0]


def watched_writes(connection) -> Callable[..., Any]:
    """Return an execute wrapper that raises Refusal after a statement that deletes or changes rows, if the session is another then."""
    asked: list[bool] = []

    def watch(execute, statement, parameters, many, context):
        if not (isinstance(statement, str) and FOLLOWED.match(statement)):
            return execute(statement, parameters, many, context)
        asked[:] = asked or [is_referred(connection)]
        with unchanged_session(connection) if asked[0] else nullcontext():
            return execute(statement, parameters, many, context)

    return watch


@contextmanager
def unchanged_session(connection) -> Iterator[None]:
    """Run a statement, in a transaction, that may follow foreign keys; raise Refusal if code of another role changed the session.

    The transaction must then be rolled back. Deferred constraints run later: SET CONSTRAINTS is such a statement, too.
    """
    with connection.cursor() as cursor:
        before = read_session(cursor)
        yield
        require_unchanged(before, read_session(cursor))
