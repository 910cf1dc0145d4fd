"""The tables of a database and the foreign keys between them, of all schemas and by oid. trace.py follows them, and without_foreign_key.py finds a person's
rows in tables without a foreign key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..errors import Refusal
from ..schema.relation_kinds import Kind, has_citus, read_placed
from ..schema.used_code import USED_CODE_SQL
from ..server import read_home, read_schema
from ..sql import PEOPLE, catalogue, fetch_all, quote
from ..trusted_roles import TRUSTED_ROLES_SQL

# 'c' is CASCADE, 'n' SET NULL, 'd' SET DEFAULT, 'r' RESTRICT, 'a' NO ACTION.
ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT", "r": "RESTRICT", "a": "NO ACTION"}
CLEARING = ("n", "d")
RESTRICTING = ("r", "a")

# Types that cannot contain an address, such as numbers and times. Every other type is searched, including types of other roles.
UNSEARCHED = (
    *("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "money", "oid", "date", "time", "timetz", "timestamp"),
    *("timestamptz", "interval", "inet", "cidr", "point", "line", "lseg", "box", "path", "polygon", "circle"),
)
LITERAL = ("text", "varchar", "uuid", "int2", "int4", "int8")  # Types whose equal values have the same text.

# `untrusted_role` is a role whose code a SELECT runs as the current role: the owner of the table, of its schema (who can replace the
# table) or of code that the table uses, as in an index. The code that triggers and foreign keys run is refused by
# refuse_untrusted_code().
TABLES_SQL = f"""
    WITH RECURSIVE schemas AS (
        SELECT n.oid, n.nspname, CASE WHEN pg_get_userbyid(n.nspowner) = 'pg_database_owner'
            THEN (SELECT d.datdba FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) ELSE n.nspowner END AS owner
        FROM pg_catalog.pg_namespace AS n
    ), trusted AS (
        {TRUSTED_ROLES_SQL.format(schema="(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)")}
    ), checked AS (
        SELECT c.oid FROM pg_catalog.pg_class AS c WHERE c.relkind IN ('r', 'p', 'm') AND c.relowner IN (SELECT oid FROM trusted)
    ), {USED_CODE_SQL}
    SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relpages::bigint,
           CASE WHEN c.relispartition THEN (SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid) END,
           ARRAY(SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'UPDATE'),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'DELETE'),
           row_security_active(c.oid),
           (SELECT pg_get_userbyid(o.owner)::text
            FROM (SELECT 1, c.relowner UNION ALL SELECT 2, n.owner
                  UNION ALL SELECT 3, u.role FROM used_code AS u
                  WHERE u."table" = c.oid AND u.class NOT IN ('pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_rewrite'::regclass)) AS o (place, owner)
            WHERE o.owner NOT IN (SELECT oid FROM trusted) ORDER BY o.place, o.owner LIMIT 1)
    FROM pg_catalog.pg_class AS c JOIN schemas AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%%'
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

# The types below domains and arrays, recursively. confdelsetcols, below, is new in PostgreSQL 15.
COLUMNS_SQL = """
    WITH RECURSIVE columns AS (
        SELECT a.*, c.relnamespace FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
        WHERE c.relkind IN ('r', 'p', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY (%s::oid[])
    ), below AS (
        SELECT DISTINCT a.atttypid AS type, a.atttypid AS at, 0 AS depth, false AS is_element FROM columns AS a
        UNION ALL
        SELECT b.type, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, b.depth + 1, b.is_element OR t.typtype <> 'd'
        FROM below AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.at
        WHERE t.typtype = 'd' OR t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc
    ), kinds AS (
        SELECT b.type, (array_agg(t.name ORDER BY b.depth DESC) FILTER (WHERE NOT b.is_element))[1] AS base,
               (array_agg(t.name ORDER BY b.depth DESC))[1] AS leaf
        FROM below AS b JOIN (SELECT t.oid, CASE t.typnamespace WHEN 'pg_catalog'::regnamespace THEN t.typname::text ELSE '' END AS name
                              FROM pg_catalog.pg_type AS t) AS t ON t.oid = b.at
        GROUP BY b.type
    )
    SELECT a.attrelid::bigint, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef, a.attgenerated <> '',
           format('%%I.%%I%%s', n.nspname, t.typname, substring(format_type(a.atttypid, a.atttypmod) FROM '\\(\\d+\\)$')),
           k.base, k.leaf, COALESCE((SELECT o.collisdeterministic FROM pg_catalog.pg_collation AS o WHERE o.oid = a.attcollation), true),
           has_schema_privilege(a.relnamespace, 'USAGE') AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
    FROM columns AS a JOIN kinds AS k ON k.type = a.atttypid JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    ORDER BY a.attrelid, a.attnum
"""

