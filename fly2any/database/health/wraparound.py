"""Wraparound: the age of transaction and multixact IDs, at whose limits the whole server stops writing."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, Severity
from ..units import share
from .examine import Figure, Reader

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
