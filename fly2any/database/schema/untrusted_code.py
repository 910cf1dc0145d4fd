"""Code of untrusted roles that a write to our tables would run with the privileges of the writing role.

A role needs only TRIGGER on a table to add a trigger. ../trusted_roles.py decides which roles are trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import Error, transaction

from fly2any.postgres.schema import revoke_trigger
from fly2any.postgres.search_path import names_of

from ..errors import Refusal, sqlstate
from ..server import read_home
from ..sql import EXPLICIT_TRIGGER_SQL, execute, fetch_all, in_transaction, pinned, quote
from ..trusted_roles import TRUSTED_ROLES_SQL, TRUSTED_SQL
from . import contract as contracts
from .lookalike_functions import LOOKALIKES_SQL
from .protected_tables import LEDGERS
from .trigger_creators import read_unknown
from .untrusted_cures import Found, UntrustedCode, describe_unknown, described
from .used_code import USED_CODE_SQL
from .written_by_triggers import FIRED_SQL, OPEN_SQL

# Why the table `c` is not plain, NULL if it is: a foreign key then runs code of PostgreSQL alone to find, delete or change its rows,
# at the COMMIT too. PostgreSQL's own objects have oids below 16384 (FirstNormalObjectId): no role can create or own one of these.
CODE_SQL = """
    CASE WHEN c.relkind <> 'r' OR c.relispartition OR EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
         THEN 'it is partitioned or inherits'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid AND (NOT t.tgisinternal OR t.tgfoid >= 16384))
         THEN 'it has a trigger'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid) THEN 'it has a rule'
         WHEN c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid) THEN 'it has row-level security'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'c') THEN 'it has a check'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
                      WHERE k.conrelid = c.oid AND k.contype = 'f' AND 'd' IN (k.confdeltype, k.confupdtype))
         THEN 'it has a foreign key with SET DEFAULT'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attgenerated <> '') THEN 'it has a generated column'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                      WHERE a.attrelid = c.oid AND NOT a.attisdropped AND (a.atttypid >= 16384 OR a.attcollation >= 16384))
         THEN 'it has a column whose type or collation is not PostgreSQL''s own'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_index AS i
                      WHERE i.indrelid = c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
                                                    OR 16384 <= ANY (i.indclass) OR 16384 <= ANY (i.indcollation)))
         THEN 'it has an index with an expression, a condition, or an operator class or collation that is not PostgreSQL''s own'
         WHEN EXISTS (SELECT FROM pg_catalog.pg_statistic_ext AS s WHERE s.stxrelid = c.oid AND s.stxexprs IS NOT NULL)
         THEN 'it has statistics of an expression'
         WHEN c.relpersistence <> 'p' OR c.relam >= 16384 THEN 'it is not stored as an ordinary table' END
"""
# What keeps others from adding triggers and foreign keys, and from a table of an untrusted role also all that would make it another.
LOCK, LOCK_OF_UNTRUSTED = "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"
MAY_LOCK_SQL = "(has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'UPDATE, DELETE'))"
# The columns of the table {table} that change with the columns {columns}; NULL, which is any, if a BEFORE trigger may set others.
CHANGED_SQL = """
    CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = {table} AND t.tgtype & 19 = 19 AND t.tgenabled <> 'D')
         THEN {columns} || ARRAY(SELECT g.attnum FROM pg_catalog.pg_attribute AS g
                                 WHERE g.attrelid = {table} AND g.attgenerated <> '' AND NOT g.attisdropped) END