FOREIGN_KEYS_SQL = """
    SELECT k.oid::bigint, k.conname::text, k.conrelid::bigint, k.confrelid::bigint, k.confdeltype::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place),
           ARRAY(SELECT format('%I.%I', n.nspname, t.typname) FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number
                 JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace ORDER BY u.place),
           ARRAY(SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname) FROM unnest(k.conpfeqop) WITH ORDINALITY AS u (operator, place)
                 JOIN pg_catalog.pg_operator AS o ON o.oid = u.operator JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
                 ORDER BY u.place),
           ARRAY(SELECT a.attname::text FROM jsonb_array_elements_text(NULLIF(to_jsonb(k) -> 'confdelsetcols', 'null')) AS u (number)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number::int ORDER BY a.attnum)
    FROM pg_catalog.pg_constraint AS k
    WHERE k.contype = 'f' AND k.conparentid = 0
    ORDER BY k.conname COLLATE "C", k.oid
"""

KEYS_SQL = """
    SELECT x.indrelid::bigint, a.attname::text, t.typname::text
    FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
    WHERE x.indisprimary AND x.indnkeyatts = 1 AND x.indrelid = ANY (%s::oid[]) AND t.typname = ANY (%s::name[]) ORDER BY 1
"""


def quoted(name: str) -> str:
    """Return an identifier for a statement with parameters."""
    return quote(name).replace("%", "%%")


