"""The options of user mappings of foreign servers, such as a password, which PostgreSQL shows to few roles."""

from __future__ import annotations

from ..progress import Progress
from ..sql import catalogue
from ..units import few

SHOWN = 5
# User mappings whose options, such as a password, this role cannot see: pg_dump dumps the mapping without them, and without an error.
HIDDEN_OPTIONS_SQL = """
    SELECT pg_catalog.quote_ident(m.usename) || ' for ' || pg_catalog.quote_ident(m.srvname)
    FROM pg_catalog.pg_user_mappings AS m JOIN pg_catalog.pg_foreign_server AS s ON s.oid = m.srvid
    WHERE NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user)
      AND NOT CASE WHEN m.umuser = 0 THEN pg_catalog.pg_has_role(s.srvowner, 'USAGE')
                   ELSE m.usename = current_user AND (pg_catalog.pg_has_role(s.srvowner, 'USAGE') OR pg_catalog.has_server_privilege(s.oid, 'USAGE')) END
    ORDER BY m.srvname COLLATE "C", m.usename COLLATE "C"
"""


def report_hidden_options(connection, progress: Progress) -> None:
    """Report to `progress` the user mappings that the dump may have without their options."""
    with catalogue(connection) as cursor:
        cursor.execute(HIDDEN_OPTIONS_SQL)
        found = [name for (name,) in cursor.fetchall()]
    if found:
        progress.say(
            f"Not in the backup: the options of user mappings, such as a password, which this role cannot see ({few(found, SHOWN)})."
            " Keep them elsewhere, or take the backup as a superuser."
        )