"""
# The tables that are written to ('i' is an INSERT), and the tables `beyond` them that foreign keys read ('f'), delete from ('d') or
# update ('u'): the given columns, or any if there are none. Those of `further`, whose origin is '', a trigger may write to.
TABLES_SQL = f"""
    WITH RECURSIVE home AS (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s),
    trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT oid FROM home)")}), ours AS (
        SELECT c.oid, c.relname, c.relowner, c.relowner IN (SELECT oid FROM trusted) AS trusted
        FROM pg_catalog.pg_class AS c WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    ), written AS (
        SELECT o.oid, o.relname::text FROM ours AS o WHERE o.trusted AND (%(all)s OR o.relname = ANY (%(tables)s::text[]))
    ), edges AS (
        SELECT 'referring' AS kind, k.confrelid AS oid, k.conrelid AS next, k.confkey AS columns, k.conkey AS changed, k.confdeltype AS on_delete,
               k.confupdtype AS on_update FROM pg_catalog.pg_constraint AS k WHERE k.contype = 'f'
        UNION ALL
        SELECT 'referenced', k.conrelid, k.confrelid, k.conkey, NULL, '', '' FROM pg_catalog.pg_constraint AS k WHERE k.contype = 'f'
        UNION ALL
        SELECT 'part', i.inhparent, i.inhrelid, NULL, NULL, '', '' FROM pg_catalog.pg_inherits AS i
    ), reached AS (
        SELECT w.oid, w.relname AS origin, 'i' AS event, NULL::int2[] AS columns FROM written AS w
        UNION
        SELECT w.oid, w.relname, 'd', NULL FROM written AS w WHERE %(deletes)s
        UNION
        SELECT w.oid, w.relname, 'u', CASE WHEN %(updates)s::text[] IS NOT NULL THEN {CHANGED_SQL.format(table="w.oid", columns="s.columns")} END
        FROM written AS w, LATERAL (SELECT ARRAY(SELECT a.attnum FROM pg_catalog.pg_attribute AS a
                                                 WHERE a.attrelid = w.oid AND a.attname = ANY (%(updates)s::text[]))) AS s (columns)
        WHERE %(updates)s::text[] IS NULL OR cardinality(%(updates)s::text[]) > 0
        UNION
        SELECT f.oid::oid, '', e.event, NULL FROM pg_catalog.unnest(%(further)s::bigint[]) AS f (oid), (VALUES ('i'), ('d'), ('u')) AS e (event)
        UNION
        SELECT e.next, r.origin, n.event, CASE WHEN e.kind = 'referring' AND n.event = 'u' THEN {CHANGED_SQL.format(table="e.next", columns="e.changed")} END
        FROM reached AS r JOIN edges AS e ON e.oid = r.oid,
             LATERAL (SELECT CASE r.event WHEN 'd' THEN e.on_delete ELSE e.on_update END) AS a (action),
             LATERAL (SELECT CASE WHEN e.kind = 'part' THEN r.event WHEN e.kind = 'referenced' OR a.action IN ('r', 'a') THEN 'f'
                                  WHEN r.event = 'd' AND a.action = 'c' THEN 'd' ELSE 'u' END) AS n (event)
        WHERE (r.columns IS NULL OR e.columns IS NULL OR e.columns && r.columns)
          AND CASE e.kind WHEN 'referring' THEN r.event IN ('d', 'u') WHEN 'referenced' THEN r.event IN ('i', 'u') AND r.origin <> '' ELSE true END
    ), held AS (
        SELECT l.relation, l.mode FROM pg_catalog.pg_locks AS l
        WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
          AND l.database = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database())
    ), beyond AS (
        SELECT c.*, CASE WHEN NOT c.trusted THEN {CODE_SQL} END AS code,
               EXISTS (SELECT FROM held AS h WHERE h.relation = c.oid
                         AND h.mode = CASE WHEN c.trusted THEN 'RowExclusiveLock' ELSE 'ShareUpdateExclusiveLock' END) AS locked
        FROM (SELECT c.*, r.origin, r.event, c.relowner IN (SELECT oid FROM trusted) AS trusted,
                     pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS place
              FROM reached AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.oid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
              WHERE r.oid NOT IN (SELECT oid FROM written)) AS c
    )
"""
STRANGERS_SQL = f"""{TABLES_SQL}, checked AS (
        SELECT w.oid, w.relname AS origin, '' AS place, 28 AS events FROM written AS w
        UNION
        SELECT c.oid, c.origin, c.place, CASE c.event WHEN 'f' THEN 0 WHEN 'd' THEN 8 WHEN 'i' THEN 4 ELSE 28 END FROM beyond AS c WHERE c.trusted
    ), {USED_CODE_SQL}
    SELECT 'owner' AS kind, pg_catalog.min(o.relname::text COLLATE "C"), pg_catalog.quote_ident(current_database()), count(*)::int,
           pg_catalog.pg_get_userbyid(o.relowner)::text, false, ''
    FROM ours AS o WHERE NOT o.trusted AND o.relname = ANY (%(tables)s::text[]) GROUP BY o.relowner
    UNION
    SELECT CASE WHEN t.oid IS NULL THEN 'part' WHEN c.place = '' THEN 'trigger' ELSE 'planted' END, c.origin,
           CASE WHEN t.oid IS NULL THEN pg_catalog.pg_describe_object(u.class, u.object, 0)
                WHEN c.place = '' THEN t.tgname ELSE pg_catalog.quote_ident(t.tgname) || ' ON ' || c.place END,
           1, pg_catalog.pg_get_userbyid(u.role)::text, u.is_definer, CASE WHEN t.oid IS NULL THEN u.used ELSE '' END
    FROM checked AS c JOIN used_code AS u ON u."table" = c.oid
    LEFT JOIN pg_catalog.pg_trigger AS t ON u.class = 'pg_catalog.pg_trigger'::regclass AND t.oid = u.object
    WHERE t.oid IS NULL OR c.place = '' OR t.tgtype & c.events <> 0
    UNION
    SELECT 'unknown', c.origin, t.oid::text, 1, '', false, c.place
    FROM checked AS c JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid
    WHERE {EXPLICIT_TRIGGER_SQL} AND t.tgenabled <> 'D' AND (c.place = '' OR t.tgtype & c.events <> 0)
      AND NOT EXISTS (SELECT FROM used_code AS u WHERE u.class = 'pg_catalog.pg_trigger'::regclass AND u.object = t.oid)
    UNION
    SELECT 'rule', c.origin, '', 1, '', false, '' FROM checked AS c JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = c.oid
    UNION
    SELECT 'reference', c.origin, c.place, 1, pg_catalog.pg_get_userbyid(c.relowner)::text, false, c.code
    FROM beyond AS c WHERE NOT c.trusted AND c.code IS NOT NULL
    UNION
    SELECT 'unlocked', c.origin, c.place, 1, pg_catalog.pg_get_userbyid(c.relowner)::text, false, current_user::text
    FROM beyond AS c WHERE NOT c.trusted AND c.code IS NULL AND NOT CASE WHEN %(locked)s THEN c.locked ELSE {MAY_LOCK_SQL} END
    UNION
    {LOOKALIKES_SQL}
    ORDER BY 1, 2, 3, 5
