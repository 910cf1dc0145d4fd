"""The live catalogue of a schema, in one query whatever the number of tables or rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.db import Error

from ..errors import sqlstate
from ..sql import EXPLICIT_TRIGGER_SQL, catalogue, literal
from ..trusted_roles import TRUSTED_ROLES_SQL, TRUSTED_SQL
from ..unprintable_definitions import PRINTABLE_SQL, STATES, Unprintable, printed, read_unprintable
from . import contract as contracts
from .called_functions import CALLED_SQL, OWN_SQL
from .column_parts import DOMAIN_SQL, SEQUENCES_SQL
from .filling_triggers import FILLING_SQL
from .names import relative
from .notifying_triggers import NOTIFYING_SQL
from .objects import PRIVILEGES, Catalog, Check, Column, Domain, ForeignKey, Index, Key, Partition, Sequence, Table
from .partitions import PARTITIONS_SQL
from .publications import NARROWED_SQL, PUBLICATIONS_SQL, UNPUBLISHED_SQL
from .references import FIXED_SQL, LINKS_CTES, MET_SQL, REFERENCES_SQL
from .row_security import CONDITION_SQL, REJECTED_SQL, RESTRICTED_SQL
from .triggers_on_missing_columns import LACKING_SQL
from .type_changes import CASTS_SQL, USED_BY_SQL

T = TypeVar("T")

# The privileges of this role on the table `c`: on the table itself, and on each column by its own grants; SELECT on any if it may not write.
PRIVILEGES_SQL = f"""
    ARRAY(SELECT p.name FROM pg_catalog.unnest(ARRAY[{", ".join(map(literal, PRIVILEGES))}]) WITH ORDINALITY AS p (name, place)
          WHERE {{held}} ORDER BY p.place)
"""
HELD_BY_COLUMN_SQL = """
    NOT pg_catalog.has_table_privilege(c.oid, p.name)
    AND CASE WHEN p.name = 'DELETE' THEN false
             WHEN p.name = 'SELECT' AND NOT pg_catalog.has_any_column_privilege(c.oid, 'INSERT, UPDATE') AND NOT pg_catalog.has_table_privilege(c.oid, 'DELETE')
             THEN pg_catalog.has_any_column_privilege(c.oid, p.name)
             ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                                AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, p.name)) END
