"""The manifest of a backup: it describes the dump, and a restore is compared with it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..database_identity import Origin, Run
from ..errors import Refusal
from ..server import MARKING_TABLE
from ..sql import RECORD, quote
from ..terminal_text import one_line
from . import signing
from .row_hashes import BY_SELECT, Content, Hashing, Number, Registered
from .signing import SIGNED, Moment

PURPOSE = "backup.manifest"
FORMAT = 2
READ = (1, FORMAT)
ENDINGS = (".dump", ".dump.age")
COLLATION = "server.collation"  # The only finding about the server that concerns the contents of the database.


STATES = ("good", "bad", "unverified")
Outcome = Annotated[str, Meta(pattern=rf"^({'|'.join(('', *STATES))})\Z")]
OF_ROLES = "objects of "  # Begins the description of the objects of untrusted roles, the only ones that can be tables.
ROWS = "rows of "  # Begins the name of a table of an extension that was left out, and of a materialized view.
OF_VIEW = f"{ROWS}materialized view "
COMPUTED = (
    "generated columns of "  # Begins the name of a table whose stored generated columns were computed anew, and not compared.
)
Version = Annotated[str, Meta(pattern=r"^\d{1,4}(\.\d+)?\Z")]  # The version of a server or a tool: 18.6.


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a trial restore (trial_restore.py): `reason` is what was wrong, or why nothing is certain; "" if it is verified."""

    at: Moment
    server: str
    reason: str
    outcome: Outcome = ""  # One of STATES; manifests until 2026-11 have none.
    # What was not restored of a verified backup: objects that only a superuser can create, and those OF_ROLES; and what was COMPUTED.
    left_out: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        return self.outcome or ("bad" if self.reason else "good")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A backup: `name` without its endings, the dump's file, its size in bytes and SHA-256 as it is stored."""

    name: str
    file: str
    taken: Moment
    database: str
    server: Version
    tool: Version  # The version of pg_dump.
    code: str  # The version of this project.
    bytes: Number
    sha256: str
    contract: str  # The SHA-256 of contract.json.
    migrations: tuple[str, ...]
    findings: tuple[str, ...]  # The findings of dbstatus at that time, as "code at where"; about the server only COLLATION.
    owners: tuple[str, ...]  # The owners of its objects,
    roles: tuple[str, ...]  # and the other roles that it names, in privileges and policies.
    # Without those that an extension registered with a condition. The key is "schema"."name", quoted where necessary.
    tables: dict[str, Content]
    verdict: Verdict | None = None
    cluster: str = ""  # The server's system identifier, "" if it is not known.
    hashing: Hashing = BY_SELECT  # How the hashes of the tables were computed.
    oid: Number = 0  # The OID of the database, 0 in manifests until 2026-11.
    # The owners of the database and of `users`, and those owners of objects that were superusers.
    trusted: tuple[str, ...] = ()
    database_owner: str = ""  # Not in manifests until 2026-11.
    schema: str = ""  # The schema of our tables; not in manifests until 2026-11.
    place: str = ""  # The server's address; not in manifests until 2026-11 or of an embedded server.
    size: Number = 0  # The size of the database in bytes; not in manifests until 2026-11.
    # The extensions in the dump, and their tables and sequences, by name as in `tables`; not in manifests until 2026-11.
    extensions: tuple[str, ...] = ()
    registered: dict[str, Registered] = field(default_factory=dict)
    run: Run | None = None  # The run of the server; not in manifests until 2026-11 or of a standby.
    roles_of_values: tuple[str, ...] = ()  # Any that a value may name, in a column of the type regrole or aclitem.
    portable_amounts: bool = (
        False  # Whether pg_dump wrote the type money as in the locale C; otherwise as in the server's lc_monetary.
    )
    signed: str = SIGNED  # SIGNED, or why the signature of the file is not accepted.

    @property
    def rows(self) -> int:
        return sum(content.rows for content in self.tables.values())

    @property
    def state(self) -> str:
        """Return "good" (verified), "bad" or "unverified" (not restored yet, or without a certain result)."""
        return self.verdict.state if self.verdict else "unverified"

    @property
    def original_owner(self) -> str:
        """Return the owner of the database, "" if it is not known: a single trusted role is that owner."""
        return self.database_owner or (self.trusted[0] if len(self.trusted) == 1 else "")

    def is_of(self, origin: Origin) -> bool:
        """Return whether it is of this database and, as far as known, not of a database of that name on another server.

        A server whose system identifier is not known is known by its address.
        """
        known = (self.cluster, origin.cluster) if self.cluster and origin.cluster else (self.place, origin.place)
        return self.database == origin.database and ("" in known or known[0] == known[1])

    def is_of_same_database(self, origin: Origin) -> bool:
        """Return whether it is, as far as known, of this database and not of an earlier database of that name or of a copy."""
        return self.is_of(origin) and self.has_oid_of(origin) and self.is_of_same_server(origin)

    def has_oid_of(self, origin: Origin) -> bool:
        """Return whether it was, as far as known, not taken from an earlier database of that name."""
        return self.oid in (0, origin.oid)

    def is_of_same_server(self, origin: Origin) -> bool:
        """Return whether it was, as far as known, not taken from a copy of the server, at another address or while this one ran."""
        return self.place in ("", origin.place) and origin.ran_at(self.taken, self.run)

    def age(self, now: datetime) -> timedelta:
        return now - self.taken


def file_name(database: str) -> str:
    """Return the prefix of the names of a database's backups."""
    return re.sub(r"[^A-Za-z0-9_]", "_", database)


def sha256_of(path: Path) -> str:
    with FileIO(path) as file:
        return sha256_in(file)


def sha256_in(file: FileIO) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(manifest: Manifest) -> str:
    """Return the manifest's file, signed; a manifest read without a valid signature stays unsigned."""
    return signing.as_json(manifest, number=FORMAT, purpose=PURPOSE)


def from_json(text: str | bytes, *, where: str) -> Manifest:
    """Return the manifest; raise Refusal if `text`, from the file `where`, is not a valid one."""
    try:
        return signing.read_json(text, Manifest, where=where, endings=ENDINGS, numbers=READ, purpose=PURPOSE)
    except ValueError:
        raise Refusal(
            f"{one_line(where)} is not the manifest of a backup, or is damaged: use another one, and remove this one if it is not needed."
        ) from None


def with_verdict(manifest: Manifest, verdict: Verdict) -> Manifest:
    return replace(manifest, verdict=verdict)


def home_of(manifest: Manifest) -> str | None:
    """Return the schema of our tables in a backup, None if it has no such tables; inferred if the manifest does not name it."""
    if manifest.schema:
        return manifest.schema
    for table in (RECORD, MARKING_TABLE):
        if schemas := _schemas_of(manifest, table):
            return min(schemas, key=lambda schema: (schema != "public", schema))
    return None


def other_homes(manifest: Manifest, schema: str | None) -> list[str]:
    """Return the schemas other than `schema` in which a backup has tables like ours: a database may hold several installations."""
    return [one for one in _schemas_of(manifest, MARKING_TABLE) if one != schema]


def _schemas_of(manifest: Manifest, table: str) -> list[str]:
    """Return the schemas in which a backup has a table of this name, sorted."""
    end = f".{quote(table)}"
    quoted = sorted(name.removesuffix(end) for name in manifest.tables if name.endswith(end))
    return [schema[1:-1].replace('""', '"') for schema in quoted]
