"""Wraparound, settings and extensions: risks to the whole server."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.db import Error, transaction

from ..errors import sqlstate
from ..extensions import FUNCTION_SQL, INSTALLED_SQL, NEEDED, of_unavailable
from ..findings import Finding, Severity
from ..session_defaults import CONFIGURED_SQL, OFF, ON, reset
from ..sql import quote
from ..units import share
from .examine import Figure, Reader
from .server_settings import read_settings

# A database that an interrupted DROP DATABASE left invalid (its connection limit is -2) no longer counts for the server, and accepts no
# connections.
WRAPAROUND_SQL = """
    (SELECT 'transaction IDs' AS label, datname AS name, pg_catalog.age(datfrozenxid) AS age, 'age(relfrozenxid)' AS of_table,
            NULL::boolean AS has_members
     FROM pg_catalog.pg_database WHERE datconnlimit <> -2 ORDER BY 3 DESC, datname = current_database() DESC LIMIT 1)
    UNION ALL
    (SELECT 'multixact IDs', datname, pg_catalog.mxid_age(datminmxid), 'mxid_age(relminmxid)',
            CASE WHEN current_setting('server_version_num')::int < 190000
                 THEN pg_catalog.has_function_privilege('pg_catalog.pg_ls_dir(text)', 'EXECUTE') END
     FROM pg_catalog.pg_database WHERE datconnlimit <> -2 ORDER BY 3 DESC, datname = current_database() DESC LIMIT 1)
"""
# The transactions of all multixacts, of which a file of 32 pages holds 52,352; before PostgreSQL 19 they are numbered by 32 bits.
MEMBERS_SQL = "SELECT count(*) * 52352 AS number FROM pg_catalog.pg_ls_dir('pg_multixact/members')"
MOST_MEMBERS = 2**32
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


def wraparound(read: Reader, *, near: int = 1_000_000_000, full: float = 0.5) -> Iterator[Figure | Finding]:
    """Report the age of the oldest transaction and multixact IDs of the server; at about 2,100 million, writes stop."""
    for label, name, age, of_table, has_members in read(WRAPAROUND_SQL):
        cure = (
            f"In {name}, run VACUUM (FREEZE) on the oldest tables (`SELECT oid::regclass, {of_table} FROM pg_class WHERE relkind IN ('r', 'm', 't') ORDER BY 2 DESC`),"
            " and end the transactions and drop the replication slots that hold them back: `manage.py dbhealth transactions`, `SELECT * FROM pg_replication_slots`."
            " VACUUM skips temporary tables (`pg_temp_…`) of other sessions: end the session, which `SELECT pid, usename, backend_start FROM pg_stat_activity ORDER BY 3` shows among the oldest."
        )
        yield Figure(f"age of {label}", f"{age:,} of 2,144,483,647", age, "transaction_age", label)
        if age > near:
            yield Finding(
                Severity.ERROR, "wraparound.near", label,
                f"The oldest {label.removesuffix('s')} in the database {name} is {age:,} {label.split()[0]}s old (limit {near:,}): at 2,144 million the whole server stops accepting writes.",
                cure,
            )  # fmt: skip
        if has_members is not None:
            yield from _members(read, full, cure, readable=has_members)


def _members(read: Reader, full: float, cure: str, *, readable: bool) -> Iterator[Figure | Finding]:
    """Report how many members multixacts have; when their numbers run out, no further transaction can share the lock of a row."""
    label = "members of multixacts"
    if not readable:
        yield Figure(label, "not visible to this role, which may not execute pg_ls_dir")
        return
    number = read.one(MEMBERS_SQL).number
    yield Figure(label, f"~{number:,} of {MOST_MEMBERS:,}", number, "multixact_members")
    if number > full * MOST_MEMBERS:
        yield Finding(
            Severity.ERROR, "wraparound.near", label,
            f"Members of multixacts use {share(number / MOST_MEMBERS)} of their numbers (limit {share(full)}). At 100%, a statement fails if it locks a row that another transaction has locked, such as an INSERT that refers to it.",
            cure,
        )  # fmt: skip


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


def extensions(read: Reader) -> Iterator[Figure | Finding]:
    """Report installed extensions that are older than their files on the server, or whose files it lacks."""
    rows = read(INSTALLED_SQL)
    yield Figure("extensions", ", ".join(f"{row.name} {row.installed}" for row in rows) or "none", len(rows))
    for row in rows:
        if row.offered is None:
            yield of_unavailable(row.name)
        elif row.can_update is False:
            yield Finding(
                Severity.WARNING, "extensions.outdated", row.name,
                f"Version {row.installed} is installed, but the server provides {row.offered}, and no update script leads to that version.",
                f"If the server's files are older, install those of {row.installed} or newer again; otherwise update as the documentation of the extension says.",
            )  # fmt: skip
        elif row.installed != row.offered:
            yield Finding(
                Severity.WARNING, "extensions.outdated", row.name,
                f"Version {row.installed} is installed, but the server provides {row.offered}.",
                f"ALTER EXTENSION {quote(row.name)} UPDATE;", is_sql=True,
            )  # fmt: skip
    if NEEDED not in [row.name for row in rows if row.offered is None]:
        yield from library(read)


def library(read: Reader) -> Iterator[Finding]:
    """Report that the library of the extension that our indexes need cannot be loaded: no catalogue shows that, only a call."""
    for row in read(FUNCTION_SQL):
        try:
            with transaction.atomic(using=read.connection.alias):
                read(f"SELECT {row.call.replace('%', '%%')}")
        except Error as error:
            if sqlstate(error) != "58P01":
                raise
            yield of_unavailable(NEEDED)
