"""The manifest of a backup: what the dump is of, so that a restore can be compared with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..catalog import quote
from ..diagnosis import Refusal
from ..server import Origin

FORMAT = 1

# Every table whose rows are in a dump: not those that an extension brings, which it makes anew.
TABLES_SQL = """
    SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_table_size(c.oid) AS bytes
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

# The sum of the first 64 bits of each row's MD5: the same in whatever order the rows come, and for a row twice another.
CONTENT_SQL = """
    SELECT pg_catalog.count(*),
           COALESCE(pg_catalog.sum(('x' || pg_catalog.left(pg_catalog.md5(ROW("the row".*)::text), 16))::bit(64)::bigint), 0)::text
    FROM {table} AS "the row"
"""

# How values are written as text, whatever the server, the database and the role have set.
PINNED = {
    "search_path": "pg_catalog",
    "quote_all_identifiers": "off",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "jit": "off",
}
PATIENT = {
    "statement_timeout": "0",
    "transaction_timeout": "0",  # From PostgreSQL 17 on.
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "60s",  # For the tables' locks, which a running migration holds.
}


@dataclass(frozen=True, slots=True)
class Content:
    """The number of a table's rows, and a hash of them all that does not depend on their order."""

    rows: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of restoring a backup: `reason` says what was wrong, "" where it is good."""

    at: datetime
    server: str
    reason: str

    @property
    def good(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True)
class Manifest:
    """A backup: `name` without its endings, the dump's file, its size in bytes and SHA-256 as it is stored."""

    name: str
    file: str
    taken: datetime
    database: str
    server: str  # The version of the server, 18.6.
    tool: str  # And of pg_dump.
    code: str  # Of this project.
    bytes: int
    sha256: str
    contract: str  # The SHA-256 of contract.json.
    migrations: tuple[str, ...]
    findings: tuple[str, ...]  # Of dbstatus when it was taken, besides those about the server: "code at where".
    owners: tuple[str, ...]  # The roles that what is in it belongs to,
    roles: tuple[str, ...]  # and those it names besides, in privileges and policies.
    tables: dict[str, Content]  # By "schema"."name", quoted where it must be.
    verdict: Verdict | None = None
    cluster: str = ""  # The server's system identifier, "" where it is not known.

    @property
    def rows(self) -> int:
        return sum(content.rows for content in self.tables.values())

    @property
    def state(self) -> str:
        """Return good, bad, or unverified."""
        return "unverified" if self.verdict is None else "good" if self.verdict.good else "bad"

    def is_of(self, origin: Origin) -> bool:
        """Return whether it is of this database, and not of another server's of that name as far as is known."""
        return self.database == origin.database and (not self.cluster or self.cluster == origin.cluster or not origin.cluster)

    def age(self, now: datetime) -> timedelta:
        return now - self.taken


def read_contents(connection, show: Callable[[str, float], None]) -> dict[str, Content]:
    """Return the content of every table, in the transaction that `connection` is in; `show` hears the table and the percent."""
    with connection.cursor() as cursor:
        pin(cursor, PINNED | PATIENT)
        cursor.execute(TABLES_SQL)
        tables = cursor.fetchall()
        whole, done, contents = sum(size for *_, size in tables) or 1, 0, {}
        for schema, name, size in tables:
            place = f"{quote(schema)}.{quote(name)}"
            show(f"hashing {name}", 100 * done / whole)
            cursor.execute(CONTENT_SQL.format(table=place))
            contents[place] = Content(*cursor.fetchone())
            done += size
    return contents


def pin(cursor, settings: dict[str, str]) -> None:
    """Set what the server knows of `settings`, until the end of the transaction."""
    for name, value in settings.items():
        known = "SELECT pg_catalog.set_config(name, %s, true) FROM pg_catalog.pg_settings WHERE name = %s"
        cursor.execute(known, [value, name])


def file_name(database: str) -> str:
    """Return the name of a database as the names of its backups begin."""
    return re.sub(r"[^A-Za-z0-9_]", "_", database)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(manifest: Manifest) -> str:
    data = {"format": FORMAT, **asdict(manifest)}
    return json.dumps(data, indent=1, ensure_ascii=False, default=datetime.isoformat)


def from_json(text: str | bytes, *, where: str) -> Manifest:
    """Return the manifest; raise Refusal where `text`, of the file `where`, is none."""
    try:
        data: dict[str, Any] = json.loads(text)
        if data.pop("format") != FORMAT:
            raise Refusal(f"{where} has a format that this code does not read: use the code that wrote it, or newer.")
        verdict = data["verdict"]
        data["tables"] = {name: Content(**content) for name, content in data["tables"].items()}
        data |= {name: tuple(data[name]) for name in ("migrations", "findings", "owners", "roles")}
        data["taken"] = _time(data["taken"])
        data["verdict"] = verdict and Verdict(**{**verdict, "at": _time(verdict["at"])})
        manifest = Manifest(**data)
        name = where.removesuffix(".json")
        if manifest.name != name or manifest.file not in (f"{name}.dump", f"{name}.dump.age"):
            raise ValueError("another's manifest")  # A file of that name is deleted with it.
        numbers = (manifest.bytes, *(content.rows for content in manifest.tables.values()))
        hashes = tuple(content.hash for content in manifest.tables.values())
        words = (
            manifest.database,
            manifest.cluster,
            manifest.code,
            manifest.sha256,
            manifest.contract,
            *manifest.migrations,
            *manifest.findings,
        )
        words += (*manifest.owners, *manifest.roles, *hashes, manifest.verdict.reason if manifest.verdict else "")
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or not all(
            isinstance(word, str) for word in words
        ):
            raise ValueError("a value of another kind")
        if not all(re.fullmatch(r"\d{1,4}(\.\d+)?", version) for version in (manifest.server, manifest.tool)):
            raise ValueError("no version")
        if manifest.taken > datetime.now(UTC) + timedelta(days=1):
            raise ValueError("taken in the future")
        return manifest
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise Refusal(
            f"{where} is no manifest of a backup, or is damaged: use another, and remove it if nobody needs it."
        ) from None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def judged(manifest: Manifest, verdict: Verdict) -> Manifest:
    return replace(manifest, verdict=verdict)


def differences(expected: dict[str, Content], found: dict[str, Content]) -> list[str]:
    """Return a clause for each table that is not as the manifest says."""
    said = [f"{name} is missing" for name in expected if name not in found]
    said += [f"{name} is not of the backup" for name in found if name not in expected]
    for name, content in expected.items():
        there = found.get(name, content)
        if there.rows != content.rows:
            said.append(f"{name} has {there.rows:,} rows and not {content.rows:,}")
        elif there != content:
            said.append(f"{name} has other rows")
    return said
