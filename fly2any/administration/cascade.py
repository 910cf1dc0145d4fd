"""The rows that the database deletes or changes along with others, by the foreign keys of all schemas.

For the preview of a deletion (delete_preview.py) and its check (saving.py). postgres/deletion.py leaves the deletion itself to the
database. Which tables of the site keep a row from being deleted is decided in database/schema/references.py, and for an erasure in
database/person/trace.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.apps import apps
from django.db import models

from fly2any.database.person.tables import ForeignKey, Tables, quoted, read_tables
from fly2any.database.person.trace import Rows, keys_of, places_of, referring, rows_of

from .counts import MOST_COUNTED, Count
from .deadlines import TooSlow, within
from .replica import current

DELETES = "c"
CHANGES = {"n": "{columns} set to NULL", "d": "{columns} set to default"}

REFERRING_SQL = """
    SELECT {place} FROM {child} AS c
    WHERE EXISTS (SELECT 1 FROM {parent} AS p WHERE {at} AND {same})
    LIMIT {most}
"""


class Changed(str):
    """The name of rows that a deletion changes and does not delete."""

    __slots__ = ()


def cascade_of(model: type[models.Model], keys: Sequence) -> Cascade:
    """Return what a deletion of the rows `keys` of `model` deletes or changes. It must run inside a transaction."""
    tables = read_tables(current())
    found = next(
        (one for one in tables.tables.values() if (one.schema, one.name) == (tables.schema, model._meta.db_table)), None
    )
    if found is None:
        return Cascade(tables, {})
    with current().cursor() as cursor:
        key = quoted(str(model._meta.pk.column))
        roots = places_of(cursor, found, f"c.{key} OPERATOR(pg_catalog.=) ANY (%s)", [list(keys)], lock=False)
    return Cascade(tables, roots)


class Cascade:
    """The rows that are known to be deleted or changed with others, and the tables that may have more."""

    def __init__(self, tables: Tables, roots: Rows):
        self.tables, self.roots = tables, roots
        self.rows: dict[str, Rows] = defaultdict(rows_of)  # By action.
        self.more: set[str] = set()
        self.followed: list[
            tuple[int, set[str], ForeignKey]
        ] = []  # The foreign keys that found rows, and the rows that these refer to.
        options = (model._meta for model in apps.get_models(include_auto_created=True))
        self.names = {one.db_table: str(one.verbose_name_plural) for one in options}
        self._follow()

    def _follow(self) -> None:
        todo = list(self.roots.items())
        seen = rows_of()
        while todo:
            oid, places = todo.pop()
            new = places - seen[oid]
            seen[oid] |= new
            for fk in self.links_to(oid) if new else ():
                rows = self.referring(oid, new, fk)
                if rows is None or sum(map(len, rows.values())) > MOST_COUNTED:
                    self.more |= {self.label(fk), *self.beyond(fk)}
                if rows:
                    self.followed.append((oid, new, fk))
                for child, found in (rows or {}).items():
                    self.rows[self.label(fk)][child] |= found
                    if fk.action == DELETES:
                        todo.append((child, found))
        for oid, places in self.roots.items():
            if self.name(oid) in self.rows:
                self.rows[self.name(oid)][oid] |= places  # A table may reference itself.

    def counts(self) -> dict[str, Count]:
        """Return the numbers of rows by their name in messages.

        A number is unknown where this role may not see the rows, where another role's code could run to find them, or where
        that takes too long.
        """
        return {label: self.count(label) for label in sorted({*self.rows, *self.more})}

    def references(self) -> list[tuple[ForeignKey, list[list[str]]]]:
        """Return the foreign keys that found rows, with the referenced values: once the rows are deleted, no row may have these."""
        with current().cursor() as cursor:
            return [(fk, keys_of(cursor, self.tables, oid, places, fk)) for oid, places, fk in self.followed]

    def are_left(self, references: list[tuple[ForeignKey, list[list[str]]]]) -> bool:
        """Return whether rows still refer to deleted rows: a trigger or a policy kept them from being deleted or changed."""
        with current().cursor() as cursor:
            return any(any(referring(cursor, self.tables, *one, lock=False).values()) for one in references)

    def count(self, label: str) -> Count:
        number = sum(map(len, self.rows[label].values()))
        if label in self.more and not number:
            return Count(None)
        return Count(min(number, MOST_COUNTED), more=label in self.more or number > MOST_COUNTED)

    def links_to(self, oid: int) -> Iterable[ForeignKey]:
        """Return the foreign keys by which rows are deleted or changed with those of a table."""
        lineage = self.tables.lineage(oid)
        return [fk for fk in self.tables.foreign_keys if fk.target in lineage and fk.action in (DELETES, *CHANGES)]

    def beyond(self, fk: ForeignKey) -> set[str]:
        """Return the labels of what may be deleted or changed with rows that `fk` finds."""
        found: set[str] = set()
        todo, seen = [fk], {fk}
        while todo:
            one = todo.pop()
            further = [other for other in self.links_to(one.table) if other not in seen] if one.action == DELETES else []
            seen |= {*further}
            todo += further
            found |= {self.label(other) for other in further}
        return found

    def name(self, oid: int) -> str:
        table = self.tables.tables[self.tables.lineage(oid)[-1]]
        known = self.names.get(table.name) if table.schema == self.tables.schema else None
        return known or f"rows of {self.tables.label(oid)}"

    def label(self, fk: ForeignKey) -> str:
        if fk.action == DELETES:
            return self.name(fk.table)
        return Changed(f"{self.name(fk.table)}, {CHANGES[fk.action].format(columns=', '.join(fk.sets))}")

    def referring(self, oid: int, places: set[str], fk: ForeignKey) -> Rows | None:
        """Return the rows that refer by `fk` to rows of a table, a few of very many; None where that is unknown."""
        parts = [self.tables.tables[fk.table], *self.tables.parts(fk.table)]
        if any(one.hidden or not one.may_read or not one.is_ours for one in parts):
            return None
        parent = self.tables.tables[oid]
        pairs = zip(fk.keys, fk.operators, fk.columns, strict=True)
        statement = REFERRING_SQL.format(
            child=parts[0].rows_sql,
            place=parts[0].place_sql(),
            parent=parent.rows_sql,
            at=parent.at_sql("p"),
            same=" AND ".join(
                f"p.{quoted(key)} {operator.replace('%', '%%')} c.{quoted(column)}" for key, operator, column in pairs
            ),
            most=MOST_COUNTED + 1,
        )
        found = rows_of()
        try:
            with within(), current().cursor() as cursor:
                cursor.execute(statement, [sorted(places)])
                for child, place in cursor.fetchall():
                    found[child].add(place)
        except TooSlow:
            return None
        return found
