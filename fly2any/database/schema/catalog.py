"""The live catalogue of a schema, in four queries whatever the number of tables or rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..sql import TRUSTED_SQL, pinned, quote
from .objects import Catalog, Check, Column, ForeignKey, Index, Key, Table

T = TypeVar("T")

TABLES_SQL = f"""
    SELECT c.relname AS "table",
           CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                          WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END AS kind,
           c.relpersistence = 'p' AS logged,
           CASE WHEN row_security_active(c.oid) THEN 'active' WHEN c.relrowsecurity THEN 'bypassed' END AS row_security,
           (SELECT count(*) FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attisdropped) AS dropped_columns,
           ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
                 WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                 UNION ALL
                 SELECT r.rulename::text FROM pg_catalog.pg_rewrite AS r
                 WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled <> 'D'
                 ORDER BY 1) AS triggers,
           pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
           {TRUSTED_SQL} AS trusted
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.relname COLLATE "C"
"""

# From PostgreSQL 18 on a NOT NULL can be NOT VALID: older rows may still be NULL.
COLUMNS_SQL = """
    SELECT c.relname AS "table", a.attname AS name,
           pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           NOT a.attnotnull OR EXISTS (
               SELECT FROM pg_catalog.pg_constraint AS nn
               WHERE nn.conrelid = c.oid AND nn.contype = 'n' AND nn.conkey = ARRAY[a.attnum] AND NOT nn.convalidated
           ) AS nullable,
           CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END AS "default",
           CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END AS identity,
           CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END AS generated,
           CASE WHEN a.attcollation <> t.typcollation THEN co.collname END AS collation
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_catalog.pg_collation AS co ON co.oid = a.attcollation
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname COLLATE "C", a.attname COLLATE "C"
"""

# to_jsonb reaches a column of a catalogue that older versions do not have: conenforced is new in PostgreSQL 18,
# indnullsnotdistinct in 15. A foreign key whose triggers are disabled is as good as none.
CONSTRAINTS_SQL = """
    SELECT c.relname AS "table", k.conname AS name, k.contype AS type,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number
                 ORDER BY u.place) AS columns,
           CASE WHEN ft.relnamespace = c.relnamespace THEN ft.relname ELSE ft.oid::regclass::text END AS target,
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number
                 ORDER BY u.place) AS target_columns,
           k.confdeltype AS on_delete, k.confupdtype AS on_update,
           k.condeferrable AS deferrable, k.condeferred AS deferred, k.convalidated AS valid,
           COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true) AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgconstraint = k.oid AND t.tgenabled IN ('D', 'R')
           ) AS enforced,
           CASE k.contype WHEN 'c' THEN 'CHECK (' || pg_catalog.pg_get_expr(k.conbin, k.conrelid) || ')'
                          WHEN 'x' THEN pg_catalog.pg_get_constraintdef(k.oid) END AS expression,
           ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number
                 WHERE u.place > i.indnkeyatts ORDER BY u.place) AS include,
           NOT COALESCE((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_distinct,
           COALESCE(i.indisvalid AND i.indisready, true) AS index_valid
    FROM pg_catalog.pg_constraint AS k
    JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_class AS ft ON ft.oid = k.confrelid
    LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = k.conindid AND k.contype IN ('p', 'u')
    WHERE n.nspname = %(schema)s AND k.contype IN ('p', 'u', 'c', 'x', 'f') AND k.conparentid = 0
    ORDER BY c.relname COLLATE "C", k.conname COLLATE "C"
"""

INDEXES_SQL = """
    SELECT c.relname AS "table", x.relname AS name, am.amname AS method,
           ARRAY(SELECT COALESCE(a.attname::text, pg_catalog.pg_get_indexdef(i.indexrelid, place, true))
                 FROM generate_series(1, i.indnkeyatts) AS place
                 LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[place - 1] AND a.attnum > 0
                 ORDER BY place) AS columns,
           ARRAY(SELECT concat_ws(' ',
                     (SELECT 'COLLATE ' || quote_ident(co.collname) FROM pg_catalog.pg_collation AS co
                      WHERE co.oid = i.indcollation[place - 1]
                        AND co.oid <> COALESCE((SELECT a.attcollation FROM pg_catalog.pg_attribute AS a
                                                WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[place - 1]), co.oid)),
                     (SELECT quote_ident(oc.opcname) FROM pg_catalog.pg_opclass AS oc
                      WHERE oc.oid = i.indclass[place - 1] AND NOT oc.opcdefault),
                     CASE i.indoption[place - 1]::int & 3
                          WHEN 1 THEN 'DESC NULLS LAST' WHEN 2 THEN 'NULLS FIRST' WHEN 3 THEN 'DESC' END)
                 FROM generate_series(1, i.indnkeyatts) AS place
                 ORDER BY place) AS options,
           ARRAY(SELECT a.attname::text FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS place
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[place - 1]
                 ORDER BY place) AS include,
           pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
           i.indisunique AS unique,
           NOT COALESCE((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_distinct,
           i.indisvalid AS valid, i.indisready AND i.indislive AS ready
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_am AS am ON am.oid = x.relam
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND NOT x.relispartition
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
    ORDER BY c.relname COLLATE "C", x.relname COLLATE "C"
"""

ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def read_catalog(connection, *, schema: str) -> Catalog:
    """Return the catalogue of `schema`: names of other schemas are spelled with theirs."""
    with pinned(connection):
        with connection.cursor() as cursor:
            # For statements of this shape compiling takes PostgreSQL a hundred times as long as running them.
            cursor.execute("SET LOCAL jit = off; SET LOCAL quote_all_identifiers = off")
        constraints = list(_rows(connection, CONSTRAINTS_SQL, schema))
        return Catalog(
            tables=_objects(Table, _rows(connection, TABLES_SQL, schema)),
            columns=_objects(Column, _rows(connection, COLUMNS_SQL, schema)),
            keys=tuple(_key(row) for row in constraints if row["type"] in "pu"),
            checks=tuple(_check(row) for row in constraints if row["type"] in "cx"),
            foreign_keys=tuple(_foreign_key(row) for row in constraints if row["type"] == "f"),
            indexes=_objects(Index, _rows(connection, INDEXES_SQL, schema)),
        )


def _rows(connection, statement: str, schema: str) -> Iterable[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, {"schema": schema})
        names = [column.name for column in cursor.description]
        return [
            {name: _spelled(name, value, schema) for name, value in zip(names, row, strict=True)} for row in cursor.fetchall()
        ]


def _spelled(name: str, value: Any, schema: str) -> Any:
    if isinstance(value, list):
        return tuple(value if name != "columns" else (relative(one, schema) for one in value))
    return relative(value, schema) if name in ("type", "default", "generated", "expression", "predicate") and value else value


def relative(text: str, schema: str) -> str:
    """Return what PostgreSQL spelled with the schema of each name as it would inside `schema`."""

    def shortened(match: re.Match[str]) -> str:
        if match["kept"] is not None:
            return match["kept"]
        return "'" if match["constant"] is not None else ""

    names = "|".join(re.escape(name) for name in dict.fromkeys([quote(schema), schema]))
    place = rf"(?:{names})\."
    # A constant of the type regclass, any other, a name, and last what a name begins with.
    pattern = rf"""(?P<constant>'{place}(?=(?:[^']|'')*'::regclass))|(?P<kept>'(?:[^']|'')*')|(?<![\w$".]){place}|(?P<name>"(?:[^"]|"")*")"""
    return re.sub(pattern, lambda match: match["name"] or shortened(match), text)


def _objects(kind: Callable[..., T], rows: Iterable[dict[str, Any]]) -> tuple[T, ...]:
    return tuple(kind(**row) for row in rows)


def _key(row: dict[str, Any]) -> Key:
    return Key(
        row["table"],
        row["name"],
        row["columns"],
        primary=row["type"] == "p",
        deferrable=row["deferrable"],
        nulls_distinct=row["nulls_distinct"],
        include=row["include"],
        valid=row["index_valid"],
    )


def _check(row: dict[str, Any]) -> Check:
    return Check(row["table"], row["name"], row["columns"], row["expression"], valid=row["valid"] and row["enforced"])


def _foreign_key(row: dict[str, Any]) -> ForeignKey:
    return ForeignKey(
        row["table"],
        row["name"],
        row["columns"],
        row["target"],
        row["target_columns"],
        on_delete=ACTIONS[row["on_delete"]],
        on_update=ACTIONS[row["on_update"]],
        deferrable=row["deferrable"],
        deferred=row["deferred"],
        valid=row["valid"],
        enforced=row["enforced"],
    )
