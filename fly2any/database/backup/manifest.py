"""The manifest of a backup: what the dump is of, so that a restore can be compared with it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..errors import Refusal
from ..printable import one_line
from ..server import MARKING_TABLE, RECORD, Origin
from ..sql import quote
from . import signing
from .contents import BY_COPY, BY_SELECT, Content
from .signing import SIGNED

PURPOSE = "backup.manifest"
FORMAT = 2
READ = (1, FORMAT)


STATES = ("good", "bad", "unverified")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of restoring a backup: `reason` says what was wrong, or why it could not be tried, "" where it is good."""

    at: datetime
    server: str
    reason: str
    outcome: str = ""  # One of STATES; manifests until 2026-11 have none.
    left_out: tuple[str, ...] = ()  # What was not tried of a good one, as only a superuser creates it.

    @property
    def state(self) -> str:
        return self.outcome or ("bad" if self.reason else "good")


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
    hashing: int = BY_SELECT  # How the tables' hashes were made.
    oid: int = 0  # Of the database on its server, 0 in manifests until 2026-11.
    trusted: tuple[str, ...] = ()  # The owners of the database and of `users`.
    schema: str = ""  # Where our tables are; manifests until 2026-11 do not say.
    place: str = ""  # The server's address; manifests until 2026-11 do not say, nor those of an embedded server.
    size: int = 0  # Of the database on its server, in bytes; manifests until 2026-11 do not say.
    signed: str = SIGNED  # Or why the file it was read from is not known to be ours.

    @property
    def rows(self) -> int:
        return sum(content.rows for content in self.tables.values())

    @property
    def state(self) -> str:
        """Return good, bad, or unverified, which it also is where it could not be tried."""
        return self.verdict.state if self.verdict else "unverified"

    def is_of(self, origin: Origin) -> bool:
        """Return whether it is of this database, and not of another server's of that name as far as is known."""
        return self.database == origin.database and (not self.cluster or self.cluster == origin.cluster or not origin.cluster)

    def is_of_the_same(self, origin: Origin) -> bool:
        """Return whether it is of this database as far as is known, and not of one that had its name before, or of a copy of it."""
        return self.is_of(origin) and self.oid in (0, origin.oid) and self.place in ("", origin.place)

    def age(self, now: datetime) -> timedelta:
        return now - self.taken


def file_name(database: str) -> str:
    """Return the name of a database as the names of its backups begin."""
    return re.sub(r"[^A-Za-z0-9_]", "_", database)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(manifest: Manifest) -> str:
    """Return the manifest's file, signed; what was read without a good signature stays without one."""
    return signing.as_json(manifest, number=FORMAT, purpose=PURPOSE)


def from_json(text: str | bytes, *, where: str) -> Manifest:
    """Return the manifest; raise Refusal where `text`, of the file `where`, is none."""
    try:
        data = signing.read_json(text, where=where, numbers=READ, purpose=PURPOSE)
        verdict = data["verdict"]
        data["tables"] = {name: Content(**content) for name, content in data["tables"].items()}
        data |= {name: tuple(data[name]) for name in ("migrations", "findings", "owners", "roles")}
        data["trusted"] = tuple(data.get("trusted", ()))
        data["taken"] = _time(data["taken"])
        data["verdict"] = verdict and _verdict(verdict)
        manifest = Manifest(**data)
        name = where.removesuffix(".json")
        if manifest.name != name or name != one_line(name) or manifest.file not in (f"{name}.dump", f"{name}.dump.age"):
            raise ValueError("another's manifest")  # A file of that name is deleted with it.
        numbers = (manifest.bytes, manifest.oid, manifest.size, *(content.rows for content in manifest.tables.values()))
        hashes = tuple(content.hash for content in manifest.tables.values())
        words = (
            manifest.database,
            manifest.cluster,
            manifest.schema,
            manifest.place,
            manifest.code,
            manifest.sha256,
            manifest.contract,
            *manifest.migrations,
            *manifest.findings,
        )
        words += (*manifest.owners, *manifest.roles, *manifest.trusted, *hashes)
        words += (manifest.verdict.reason, *manifest.verdict.left_out) if manifest.verdict else ()
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or not all(
            isinstance(word, str) for word in words
        ):
            raise ValueError("a value of another kind")
        if manifest.hashing not in (BY_SELECT, BY_COPY) or not all(re.fullmatch(r"-?[0-9]{1,40}", one) for one in hashes):
            raise ValueError("no hash of ours")
        if not all(re.fullmatch(r"\d{1,4}(\.\d+)?", version) for version in (manifest.server, manifest.tool)):
            raise ValueError("no version")
        return manifest
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise Refusal(
            f"{one_line(where)} is no manifest of a backup, or is damaged: use another, and remove it if it is not needed."
        ) from None


def _verdict(data: dict[str, Any]) -> Verdict:
    verdict = Verdict(**{**data, "at": _time(data["at"]), "left_out": tuple(data.get("left_out", ()))})
    if verdict.state not in STATES:
        raise ValueError("no verdict of ours")
    return verdict


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def judged(manifest: Manifest, verdict: Verdict) -> Manifest:
    return replace(manifest, verdict=verdict)


def home_of(manifest: Manifest) -> str | None:
    """Return the schema of our tables in a backup, None where it has none of them; where it does not say, it is guessed."""
    if manifest.schema:
        return manifest.schema
    for table in (RECORD, MARKING_TABLE):
        end = f".{quote(table)}"
        if schemas := sorted(name.removesuffix(end) for name in manifest.tables if name.endswith(end)):
            return min(schemas, key=lambda schema: (schema != quote("public"), schema))[1:-1].replace('""', '"')
    return None
