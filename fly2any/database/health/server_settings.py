"""Settings whose values risk the loss of data, and the cure for a setting of the server wherever its value comes from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..findings import Finding, Severity
from ..session_defaults import CONFIGURED_SQL, OFF, ON, reset
from .examine import Figure, Reader

SETTINGS_SQL = "SELECT name, setting, source FROM pg_catalog.pg_settings WHERE name = ANY (%(names)s)"
# Settings that prevent the loss of rows, or the unlimited growth of the database; all are booleans.
WANTED = {
    "autovacuum": ("on", Severity.ERROR, "autovacuum runs only to prevent wraparound, so dead rows accumulate"),
    "track_counts": ("on", Severity.ERROR, "without these counts, autovacuum runs only to prevent wraparound"),
    "fsync": ("on", Severity.ERROR, "a power cut can destroy the database"),
    "full_page_writes": ("on", Severity.ERROR, "a power cut can damage pages"),
    "zero_damaged_pages": (
        "off",
        Severity.ERROR,
        "PostgreSQL empties a damaged page that it reads, and the page's rows are lost",
    ),
    "ignore_checksum_failure": ("off", Severity.ERROR, "PostgreSQL reads a page whose checksum is wrong as if it were right"),
}
OF_DISK = ("fsync", "full_page_writes")
# The same setting can have several places: the server, and roles and databases, whose value is that of their sessions.
PLACES_SQL = f"""
    SELECT c.name::text, c.place, c.value, current_database()::text AS database FROM ({CONFIGURED_SQL}) AS c
    WHERE c.name = ANY (%(names)s) ORDER BY c.place COLLATE "C"
"""
# These platforms store WAL on other machines, and turn the settings of a disk off.
PLATFORM_SQL = """
    SELECT CASE WHEN current_setting('neon.tenant_id', true) <> '' THEN 'Neon'
                WHEN pg_catalog.to_regprocedure('pg_catalog.aurora_version()') IS NOT NULL THEN 'Aurora' END AS name
"""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings that this role may read, by name, and the sources of their values."""

    values: Mapping[str, str]
    sources: Mapping[str, str]

    def cure(self, wanted: Mapping[str, str]) -> tuple[str, bool]:
        """Return the cure that gives settings these values, and whether it is SQL."""
        fixed = [name for name in wanted if self.sources.get(name) == "command line"]
        if not fixed:
            lines = [f"ALTER SYSTEM SET {name} = '{value}';" for name, value in wanted.items()]
            return "\n".join([*lines, "SELECT pg_reload_conf();"]), True
        options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in wanted.items())
        return (
            f"The server's command line sets {' and '.join(fixed)}, and takes precedence over ALTER SYSTEM and every file:"
            f" start the server with {options}.",
            False,
        )


def read_settings(read: Reader, names: Iterable[str]) -> ServerSettings:
    rows = read(SETTINGS_SQL, names=list(names))
    return ServerSettings({row.name: row.setting for row in rows}, {row.name: row.source for row in rows})


def settings(read: Reader) -> Iterator[Figure | Finding]:
    """Report settings whose values are unsafe, for the whole server or for the sessions of a role or a database."""
    platform = read.one(PLATFORM_SQL).name
    required = {name: rule for name, rule in WANTED.items() if not (platform and name in OF_DISK)}
    places = read(PLACES_SQL, names=list(required))
    wrong = {name: [one for one in places if one.name == name and _is_wrong(one.value, required[name][0])] for name in required}
    without = f"; {platform} does not need {' and '.join(OF_DISK)}" if platform else ""
    yield Figure("settings", f"{sum(not found for found in wrong.values())} of {len(required)} as required{without}")
    server = read_settings(read, required)
    for name, (wanted, severity, harm) in required.items():
        for _, place, value, database in wrong[name]:
            cure, is_sql = server.cure({name: wanted}) if place == "SYSTEM" else reset(name, place, database)
            where = "" if place == "SYSTEM" else f" ({place})"
            message = f"{name} is {value}{where} and must be {wanted}: {harm}."
            yield Finding(severity, "settings.wrong", name, message, cure, is_sql=is_sql)


def _is_wrong(value: str, wanted: str) -> bool:
    return re.fullmatch(OFF if wanted == "on" else ON, value, re.IGNORECASE) is not None