@dataclass(frozen=True, slots=True)
class Table:
    """A table, a partition, a materialized view or a foreign table; `hidden` if row-level security hides rows of it from this role."""

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
    untrusted_role: str | None
    kind_of_citus: Kind | None = None
    key: str = ""  # Of a table of Citus: the primary key's column, "" if it has none of one column whose values are their text.
    key_type: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether a statement on the table runs no other role's code. Other tables are only read, by COPY."""
        return self.untrusted_role is None

    @property
    def sql(self) -> str:
        """The table in a statement with parameters."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def rows_sql(self) -> str:
        """The table in FROM, with only its own rows, as a foreign key sees them."""
        return self.sql if self.kind != "r" or self.kind_of_citus else f"ONLY {self.sql}"

    def place_sql(self, alias: str = "c") -> str:
        """Return the columns that identify a row: the oid of its table or partition, and its ctid, or on Citus its key.

        A row in a shard has the oid and the ctid of that shard.
        """
        if self.kind_of_citus:
            return f"{self.oid}::pg_catalog.int8, pg_catalog.concat({alias}.{self._key_sql()})"
        return f"{alias}.tableoid::pg_catalog.int8, {alias}.ctid::pg_catalog.text"

    def at_sql(self, alias: str = "c") -> str:
        """Return the condition that a row is at one of the places that a parameter lists."""
        if self.kind_of_citus:
            return f"{alias}.{self._key_sql()} OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[]::pg_catalog.{self.key_type}[])"
        return f"{alias}.ctid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[]::pg_catalog.tid[])"

    def _key_sql(self) -> str:
        if not self.key:
            raise Refusal(
                f"{self.schema}.{self.name} is a {self.kind_of_citus} without a primary key of one text or integer column, by which its"
                " rows are told apart: add one."
            )
        return quoted(self.key)


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `base` is its type without domains, `leaf` without arrays too; "" if that type is not built in.

    `sql_type` names its schema, because PostgreSQL searches the temporary schema first.
    """

    name: str
    type: str
    not_null: bool
    has_default: bool
    is_generated: bool
    sql_type: str
    base: str
    leaf: str
    is_deterministic: bool
    may_read: bool

    @property
    def is_searched(self) -> bool:
        return self.leaf not in UNSEARCHED

    @property
    def is_plain(self) -> bool:
        """Whether its values are of a built-in type that never writes bytes as hex digits."""
        return self.base == self.leaf != ""

    @property
    def is_literal(self) -> bool:
        """Whether equal values have the same text."""
        return self.base in LITERAL and self.is_deterministic


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key."""

    oid: int
    name: str
    table: int
    target: int
    action: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    types: tuple[str, ...]
    operators: tuple[str, ...]
    sets: tuple[str, ...]  # The columns that SET NULL or SET DEFAULT changes.


@dataclass(slots=True)
class Held:
    """The memory that places of other roles' rows take (copied.py), those that were released included."""

    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables and foreign keys of a database, and the schema of our tables."""

    role: str
    schema: str
    tables: dict[int, Table]
    columns: dict[int, tuple[Column, ...]]
    foreign_keys: tuple[ForeignKey, ...]
    held: Held = field(default_factory=Held)

    @property
    def people(self) -> Table:
        return next(table for table in self.tables.values() if (table.schema, table.name) == (self.schema, PEOPLE))

    def own(self, name: str) -> Table | None:
        """Return our table of this name, None if there is none; raise Refusal if using it would run another role's code."""
        found = next((one for one in self.tables.values() if (one.schema, one.name) == (self.schema, name)), None)
        return found and self.require_own(found.oid)

    def label(self, oid: int) -> str:
        """Return a table's name in reports: that of the partitioned table for a partition, and without our schema."""
        table = self.tables[self.lineage(oid)[-1]]
        return table.name if table.schema == self.schema else f"{table.schema}.{table.name}"

    def lineage(self, oid: int) -> list[int]:
        """Return a table, and for a partition also its ancestors."""
        found = [oid]
        while (above := self.tables[found[-1]].partition_of) is not None:
            found.append(above)
        return found

    def parts(self, oid: int) -> list[Table]:
        """Return the tables that store the rows of a table: its partitions, or itself."""
        return [one for one in self.tables.values() if one.kind != "p" and oid in self.lineage(one.oid)]

    def is_of_people(self, oid: int) -> bool:
        """Return whether a table holds people: the users, its partitions, and tables that inherit from it."""
        return self.people.oid in self.ancestry(oid)

    def ancestry(self, oid: int) -> set[int]:
        """Return a table, and those that it is a partition of or inherits from, directly or indirectly."""
        parents = self.tables[oid].parents if oid in self.tables else []
        return {oid}.union(*map(self.ancestry, parents))

    def require(self, oid: int, why: str) -> Table:
        """Return the table if this role sees all its rows; raise Refusal otherwise. `why` is its relation to a person."""
        table = self.tables[oid]
        if table.hidden:
            raise Refusal(
                f"Row-level security hides rows of {self.label(oid)} from the role {self.role}: connect as a superuser or a role with"
                " BYPASSRLS, or as the table's owner after ALTER TABLE … NO FORCE ROW LEVEL SECURITY."
            )
        if not table.may_read:
            raise Refusal(f"The role {self.role} may not read {self.label(oid)}, {why}: connect as a role that may.")
        return table

    def require_own(self, oid: int) -> Table:
        """Return the table if statements on it run no other role's code; raise Refusal otherwise."""
        table = self.tables[oid]
        if not table.is_ours:
            raise Refusal(
                f"The role {table.untrusted_role} owns {self.label(oid)}, its schema or code that it uses, and its code would"
                f" run as {self.role}: follow the cure of tables.untrusted (`manage.py dbstatus`), or make the owner of {PEOPLE} the owner of"
                " the schema."
            )
        return table

    def require_followed(self, fk: ForeignKey) -> None:
        """Raise Refusal if a foreign key from or to another role's table cannot be followed."""
        table, target = self.tables[fk.table], self.tables[fk.target]
        columns = [one for one in self.columns[fk.table] if one.name in fk.columns]
        keys = [one for one in self.columns[fk.target] if one.name in fk.keys]
        for place, some in ((table, columns), (target, keys)):
            if not place.is_ours and (made := [one for one in some if one.is_generated]):
                raise Refusal(
                    f"{self._uncounted(fk, place)}, which does not write the generated column {made[0].name}: make it an ordinary column,"
                    " or drop the foreign key."
                )
        if table.is_ours:
            return
        for part in self.parts(table.oid):
            self.require(part.oid, f"whose foreign key is {fk.name}")
        if unfit := [one for one in (*columns, *keys) if not one.is_literal]:
            raise Refusal(
                f"{self._uncounted(fk, table)}, and {unfit[0].name} of the type {unfit[0].type} cannot be compared as text: change the types"
                " of the columns, or drop the foreign key."
            )

    def _uncounted(self, fk: ForeignKey, table: Table) -> str:
        return (
            f"Nothing was changed. The rows that refer by the foreign key {fk.name} cannot be counted: {self.label(table.oid)} belongs"
            f" to the role {table.untrusted_role}, so it is only read by COPY"
        )


