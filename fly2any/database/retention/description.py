"""The description of an archive: the table, number and hash of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ..backup import signing
from ..backup.row_hashes import BY_SELECT, Content, Hashing, Number
from ..backup.signing import SIGNED, Moment
from ..database_identity import Run
from ..errors import Refusal
from ..terminal_text import one_line
from .rules import RULES

PURPOSE = "retention.archive"
FORMAT = 2
READ = (1, FORMAT)
ENDINGS = (".zip", ".zip.age")


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one table in an archive: their columns, their number and a hash of them."""

    table: str
    columns: tuple[str, ...]
    content: Content


@dataclass(frozen=True, slots=True)
class Archive:
    """Rows that were removed: `file` holds an entry for each of `parts`, parents first; `oldest` and `newest` are their times.

    `left` are the ids of rows that were not removed, all of them until the run has ended; `ghosts` those of people who no longer existed.
    """

    name: str
    file: str
    taken: Moment
    database: str
    origin: str  # The cluster, the database in it, and the server's address, which a physical copy does not share.
    bytes: Number
    sha256: str
    oldest: str  # In PostgreSQL's format, because Python cannot represent every time.
    newest: str
    parts: Annotated[tuple[Part, ...], Meta(min_length=1)]
    ghosts: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    hashing: Hashing = BY_SELECT  # How the hashes of the parts were computed, as in manifests.
    run: Run | None = None  # The run of the server; not in archives until 2026-11.
    schema: str = ""  # That of the tables; "" in archives until 2026-11.
    signed: str = SIGNED  # SIGNED, or why the signature of the file is not accepted.

    @property
    def table(self) -> str:
        return self.parts[0].table

    @property
    def rows(self) -> int:
        return sum(part.content.rows for part in self.parts)


def as_json(archive: Archive) -> str:
    """Return the archive's file, signed; one read without a valid signature stays unsigned."""
    return signing.as_json(archive, number=FORMAT, purpose=PURPOSE)


def from_json(text: str | bytes, *, where: str) -> Archive:
    """Return the description in `text`, from the file `where`; raise Refusal if it does not describe an archive."""
    try:
        archive = signing.read_json(text, Archive, where=where, endings=ENDINGS, numbers=READ, purpose=PURPOSE)
        tables = [part.table for part in archive.parts]
        rule = RULES.get(archive.table)
        if rule is None or tables != [name for name in (rule.table, rule.child) if name]:
            raise ValueError("tables that retention does not archive")
        if not all("id" in part.columns for part in archive.parts):
            raise ValueError("a part without ids")
        return archive
    except ValueError:
        raise Refusal(
            f"{one_line(where)} does not describe an archive, or is damaged: use another one, and remove this one if it is not needed."
        ) from None