"""
# The tables reached by foreign keys that this role may lock, and has not locked.
BEYOND_SQL = f"""{TABLES_SQL}
    SELECT DISTINCT c.place, c.trusted FROM beyond AS c
    WHERE c.relkind IN ('r', 'p') AND {MAY_LOCK_SQL} AND NOT c.locked AND CASE WHEN c.trusted THEN c.event <> 'f' ELSE c.code IS NULL END
    ORDER BY 1
"""
WRITING_SQL = f"{TABLES_SQL}{FIRED_SQL}"
READABLE_SQL = f"""
    SELECT c.relname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND {TRUSTED_SQL}
"""

# Tables that statements, which do not name the schema, would miss; with the search path of the session.
HIDING_SQL = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || t.name, pg_catalog.quote_ident(%(schema)s) || '.' || t.name
    FROM (SELECT pg_catalog.quote_ident(a.name) FROM pg_catalog.unnest(%(tables)s::text[]) AS a (name)) AS t (name)
    JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(t.name)::oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname <> %(schema)s AND pg_catalog.to_regclass(pg_catalog.quote_ident(%(schema)s) || '.' || t.name) IS NOT NULL
    LIMIT 1
"""

READ_ONLY = "25006"
ROUNDS = 5  # Each locks the tables that refer to those locked before.


# The tables that this role may write to, which it may lock, and whether others may create triggers on them.
WRITTEN_SQL = """
    SELECT c.relname::text, EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) AS a
                                    WHERE a.privilege_type = 'TRIGGER' AND a.grantee <> c.relowner)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s::text[]) AND c.relkind IN ('r', 'p')
      AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE')
    ORDER BY c.relname COLLATE "C"
"""


@dataclass(frozen=True, slots=True)
class Further:
    """The tables (oids) that a trigger or a rule `name`, which a write to `table` runs, may write to."""

    table: str = ""
    name: str = ""
    oids: tuple[int, ...] = ()


def our_tables() -> list[str]:
    """Return the names of the tables that our migrations create."""
    return [*(thing.name for thing in contracts.catalog_of(contracts.load().versions).tables), *LEDGERS]


def read_untrusted_code(
    connection,
    *,
    schema: str,
    tables: Iterable[str] | None = None,
    deletes: bool = True,
    updates: Iterable[str] | None = None,
    locked: bool = False,
    further: Further | None = None,
) -> Iterator[UntrustedCode]:
    """Yield the code of untrusted roles that a write to `tables`, or to all of `schema`, runs.

    With `deletes`, also a deletion, and the update of the columns `updates`, None for any. With `locked`, a table that this
    transaction has not locked counts as one that this role may not lock. `further` is read unless it is given.
    """
    names = our_tables() if tables is None else list(tables)
    wanted = {"schema": schema, "tables": names, "all": tables is None, "deletes": deletes, "updates": _listed(updates)}
    with pinned(connection) as path:
        wanted |= {"locked": locked, "path": names_of(path)}
        rows = fetch_all(connection, STRANGERS_SQL, {**wanted, "further": [*further.oids] if further else []})
        if further is None:
            further = _read_further(connection, wanted) if any(kind in ("unknown", "rule") for kind, *_ in rows) else Further()
            if further.oids:
                rows = fetch_all(connection, STRANGERS_SQL, {**wanted, "further": [*further.oids]})
    direct = {(kind, *rest) for kind, table, *rest in rows if table}
    rows = [row for row in rows if row[0] != "rule" and (row[1] or (row[0], *row[2:]) not in direct)]
    unknown = read_unknown(connection, schema, (int(name) for kind, _, name, *_ in rows if kind == "unknown"))
    for kind, table, *rest in rows:
        found = Found(schema, table or further.table, "" if table else further.name, *rest)
        if kind != "unknown":
            yield described(kind, found)
        elif one := unknown.get(int(found.name)):
            yield describe_unknown(found, one)