"""
TABLES_SQL = f"""
    WITH RECURSIVE {LINKS_CTES}
    SELECT c.relname AS "table",
           CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                          WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END AS kind,
           c.relpersistence = 'p' AS logged,
           CASE WHEN row_security_active(c.oid) THEN 'active' WHEN c.relrowsecurity THEN 'bypassed' END AS row_security,
           {RESTRICTED_SQL.format(condition=printed("p.oid", CONDITION_SQL))} AS restricted,
           {REJECTED_SQL} AS rejected,
           (SELECT count(*) FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attisdropped) AS dropped_columns,
           ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
                 WHERE t.tgrelid = c.oid AND {EXPLICIT_TRIGGER_SQL} AND t.tgenabled NOT IN ('D', 'R') ORDER BY 1) AS triggers,
           {LACKING_SQL} AS lacking,
           {FILLING_SQL} AS filling,
           {NOTIFYING_SQL} AS notifying,
           ARRAY(SELECT ARRAY[r.rulename::text, CASE r.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END,
                              CASE WHEN r.ev_enabled IN ('D', 'R') THEN 'OFF' WHEN NOT r.is_instead THEN 'ALSO'
                                   WHEN r.ev_qual::text = '<>' THEN 'INSTEAD' ELSE 'INSTEAD WHERE' END]
                 FROM pg_catalog.pg_rewrite AS r
                 WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND (r.ev_enabled NOT IN ('D', 'R') OR r.ev_type = '2') AND c.relkind IN ('r', 'p') ORDER BY 1) AS rules,
           pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
           {TRUSTED_SQL} AS trusted,
           {PRIVILEGES_SQL.format(held="pg_catalog.has_table_privilege(c.oid, p.name)")} AS held,
           {PRIVILEGES_SQL.format(held=HELD_BY_COLUMN_SQL)} AS held_by_column,
           pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
           pg_catalog.has_any_column_privilege(c.oid, 'INSERT') AS insertable,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_partitioned_table AS p CROSS JOIN LATERAL pg_catalog.unnest(p.partattrs::int2[]) WITH ORDINALITY AS k (attnum, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE p.partrelid = c.oid ORDER BY k.place) AS partition_key,
           CASE WHEN c.relkind = 'p' AND c.relname = ANY (%(ours)s) THEN {PARTITIONS_SQL} END AS partitions,
           ARRAY(SELECT h.inhrelid::regclass::text FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid AND h.inhdetachpending) AS detaching,
           CASE WHEN c.relispartition THEN (SELECT i.inhparent::regclass::text FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid) END AS partition_of,
           CASE WHEN c.relispartition THEN {printed("c.oid", "COALESCE(pg_catalog.pg_get_partition_constraintdef(c.oid), '')")} END AS bound,
           CASE WHEN c.relkind = 'r' AND (c.relreplident = 'n' OR c.relreplident = 'i' AND NOT EXISTS (
                         SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indislive))
                THEN {PUBLICATIONS_SQL.format(which="true")} ELSE ARRAY[]::text[] END AS unidentified,
           CASE WHEN c.relkind = 'r' AND c.relreplident <> 'n' THEN {PUBLICATIONS_SQL.format(which=UNPUBLISHED_SQL)} ELSE ARRAY[]::text[] END
               AS unpublished,
           CASE WHEN c.relkind = 'r' AND c.relreplident <> 'n' THEN {NARROWED_SQL} ELSE ARRAY[]::text[] END AS narrowed,
           {REFERENCES_SQL} AS kept_by,
           {FIXED_SQL} AS fixed_by,
           {MET_SQL} AS met,
           ARRAY(SELECT 'USAGE ON SCHEMA ' || pg_catalog.quote_ident(n.nspname)
                 WHERE EXISTS (SELECT FROM link AS l WHERE c.oid IN (l.conrelid, l.confrelid))
                   AND NOT pg_catalog.has_schema_privilege(c.relowner, n.oid, 'USAGE')
                 UNION ALL SELECT p.name || ' ON ' || c.oid::regclass::text
                 FROM (VALUES ('SELECT'), ('UPDATE'), ('DELETE')) AS p (name)
                 WHERE NOT pg_catalog.has_table_privilege(c.relowner, c.oid, p.name)
                   AND EXISTS (SELECT FROM link AS l WHERE l.confrelid = c.oid AND p.name <> 'DELETE' OR l.conrelid = c.oid AND l.confdeltype = 'c' AND p.name <> 'UPDATE')
                 ORDER BY 1) AS owner_lacks,
           CASE WHEN c.relkind IN ('r', 'p') THEN {CALLED_SQL} ELSE ARRAY[]::text[] END AS called,
           ARRAY(SELECT i.inhrelid::regclass::text FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid AND c.relkind = 'r' ORDER BY 1) AS children,
           ARRAY(SELECT i.inhparent::regclass::text FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid AND NOT c.relispartition ORDER BY 1) AS parents
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.relname COLLATE "C"
"""

# From PostgreSQL 18 on, a NOT NULL can be NOT VALID: it rejects NULL from now on, but existing rows may be NULL.
COLUMNS_SQL = f"""
    SELECT c.relname AS "table", a.attname AS name,
           pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           NOT a.attnotnull AS nullable,
           NOT EXISTS (
               SELECT FROM pg_catalog.pg_constraint AS nn
               WHERE nn.conrelid = c.oid AND nn.contype = 'n' AND nn.conkey = ARRAY[a.attnum] AND NOT nn.convalidated
           ) AS validated,
           CASE WHEN a.attgenerated = '' THEN {printed("d.oid", "pg_catalog.pg_get_expr(d.adbin, d.adrelid)")} END AS "default",
           CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END AS identity,
           CASE WHEN a.attgenerated <> '' THEN {printed("d.oid", "pg_catalog.pg_get_expr(d.adbin, d.adrelid)")} END AS generated,
           a.attgenerated = 'v' AS virtual,
           CASE WHEN a.attcollation <> t.typcollation THEN co.collname END AS collation,
           d.oid IS NULL OR {PRINTABLE_SQL.format("d.oid")} AND {OWN_SQL.format(kind="pg_attrdef", oid="d.oid", besides="0")} AND (a.attgenerated = ''
               OR {OWN_SQL.format(kind="pg_class", oid="c.oid AND own.objsubid = a.attnum", besides="0")}) AS own,
           CASE WHEN t.typtype = 'd' THEN ({DOMAIN_SQL}) END AS domain,
           pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable,
           a.attstorage = 'p' AND t.typstorage IN ('x', 'e') AS plain,
           {USED_BY_SQL} AS used_by,
           {CASTS_SQL} AS casts,
           {SEQUENCES_SQL} AS sequences,
           a.attinhcount > 0 AS inherited
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_catalog.pg_collation AS co ON co.oid = a.attcollation
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname COLLATE "C", a.attname COLLATE "C"
"""

# Foreign keys of other schemas and of other roles' tables, and views that group by a key: PostgreSQL refuses to drop it.
KEY_USED_BY_SQL = f"""
    ARRAY(SELECT DISTINCT CASE WHEN r.rulename = '_RETURN' THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0)
                               ELSE pg_catalog.pg_describe_object(u.classid, u.objid, 0) END
          FROM pg_catalog.pg_depend AS u LEFT JOIN pg_catalog.pg_rewrite AS r ON u.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = u.objid
          LEFT JOIN pg_catalog.pg_constraint AS f ON u.classid = 'pg_catalog.pg_constraint'::regclass AND f.oid = u.objid
          LEFT JOIN pg_catalog.pg_class AS h ON h.oid = f.conrelid
          WHERE k.contype IN ('p', 'u') AND u.deptype = 'n'
            AND (f.connamespace IS DISTINCT FROM c.relnamespace OR h.relowner NOT IN ({TRUSTED_ROLES_SQL.format(schema="c.relnamespace")}))
            AND (u.refclassid = 'pg_catalog.pg_constraint'::regclass AND u.refobjid = k.oid
                 OR u.refclassid = 'pg_catalog.pg_class'::regclass AND u.refobjid = k.conindid)
          ORDER BY 1)
