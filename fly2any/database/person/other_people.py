"""Rows that depend on a person's rows but are about other people: an export leaves them out.

An erasure that would delete other people is refused: trace.py finds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .copied import naming_anyone
from .tables import CLEARING, ForeignKey, Tables, quoted
from .trace import Rows, keys_of, places_of, referring, rows_of


@dataclass(slots=True)
class Others:
    """Tells other people's rows from those of a person, whose own rows are `person`; `left_out` has all that were found."""

    cursor: object
    tables: Tables
    person: Rows
    left_out: Rows = field(default_factory=rows_of)

    def find(self, fk: ForeignKey, oid: int, places: set[str]) -> set[str]:
        """Return those of the rows of a table, which were reached by `fk`, that are about other people.

        A row is about other people if it refers to one of them and not to the person. Where `fk` only clears the row's
        reference, only references with ON DELETE CASCADE count.
        """
        if self.tables.is_of_people(oid):
            found = set(places)
        else:
            lineage = self.tables.lineage(oid)
            of_people = [
                one for one in self.tables.foreign_keys if one.table in lineage and self.tables.is_of_people(one.target)
            ]
            if fk.action in CLEARING:
                of_people = [one for one in of_people if one.action == "c"]
            named = set().union(*(self._naming_anyone(one, oid, places) for one in of_people))
            found = named - set().union(*(self._naming_person(one, oid) for one in of_people)) if named else set()
        self.left_out[oid] |= found
        return found

    def _naming_anyone(self, fk: ForeignKey, oid: int, places: set[str]) -> set[str]:
        """Return the rows whose reference by `fk` is not NULL."""
        table = self.tables.tables[oid]
        if table.is_ours:
            known = " AND ".join(f"c.{quoted(name)} IS NOT NULL" for name in fk.columns)
            return places_of(self.cursor, table, f"{table.at_sql()} AND {known}", [sorted(places)], lock=False)[oid]
        return naming_anyone(self.tables, oid, places, fk)

    def _naming_person(self, fk: ForeignKey, oid: int) -> set[str]:
        """Return the rows of the table that refer to the person by `fk`."""
        found: set[str] = set()
        for person, places in self.person.items():
            if keys := keys_of(self.cursor, self.tables, person, places, fk):
                found |= referring(self.cursor, self.tables, fk, keys, lock=False).get(oid, set())
        return found
