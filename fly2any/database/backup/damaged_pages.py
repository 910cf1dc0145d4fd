"""Settings by which PostgreSQL reads damaged pages without an error, so that a backup would silently lack their rows."""

from __future__ import annotations

from ..errors import Refusal
from ..sql import fetch_all, quote

# Those that are on in this session, as in pg_dump's, and where their value comes from.
LENIENT_SQL = """
    SELECT s.name::text, s.source::text, pg_catalog.current_database()::text, session_user::text FROM pg_catalog.pg_settings AS s
    WHERE s.name IN ('zero_damaged_pages', 'ignore_checksum_failure') AND s.setting = 'on' ORDER BY s.name COLLATE "C"
"""


def refuse_lenient_reads(connection) -> None:
    """Raise Refusal if a damaged page would be read as an empty one, or as if its checksum were right."""
    if not (rows := fetch_all(connection, LENIENT_SQL)):
        return
    named, verb = " and ".join(name for name, *_ in rows), "are" if len(rows) > 1 else "is"
    cures = [_cure(*row) for row in rows]
    raise Refusal(
        f"{named} {verb} on, so PostgreSQL reads damaged pages without an error, and a backup would lack their"
        f" rows: no backup was taken. {' '.join(cures)} Then run the command again."
    )


def _cure(name: str, source: str, database: str, role: str) -> str:
    if source == "client":
        return f"Remove {name} from the options of POSTGRES_URL, or from PGOPTIONS."
    if source in ("user", "database user"):
        within = f" IN DATABASE {quote(database)}" if source == "database user" else ""
        return f"As a superuser, run ALTER ROLE {quote(role)}{within} RESET {name};"
    return f"As a superuser, run ALTER DATABASE {quote(database)} SET {name} TO off;"  # It precedes the server's.