"""

# to_jsonb reaches a column of a catalogue that older versions do not have: conenforced is new in PostgreSQL 18,
# indnullsnotdistinct in 15. A foreign key whose triggers are disabled is not enforced.
# UNIQUE (…, … WITHOUT OVERLAPS), new in PostgreSQL 18, rejects what overlaps, as an exclusion constraint does.
CONSTRAINT_TYPE_SQL = "CASE WHEN k.contype = 'u' AND (to_jsonb(k) ->> 'conperiod')::boolean THEN 'x' ELSE k.contype END"
CONSTRAINTS_SQL = f"""
    SELECT c.relname AS "table", k.conname AS name, {CONSTRAINT_TYPE_SQL} AS type,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number
                 ORDER BY u.place) AS columns,
           CASE WHEN ft.relnamespace = c.relnamespace THEN ft.relname ELSE ft.oid::regclass::text END AS target, ft.relnamespace <> c.relnamespace AS elsewhere,
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number
                 ORDER BY u.place) AS target_columns,
           k.confdeltype AS on_delete, k.confupdtype AS on_update,
           k.condeferrable AS deferrable, k.condeferred AS deferred, k.convalidated AS valid, k.confmatchtype = 'f' AS "full",
           COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true) AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgconstraint = k.oid AND t.tgenabled IN ('D', 'R')
           ) AS enforced,
           COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true) AS declared,
           ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
                 WHERE k.contype = 'f' AND t.tgconstraint = k.oid AND t.tgrelid = k.confrelid AND t.tgname ~ '_a_[0-9]+$'
                 ORDER BY t.tgtype) AS fires,
           CASE {CONSTRAINT_TYPE_SQL} WHEN 'c' THEN 'CHECK (' || {printed("k.oid", "pg_catalog.pg_get_expr(k.conbin, k.conrelid)")} || ')'
                          WHEN 'x' THEN {printed("k.oid", "pg_catalog.pg_get_constraintdef(k.oid)")} END AS expression,
           ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number
                 WHERE u.place > i.indnkeyatts ORDER BY u.place) AS include,
           NOT COALESCE((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_distinct,
           COALESCE(i.indisvalid AND i.indisready AND i.indislive, true) AS index_valid,
           {PRINTABLE_SQL.format("k.oid")} AND {OWN_SQL.format(kind="pg_constraint", oid="k.oid", besides="0")} AS own,
           {KEY_USED_BY_SQL} AS used_by,
           k.coninhcount > 0 AS inherited,
           COALESCE(i.indisreplident, false) AS identifies
    FROM pg_catalog.pg_constraint AS k
    JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_class AS ft ON ft.oid = k.confrelid
    LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = k.conindid AND k.contype IN ('p', 'u')
    WHERE n.nspname = %(schema)s AND k.contype IN ('p', 'u', 'c', 'x', 'f') AND k.conparentid = 0
    ORDER BY c.relname COLLATE "C", k.conname COLLATE "C"
"""

# A role without pg_read_all_stats sees only the table lock of another role's build. REINDEX TABLE CONCURRENTLY reports one index at a
# time, perhaps the TOAST table's; the others that it builds are known by their names.
BUILDING_SQL = """
    NOT {valid} AND EXISTS (
        SELECT FROM pg_catalog.pg_stat_progress_create_index AS b
        LEFT JOIN pg_catalog.pg_locks AS l ON l.pid = b.pid AND l.relation = c.oid AND l.database = b.datid
            AND l.mode = 'ShareUpdateExclusiveLock'
        WHERE b.datname = current_database()
          AND (b.index_relid = {index} OR l.pid IS NOT NULL AND (b.relid IS NULL OR {name} ~ '_cc(new|old)[0-9]*$')))
"""
# The operator classes of GIN, those of btree_gin included, whose entries hold a whole value or element, not a word, trigram or hash of it.
WHOLE_IN_GIN = "ARRAY['array_ops', 'text_ops', 'varchar_ops', 'bpchar_ops', 'bytea_ops']"
# Not the indexes of constraints, whose definition is in CONSTRAINTS_SQL.
INDEXES_SQL = f"""
    SELECT c.relname AS "table", x.relname AS name, am.amname AS method,
           ARRAY(SELECT COALESCE(a.attname::text, {printed("i.indexrelid", "pg_catalog.pg_get_indexdef(i.indexrelid, place, true)")})
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
           CASE WHEN i.indpred IS NOT NULL THEN {printed("i.indexrelid", "pg_catalog.pg_get_expr(i.indpred, i.indrelid)")} END AS predicate,
           i.indisunique AS unique,
           NOT COALESCE((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_distinct,
           i.indisvalid AND i.indislive AS valid, i.indisready AND i.indislive AS ready,
           {BUILDING_SQL.format(valid="i.indisvalid", index="i.indexrelid", name="x.relname")} AS building,
           ARRAY(SELECT DISTINCT a.attname::text FROM pg_catalog.pg_depend AS d
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid
                   AND d.refclassid = 'pg_catalog.pg_class'::regclass ORDER BY 1) AS uses,
           {PRINTABLE_SQL.format("i.indexrelid")} AND {OWN_SQL.format(kind="pg_class", oid="i.indexrelid", besides="0")} AS own,
           NOT EXISTS (SELECT FROM pg_catalog.pg_collation AS co WHERE co.oid = ANY (i.indcollation) AND NOT co.collisdeterministic)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_opclass AS oc
                           WHERE oc.oid = ANY (i.indclass) AND oc.opcnamespace <> 'pg_catalog'::regnamespace) AS exact,
           i.indisreplident AS identifies,
           ARRAY(SELECT am.amname = 'gin' AND oc.opcname <> ALL ({WHOLE_IN_GIN}) FROM generate_series(1, i.indnkeyatts) AS place
                 JOIN pg_catalog.pg_opclass AS oc ON oc.oid = i.indclass[place - 1] ORDER BY place) AS parts
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_am AS am ON am.oid = x.relam
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND NOT x.relispartition
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
    ORDER BY c.relname COLLATE "C", x.relname COLLATE "C"
"""

CATALOG_SQL = f"""
    SELECT (SELECT pg_catalog.json_agg(x) FROM ({TABLES_SQL}) AS x), (SELECT pg_catalog.json_agg(x) FROM ({COLUMNS_SQL}) AS x),
           (SELECT pg_catalog.json_agg(x) FROM ({CONSTRAINTS_SQL}) AS x), (SELECT pg_catalog.json_agg(x) FROM ({INDEXES_SQL}) AS x)
"""

SPELLED = {"type", "default", "generated", "expression", "predicate", "partition_of", "bound"}
ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def _tables_of_contract() -> list[str]:
    return sorted({version.object.name for version in contracts.load().versions if isinstance(version.object, Table)})


def read_catalog(connection, *, schema: str) -> Catalog:
    """Return the catalogue of `schema`: names in other schemas are qualified."""
    with catalogue(connection) as cursor:
        cursor.execute("SET LOCAL quote_all_identifiers = off; SAVEPOINT catalogue")
        wanted: dict[str, Any] = {"schema": schema, "ours": _tables_of_contract(), "unprintable": []}
        unprintable: tuple[Unprintable, ...] = ()
        try:
            cursor.execute(CATALOG_SQL, wanted)
        except Error as error:
            if sqlstate(error) not in STATES:
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT catalogue")
            unprintable = read_unprintable(connection)
            cursor.execute(CATALOG_SQL, {**wanted, "unprintable": [one.number for one in unprintable]})
        tables, columns, constraints, indexes = (_spelled_rows(rows or (), schema) for rows in cursor.fetchone())
    return Catalog(
        tables=_objects(Table, tables),
        columns=tuple(_column(row) for row in columns),
        keys=tuple(_key(row) for row in constraints if row["type"] in "pu"),
        checks=tuple(_check(row) for row in constraints if row["type"] in "cx"),
        foreign_keys=tuple(_foreign_key(row) for row in constraints if row["type"] == "f"),
        indexes=_objects(Index, indexes),
        unprintable=unprintable,
    )


# The parts of these rows that name tables or quote definitions.
OF_REFERENCES = {"kept_by": (0, 2, 3), "fixed_by": (0, 2, 3), "met": (0, 2, 4)}


def _spelled_rows(rows: Iterable[dict[str, Any]], schema: str) -> list[dict[str, Any]]:
    return [_spelled(row, schema) for row in rows]


def _spelled(row: dict[str, Any], schema: str) -> dict[str, Any]:
    for name, value in row.items():
        if name == "sequences":
            row[name] = tuple(Sequence(**{**one, "name": relative(one["name"], schema)}) for one in value or ())
        elif name == "partitions":
            row[name] = tuple(_partition(one, schema) for one in value or ())
        elif name in OF_REFERENCES:
            row[name] = tuple(
                tuple(relative(part, schema) if n in OF_REFERENCES[name] else part for n, part in enumerate(one))
                for one in value
            )
        elif isinstance(value, list):
            row[name] = tuple(value if name not in ("columns", "detaching") else (relative(one, schema) for one in value))
        elif value and name in SPELLED:
            row[name] = relative(value, schema)
    return row


def _partition(row: dict[str, Any], schema: str) -> Partition:
    spelled = {name: relative(row[name], schema) for name in ("name", "bound")}
    return Partition(**{**row, **spelled, "triggers": tuple(row["triggers"])})


def _objects(kind: Callable[..., T], rows: Iterable[dict[str, Any]]) -> tuple[T, ...]:
    return tuple(kind(**row) for row in rows)


def _column(row: dict[str, Any]) -> Column:
    if row["domain"] is not None:
        row["domain"] = domain = Domain(**{**row["domain"], "conditions": tuple(row["domain"]["conditions"])})
        if row["default"] is None and row["generated"] is None:  # The domain's default is stored.
            row["own"] = domain.own
    return Column(**row)


def _key(row: dict[str, Any]) -> Key:
    return Key(
        row["table"],
        row["name"],
        row["columns"],
        primary=row["type"] == "p",
        deferrable=row["deferrable"],
        deferred=row["deferred"],
        nulls_distinct=row["nulls_distinct"],
        include=row["include"],
        valid=row["index_valid"],
        used_by=row["used_by"],
        identifies=row["identifies"],
    )


def _check(row: dict[str, Any]) -> Check:
    return Check(
        row["table"],
        row["name"],
        row["columns"],
        row["expression"],
        valid=row["valid"] or not row["enforced"],
        enforced=row["enforced"],
        own=row["own"],
        inherited=row["inherited"],
    )


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
        declared=row["declared"],
        elsewhere=row["elsewhere"],
        full=row["full"],
        fires=row["fires"],
    )
