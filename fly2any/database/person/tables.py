"""The tables of a database and the foreign keys between them, of all schemas and by oid."""

from __future__ import annotations

from dataclasses import dataclass

from ..catalog import quote
from ..diagnosis import Refusal
from ..server import read_schema
from ..sql import pinned

PEOPLE = "users"

# 'c' is CASCADE, 'n' SET NULL, 'd' SET DEFAULT, 'r' RESTRICT, 'a' NO ACTION.
ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT", "r": "RESTRICT", "a": "NO ACTION"}
KEEPING = ("n", "d")
STOPPING = ("r", "a")

TABLES_SQL = """
    SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relpages::bigint,
           CASE WHEN c.relispartition THEN (SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid) END,
           ARRAY(SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'UPDATE'),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'DELETE'),
           row_security_active(c.oid)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

# A domain is searched as what it is made of, an array by its elements. confdelsetcols is new in PostgreSQL 15.
COLUMNS_SQL = """
    SELECT a.attrelid::bigint, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef,
           CASE WHEN b.typcategory = 'A' THEN COALESCE(e.typcategory, 'A') ELSE b.typcategory END::text,
           b.typname::text, has_schema_privilege(c.relnamespace, 'USAGE') AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_type AS b ON b.oid = CASE WHEN t.typbasetype = 0 THEN t.oid ELSE t.typbasetype END
    LEFT JOIN pg_catalog.pg_type AS e ON e.oid = b.typelem AND e.typtype <> 'd'
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY (%s::oid[])
    ORDER BY a.attrelid, a.attnum
"""

LINKS_SQL = """
    SELECT k.oid::bigint, k.conname::text, k.conrelid::bigint, k.confrelid::bigint, k.confdeltype::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place),
           ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place),
           ARRAY(SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname) FROM unnest(k.conpfeqop) WITH ORDINALITY AS u (operator, place)
                 JOIN pg_catalog.pg_operator AS o ON o.oid = u.operator JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
                 ORDER BY u.place),
           ARRAY(SELECT a.attname::text FROM jsonb_array_elements_text(NULLIF(to_jsonb(k) -> 'confdelsetcols', 'null')) AS u (number)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number::int ORDER BY a.attnum)
    FROM pg_catalog.pg_constraint AS k
    WHERE k.contype = 'f' AND k.conparentid = 0
    ORDER BY k.conname COLLATE "C", k.oid
"""


def quoted(name: str) -> str:
    """Return an identifier for a statement with parameters."""
    return quote(name).replace("%", "%%")


@dataclass(frozen=True, slots=True)
class Table:
    """A table, a partition, a materialized view or a foreign table; `hidden` where row security hides rows of it from this role."""

    oid: int
    schema: str
    name: str
    kind: str
    pages: int
    partition_of: int | None
    parents: list[int]
    may_read: bool
    may_update: bool
    may_delete: bool
    hidden: bool

    @property
    def sql(self) -> str:
        """The table in a statement with parameters."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def rows_sql(self) -> str:
        """The table as FROM takes it: its own rows, as a foreign key sees them."""
        return self.sql if self.kind != "r" else f"ONLY {self.sql}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `category` is pg_type's, of an array that of its elements."""

    name: str
    type: str
    not_null: bool
    has_default: bool
    category: str
    base: str
    may_read: bool


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key of a table, of any number of columns, to any unique key."""

    oid: int
    name: str
    table: int
    target: int
    action: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    types: tuple[str, ...]
    operators: tuple[str, ...]
    sets: tuple[str, ...]  # Which columns SET NULL and SET DEFAULT change.


@dataclass(frozen=True, slots=True)
class Tables:
    """What there is in a database, and the schema that our tables are in."""

    role: str
    schema: str
    tables: dict[int, Table]
    columns: dict[int, tuple[Column, ...]]
    links: tuple[Link, ...]

    @property
    def people(self) -> Table:
        return next(table for table in self.tables.values() if (table.schema, table.name) == (self.schema, PEOPLE))

    def own(self, name: str) -> Table | None:
        """Return the table of ours with this name, None where there is none."""
        return next((one for one in self.tables.values() if (one.schema, one.name) == (self.schema, name)), None)

    def label(self, oid: int) -> str:
        """Return what a table is called in a report: a partition by its table, without the schema that ours are in."""
        table = self.tables[self.lineage(oid)[-1]]
        return table.name if table.schema == self.schema else f"{table.schema}.{table.name}"

    def lineage(self, oid: int) -> list[int]:
        """Return a table and, of a partition, those above it."""
        found = [oid]
        while (above := self.tables[found[-1]].partition_of) is not None:
            found.append(above)
        return found

    def is_of_people(self, oid: int) -> bool:
        """Return whether a table holds people: the users, their partitions, and what inherits from them."""
        people, todo, seen = self.people.oid, [oid], set()
        while todo:
            one = todo.pop()
            if one == people:
                return True
            if one not in seen and one in self.tables:
                seen.add(one)
                todo.extend(self.tables[one].parents)
        return False

    def require(self, oid: int, why: str) -> Table:
        """Return a table whose rows this role sees all; raise Refusal otherwise. `why` says what it has to do with a person."""
        table = self.tables[oid]
        if table.hidden:
            raise Refusal(
                f"Row-level security hides rows of {self.label(oid)} from the role {self.role}: connect as a superuser or a role with"
                " BYPASSRLS, or as the table's owner after ALTER TABLE … NO FORCE ROW LEVEL SECURITY."
            )
        if not table.may_read:
            raise Refusal(f"The role {self.role} may not read {self.label(oid)}, {why}: connect as a role that may.")
        return table


def read_tables(connection) -> Tables:
    """Return the tables and foreign keys of the database; raise Refusal where our users are not among them.

    It must run inside a transaction.
    """
    schema = read_schema(connection)
    with pinned(connection), connection.cursor() as cursor:
        cursor.execute("SELECT current_user::text")
        role = cursor.fetchone()[0]
        cursor.execute(TABLES_SQL)
        tables = {row[0]: Table(*row) for row in cursor.fetchall()}
        cursor.execute(COLUMNS_SQL, [list(tables)])
        columns: dict[int, list[Column]] = {}
        for oid, *rest in cursor.fetchall():
            columns.setdefault(oid, []).append(Column(*rest))
        cursor.execute(LINKS_SQL)
        links = tuple(_link(row) for row in cursor.fetchall() if row[2] in tables and row[3] in tables)
    found = Tables(role, schema, tables, {oid: tuple(some) for oid, some in columns.items()}, links)
    if found.own(PEOPLE) is None:
        raise Refusal(
            f"The table {PEOPLE} is not in the schema {schema}, where our migrations are recorded: correct ?schema= in POSTGRES_URL."
        )
    return found


def _link(row) -> Link:
    oid, name, table, target, action, columns, keys, types, operators, sets = row
    return Link(
        oid, name, table, target, action, tuple(columns), tuple(keys), tuple(types), tuple(operators), tuple(sets or columns)
    )