def read_tables(connection) -> Tables:
    """Return the tables and foreign keys of the database; raise Refusal if our users are not among them.

    It must run inside a transaction.
    """
    schema = read_schema(connection)
    with catalogue(connection) as cursor:
        cursor.execute("SELECT current_user::text")
        role = cursor.fetchone()[0]
        cursor.execute(TABLES_SQL, {"schema": schema})
        tables = {row[0]: Table(*row) for row in cursor.fetchall()}
        if has_citus(connection):
            tables |= _with_keys(connection, tables)
        cursor.execute(COLUMNS_SQL, [list(tables)])
        columns: dict[int, list[Column]] = {}
        for oid, *rest in cursor.fetchall():
            columns.setdefault(oid, []).append(Column(*rest))
        cursor.execute(FOREIGN_KEYS_SQL)
        foreign_keys = tuple(_foreign_key(row) for row in cursor.fetchall() if row[2] in tables and row[3] in tables)
    found = Tables(role, schema, tables, {oid: tuple(some) for oid, some in columns.items()}, foreign_keys)
    untrusted_roles = {found.lineage(oid)[-1]: table.untrusted_role for oid, table in tables.items() if table.untrusted_role}
    for oid, table in tables.items():  # A partition is treated as another role's if any partition of its table is.
        if untrusted_role := untrusted_roles.get(found.lineage(oid)[-1]):
            tables[oid] = replace(table, untrusted_role=table.untrusted_role or untrusted_role)
    if found.own(PEOPLE) is None:
        _, is_recorded = read_home(connection)
        raise Refusal(
            f"The table {PEOPLE} is not in the schema {schema}, where our migrations are recorded: correct ?schema= in POSTGRES_URL."
            if is_recorded
            else f"The table {PEOPLE} is not in the schema {schema}, and no migrations are recorded there: run `manage.py migrate`, or"
            " correct ?schema= in POSTGRES_URL."
        )
    return found


def _with_keys(connection, tables: dict[int, Table]) -> Iterator[tuple[int, Table]]:
    placed = {oid: kind for oid, (kind, _) in read_placed(connection).items() if oid in tables}
    keys = {oid: key for oid, *key in fetch_all(connection, KEYS_SQL, [[*placed], list(LITERAL)])}
    for oid, kind in placed.items():
        name, type_ = keys.get(oid, ("", ""))
        yield oid, replace(tables[oid], kind_of_citus=kind, key=name, key_type=type_)


def _foreign_key(row) -> ForeignKey:
    oid, name, table, target, action, columns, keys, types, operators, sets = row
    return ForeignKey(
        oid, name, table, target, action, tuple(columns), tuple(keys), tuple(types), tuple(operators), tuple(sets or columns)
    )