def read_readable(connection, *, schema: str) -> set[str]:
    """Return the names of the tables in `schema` that can be read without running code of another role."""
    return {name for (name,) in fetch_all(connection, READABLE_SQL, [schema])}


def refuse_untrusted_code(
    connection,
    tables: Iterable[str] | None = None,
    *,
    deletes: bool = False,
    updates: Iterable[str] | None = (),
    reads: bool = False,
) -> None:
    """Raise Refusal if a write to `tables`, or to any of our schema, would run code of another role.

    `deletes` says whether rows are deleted, `updates` which columns are updated, None for any. In a transaction that does not
    only read (`reads`), it locks `tables`, and the tables that foreign keys lead to: no code can be added to them until it ends.
    Deletions and updates must be in that transaction.
    """
    changed = _listed(updates)
    if (deletes or changed != []) and not (reads or in_transaction(connection)):
        raise transaction.TransactionManagementError("refuse_untrusted_code() for deletions and updates needs a transaction.")
    if (schema := read_home(connection)[0]) is None:
        return
    names = our_tables() if tables is None else sorted(tables)
    with connection.cursor() as cursor:
        cursor.execute(HIDING_SQL, {"schema": schema, "tables": names})
        if row := cursor.fetchone():
            raise Refusal(
                f"Nothing was changed. {row[0]} comes before {row[1]} in the search path: remove its schema from"
                " the path, or name ours in POSTGRES_URL (?schema=)."
            )
    further = None
    if locks := bool(names and not reads and in_transaction(connection)):
        # From PostgreSQL 16 on, INSERT alone allows this lock.
        lockable = fetch_all(connection, WRITTEN_SQL, {"schema": schema, "tables": names})
        _lock(connection, [f"{quote(schema)}.{quote(table)}" for table, _ in lockable])
        wanted = {"schema": schema, "tables": names, "all": tables is None, "deletes": deletes, "updates": changed}
        _lock_beyond(connection, {**wanted, "further": []})
        further = _read_further(connection, wanted)
        if further.oids:
            _lock_beyond(connection, {**wanted, "further": [*further.oids]})
    if found := list(
        read_untrusted_code(
            connection,
            schema=schema,
            tables=names if tables is not None else None,
            deletes=deletes,
            updates=changed,
            locked=locks,
            further=further,
        )
    ):
        raise Refusal(f"Nothing was changed. {in_sentences(found)}")


def in_sentences(found: list[UntrustedCode]) -> str:
    """Return the first of them with its cure, and how many more there are."""
    more = f" `manage.py dbstatus` lists {len(found) - 1} more." if len(found) > 1 else ""
    return f"{found[0].sentence}. {found[0].cure}{more}"


def _listed(columns: Iterable[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


def _read_further(connection, wanted: dict[str, Any]) -> Further:
    if opened := fetch_all(connection, OPEN_SQL, {"schema": wanted["schema"]}):
        for table, name in fetch_all(connection, WRITING_SQL, {**wanted, "further": []}):
            return Further(table, name, tuple(oid for (oid,) in opened))
    return Further()


def _lock_beyond(connection, wanted: dict[str, Any]) -> None:
    for _ in range(ROUNDS):
        if not (beyond := fetch_all(connection, BEYOND_SQL, wanted)):
            break
        _lock(connection, [place for place, is_trusted in beyond if is_trusted])
        _lock(connection, [place for place, is_trusted in beyond if not is_trusted], LOCK_OF_UNTRUSTED)


def _lock(connection, places: list[str], mode: str = LOCK) -> None:
    if places:
        execute(connection, f"LOCK TABLE {', '.join(places)} IN {mode} MODE")


def block_untrusted_triggers(connection) -> None:
    """Raise Refusal if a trigger on our tables runs code of another role, and let only their owners create triggers.

    It locks the tables before, and so waits for a transaction that is adding a trigger.
    """
    if (schema := read_home(connection)[0]) is None:
        return
    tables = dict(fetch_all(connection, WRITTEN_SQL, {"schema": schema, "tables": our_tables()}))
    try:
        with transaction.atomic(using=connection.alias):
            places = [f"{quote(schema)}.{quote(table)}" for table, is_open in tables.items() if is_open]
            _lock(connection, places)  # REVOKE fails where a trigger is being created: both change the table's row in pg_class.
            refuse_untrusted_code(connection, tables)  # Some triggers are found only while another role holds TRIGGER.
            for place in places:
                revoke_trigger(connection, place)
    except Error as error:
        if sqlstate(error) != READ_ONLY:  # Nothing can be written to a read-only database.
            raise
    refuse_untrusted_code(connection)
