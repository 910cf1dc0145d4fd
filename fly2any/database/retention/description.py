"""What stands beside an archive: whose rows it holds, how many, and what they must be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ..backup import signing
from ..backup.contents import BY_COPY, BY_SELECT, Content
from ..backup.signing import SIGNED
from ..errors import Refusal
from ..printable import one_line
from .rules import RULES

PURPOSE = "retention.archive"
FORMAT = 2
READ = (1, FORMAT)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one table in an archive: their columns, their number and a hash of them."""

    table: str
    columns: tuple[str, ...]
    content: Content


@dataclass(frozen=True, slots=True)
class Archive:
    """Rows that were removed: `file` holds an entry for each of `parts`, parents first; `oldest` and `newest` are their times.

    `left` are the ids of those that in the end were not removed, `ghosts` of people who were gone before.
    """

    name: str
    file: str
    taken: datetime
    database: str
    origin: str  # The cluster, and the database in it.
    bytes: int
    sha256: str
    oldest: str  # As PostgreSQL writes times, which may be any.
    newest: str
    parts: tuple[Part, ...]
    ghosts: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    hashing: int = BY_SELECT  # How the hashes of the parts were made, as those of backups.
    signed: str = SIGNED  # Or why the file it was read from is not known to be ours.

    @property
    def table(self) -> str:
        return self.parts[0].table

    @property
    def rows(self) -> int:
        return sum(part.content.rows for part in self.parts)


def as_json(archive: Archive) -> str:
    """Return the archive's file, signed; what was read without a good signature stays without one."""
    return signing.as_json(archive, number=FORMAT, purpose=PURPOSE)


def from_json(text: str | bytes, *, where: str) -> Archive:
    """Return what the file `where` describes; raise Refusal where `text` is not of an archive."""
    try:
        data = signing.read_json(text, where=where, numbers=READ, purpose=PURPOSE)
        data["taken"] = datetime.fromisoformat(data["taken"]).astimezone(UTC)
        data |= {name: tuple(data[name]) for name in ("ghosts", "left")}
        data["parts"] = tuple(
            Part(part["table"], tuple(part["columns"]), Content(part["content"]["rows"], part["content"]["hash"]))
            for part in data["parts"]
        )
        archive = Archive(**data)
        if (
            archive.name != where.removesuffix(".json")
            or where != one_line(where)
            or archive.file
            not in (
                f"{archive.name}.zip",
                f"{archive.name}.zip.age",
            )
        ):
            raise ValueError("another's description")
        tables = [part.table for part in archive.parts]
        rule = RULES[archive.table]
        if tables != [name for name in (rule.table, rule.child) if name] or type(archive.bytes) is not int:
            raise ValueError("other tables than retention archives")
        words = [
            archive.database,
            archive.origin,
            archive.sha256,
            archive.oldest,
            archive.newest,
            *archive.ghosts,
            *archive.left,
        ]
        words += [word for part in archive.parts for word in (*part.columns, part.content.hash)]
        "".join(words).encode()  # Raises TypeError for what is no text, UnicodeError for what no file holds.
        if archive.hashing not in (BY_SELECT, BY_COPY):
            raise ValueError("no hash of ours")
        if not all("id" in part.columns and type(part.content.rows) is int for part in archive.parts):
            raise ValueError("a part that is none")
        return archive
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError):
        raise Refusal(
            f"{one_line(where)} describes no archive, or is damaged: use another, and remove it if it is not needed."
        ) from None
