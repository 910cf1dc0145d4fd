"""Names that pending migrations need, and that other objects have: PostgreSQL would refuse to create ours, halfway through a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..findings import Finding, Severity
from ..schema import Catalog, Index, Key, Table
from ..schema.contract import Contract
from ..schema.cures import preceded, set_aside
from ..schema.expressions_on_server import HOLDERS_SQL
from ..sql import catalogue
from .ledger import MigrationState


@dataclass(frozen=True, slots=True)
class TakenName:
    """An object of the kind `kind`, in SQL, of the role `owner` has the name of a table, index or key that `migration` creates."""

    name: str
    migration: str
    kind: str
    owner: str

    @property
    def message(self) -> str:
        kind = f"{'an' if self.kind[0] in 'AEIOU' else 'a'} {self.kind.lower()}"
        return f"{self.migration} cannot create {self.name}: {kind} of the role {self.owner} already has this name"

    @property
    def cure(self) -> str:
        return set_aside(self.kind, self.name)

    @property
    def finding(self) -> Finding:
        first = f"ask the role {self.owner}, whose programs may use it"
        return Finding(
            Severity.ERROR, "migrations.name_taken", self.name, f"{self.message}. `migrate` refuses to run.",
            preceded(first, self.cure), is_sql=True, loses=first,
        )  # fmt: skip


def read_taken_names(
    connection, contract: Contract, migrations: MigrationState, live: Catalog, *, schema: str
) -> Iterator[TakenName]:
    """Yield the names that pending migrations need and other objects have; `live` is the catalogue of `schema`.

    What exists of our tables, even if it is different, is found by `unrecorded()`.
    """
    existing = {(one.table, one.name) for things in (live.tables, live.indexes, live.keys) for one in things}
    expected = {version.object.name for version in contract.expected(migrations.recorded_or_lost)}
    pending = {*migrations.pending} - {*migrations.taking_over}
    new = [
        (version.object, version.since)
        for version in contract.versions
        if version.since in pending and isinstance(version.object, Table | Index | Key)
    ]
    wanted = {
        one.name: migration for one, migration in new if (one.table, one.name) not in existing and one.name not in expected
    }
    if not wanted:
        return
    tables = [one.name for one, _ in new if isinstance(one, Table) and one.name in wanted]
    with catalogue(connection) as cursor:
        cursor.execute(HOLDERS_SQL, {"schema": schema, "names": [*wanted], "tables": tables})
        for kind, name, owner in cursor.fetchall():
            yield TakenName(name, wanted[name], kind, owner)
