"""Names of roles that are not valid in the encoding of the database.

Roles belong to the whole server, and the name of one that was created in a database of another encoding may be invalid in this one. pg_dump
writes it as it is, and no server accepts the statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import Refusal
from ..sql import catalogue
from ..terminal_text import one_line

# The roles that own the database or its objects, or that privileges, policies and default privileges name. namesend() returns a name as it
# is stored if the client's encoding is that of the database.
NAMES_SQL = """
    SELECT r.oid::bigint, pg_catalog.namesend(r.rolname), r.rolname
    FROM pg_catalog.pg_roles AS r
    WHERE pg_catalog.current_setting('server_encoding') = 'UTF8' AND pg_catalog.current_setting('client_encoding') = 'UTF8'
      AND r.oid IN (
        SELECT d.refobjid FROM pg_catalog.pg_shdepend AS d
        JOIN pg_catalog.pg_database AS this ON this.datname = pg_catalog.current_database()
        WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
          AND (d.dbid = this.oid OR d.classid = 'pg_catalog.pg_database'::regclass AND d.objid = this.oid))
    ORDER BY r.oid
"""
RENAME = (
    "DO $$ BEGIN EXECUTE (SELECT pg_catalog.format('ALTER ROLE %I RENAME TO %I', rolname, 'role_{oid}') FROM pg_catalog.pg_roles"
    " WHERE oid = {oid}); END $$;"
)
INVALID = re.compile(r"\\x[89a-f][0-9a-f]")  # A byte of an invalid name, as a manifest has it.


def require_valid_names(connection) -> None:
    """Raise Refusal if a role that the dump names has a name that is not valid in UTF-8."""
    with catalogue(connection) as cursor:
        cursor.execute(NAMES_SQL)
        invalid = [(oid, name) for oid, stored, name in cursor.fetchall() if not _is_valid(stored)]
    if invalid:
        raise Refusal(
            f"The names of roles that own objects of this database, or have privileges on them, are not valid in its encoding, UTF8"
            f" ({one_line(', '.join(name for _, name in invalid))}), so no backup could be restored, and none was taken. Rename them: as a"
            f" superuser, run {' '.join(RENAME.format(oid=oid) for oid, _ in invalid)}"
        )


def _is_valid(stored: bytes) -> bool:
    try:
        bytes(stored).decode()
    except UnicodeDecodeError:
        return False
    return True


def refuse_invalid_names(name: str, missing: Iterable[str]) -> None:
    """Raise Refusal if a role that the backup `name` names, and that the server seems to lack, has a name that no server accepts."""
    if invalid := [role for role in missing if INVALID.search(role)]:
        raise Refusal(
            f"{name} names roles whose names are not valid in UTF-8 ({one_line(', '.join(invalid))}), so pg_restore cannot restore it. Use an"
            " earlier backup, or take a new one: `manage.py dbbackup` prints how to rename them. By hand, pg_restore --no-owner"
            " --no-privileges restores the rest of this one."
        )
