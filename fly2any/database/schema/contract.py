"""The contract: the objects that the migrations build, each with the migration that created it.

`contract.json` is written by `manage.py dbcontract` and read by everything that compares a database with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import facts
from .objects import Catalog, Check, Column, ForeignKey, Index, Key, Object, Table

PATH = Path(__file__).with_name("contract.json")
FORMAT = 1
KINDS: dict[str, type[Object]] = {
    "tables": Table,
    "columns": Column,
    "keys": Key,
    "checks": Check,
    "foreign_keys": ForeignKey,
    "indexes": Index,
}

GUIDE_APPS = ("accounts", "travel", "engagement")  # The guide's 26 indexes and 11 foreign keys belong to these three.
PHASE7_APPS = (*GUIDE_APPS, "ai_consultant")
FIRST_MIGRATIONS = tuple(f"{app}.0001_initial" for app in PHASE7_APPS)  # They build Phase 7.
# The primary keys that first migrations add to tables of Phase 7 (deviation D2 in docs/explanation/schema.md).
ADDED = facts.added_keys()
NOT_PHASE7 = frozenset([*ADDED, *((table, f"{table}_pkey") for table, _ in ADDED)])
MAY_BE_NULL = facts.nullable_columns()


@dataclass(frozen=True, slots=True)
class Version:
    """A definition of an object, which holds from the migration `since` to the migration `until`."""

    object: Object
    since: str
    until: str | None = None

    @property
    def app(self) -> str:
        return self.since.partition(".")[0]

    @property
    def is_phase7(self) -> bool:
        """Return whether the object is one of the guide's; its 19 tables are our 18 and the migration ledger."""
        first = self.app in PHASE7_APPS and self.since.endswith(".0001_initial")
        return first and (self.object.table, self.object.name) not in NOT_PHASE7

    def holds(self, applied: Collection[str]) -> bool:
        """Return whether a database with exactly the migrations in `applied` has it."""
        return self.since in applied and self.until not in applied


@dataclass(frozen=True, slots=True)
class Contract:
    migrations: tuple[str, ...]  # in the order in which they are applied
    versions: tuple[Version, ...]

    def expected(self, applied: Collection[str]) -> tuple[Version, ...]:
        """Return what a database with exactly the migrations in `applied` must have."""
        return tuple(version for version in self.versions if version.holds(applied))


def catalog_of(versions: Iterable[Version]) -> Catalog:
    """Return the objects of `versions` as a catalogue."""
    objects = [version.object for version in versions]
    kinds: dict[str, Any] = {name: tuple(thing for thing in objects if type(thing) is kind) for name, kind in KINDS.items()}
    return Catalog(**kinds)


def grow(contract: Contract, migration: str, after: Catalog) -> Contract:
    """Return `contract` with one more migration, after which the catalogue is `after`."""
    there, before = set(after), {version.object for version in contract.versions if version.until is None}
    kept = [
        Version(version.object, version.since, migration) if version.until is None and version.object not in there else version
        for version in contract.versions
    ]
    return Contract(
        (*contract.migrations, migration), (*kept, *(Version(thing, migration) for thing in after if thing not in before))
    )


def load(path: Path = PATH) -> Contract:
    """Return the contract in the file `path`, which is read again only if it changed."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, written: int) -> Contract:
    data = json.loads(path.read_text(encoding="utf-8"))
    if data["format"] != FORMAT:
        raise ValueError(f"{path} has the format {data['format']}, and this code reads {FORMAT}.")
    versions = [_version(KINDS[name], dict(entry)) for name in KINDS for entry in data[name]]
    return Contract(tuple(data["migrations"]), tuple(versions))


def dump(contract: Contract) -> str:
    """Return the text of the contract file: one object a line, so that a schema change reads as a diff."""
    parts = [f'"format": {FORMAT}', f'"migrations": {_lines(contract.migrations)}']
    for name, kind in KINDS.items():
        chosen = sorted(
            (version for version in contract.versions if type(version.object) is kind),
            key=lambda version: (version.object.table, version.object.name, contract.migrations.index(version.since)),
        )
        parts.append(f'"{name}": {_lines(map(_entry, chosen))}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(entries: Iterable[Any]) -> str:
    return "[\n  " + ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"


def _entry(version: Version) -> dict[str, Any]:
    values = {field.name: getattr(version.object, field.name) for field in fields(version.object) if field.compare}
    defaults = {field.name: field.default for field in fields(version.object) if field.default is not MISSING}
    entry = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
    entry["since"] = version.since
    if version.until is not None:
        entry["until"] = version.until
    return entry


def _version(kind: Callable[..., Object], entry: dict[str, Any]) -> Version:
    since, until = entry.pop("since"), entry.pop("until", None)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return Version(kind(**values), since, until)
