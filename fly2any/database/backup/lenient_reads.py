"""Settings by which PostgreSQL reads damaged pages without an error, so that a backup would silently lack their rows.

health/tables.py reports pages with a wrong checksum (`tables.damaged`).
"""

from __future__ import annotations

from ..errors import Refusal
from ..session_defaults import CONFIGURED_SQL, ON, reset
from ..sql import fetch_all

# Those that are on in this session, as in pg_dump's, and each place that turns one on.
LENIENT_SQL = f"""
    SELECT c.name::text, c.place, current_database()::text
    FROM ({CONFIGURED_SQL}) AS c JOIN pg_catalog.pg_settings AS s ON s.name = c.name
    WHERE c.name IN ('zero_damaged_pages', 'ignore_checksum_failure') AND s.setting = 'on' AND c.is_ours AND c.value ~* '^({ON})$'
    ORDER BY 1, 2
"""


def refuse_lenient_reads(connection) -> None:
    """Raise Refusal if a damaged page would be read as an empty one, or as if its checksum were right."""
    if not (rows := fetch_all(connection, LENIENT_SQL)):
        return
    names = list(dict.fromkeys(name for name, *_ in rows))
    named, verb = " and ".join(names), "are" if len(names) > 1 else "is"
    cures = " ".join(_cure(*row) for row in rows)
    raise Refusal(
        f"{named} {verb} on, so PostgreSQL reads damaged pages without an error, and a backup would lack their"
        f" rows: no backup was taken. {cures} Then run the command again."
    )


def _cure(name: str, place: str, database: str) -> str:
    cure, is_sql = reset(name, place, database)
    return f"As a superuser, run {cure}" if is_sql else cure
