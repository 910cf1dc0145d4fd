"""Code of untrusted roles that a write to our tables would run with the privileges of the writing role.

A role needs only TRIGGER on a table to add a trigger. TRUSTED_ROLES_SQL defines which roles are trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db import Error, transaction

from fly2any.postgres.schema import revoke_trigger

from ..clock import server_time
from ..errors import Refusal, sqlstate
from ..findings import Finding, Severity
from ..leftover_databases import refuse_during_restore
from ..server import read_home
from ..sql import TRUSTED_ROLES_SQL, TRUSTED_SQL, execute, fetch_all, quote
from ..units import plural
from . import contract as contracts
from .ledgers import LEDGERS

# Whether the function `p` is one of Supabase's, such as that of its Database Webhooks: it runs as its owner, to which the superuser
# supabase_admin has granted the schema, and which only trusted roles can become. No other role can create such a grant.
OF_SUPABASE_SQL = """
    (p.prosecdef AND EXISTS (
        SELECT FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS s ON s.oid = n.nspowner
        CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS g
        WHERE n.oid = p.pronamespace AND n.nspname = 'supabase_functions' AND s.rolname = 'supabase_admin' AND s.rolsuper
          AND g.grantor = s.oid AND g.grantee = p.proowner AND g.privilege_type = 'CREATE')
     AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_roles AS m WHERE m.oid <> p.proowner AND pg_catalog.pg_has_role(m.oid, p.proowner, 'MEMBER')
            AND NOT EXISTS (SELECT FROM trusted AS t WHERE t.oid = m.oid)))
"""
# The roles, other than those of the query `trusted`, that own functions, operators and types which the trigger with the oid
# {trigger} uses, its WHEN included, and whether all of them run as their owner; nothing is recorded of PostgreSQL's own, nor of
# what belongs to the first superuser.
TRIGGER_OWNERS_SQL = f"""
    SELECT o.refobjid, pg_catalog.bool_and(p.prosecdef IS TRUE) FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_shdepend AS o ON o.classid = d.refclassid AND o.objid = d.refobjid AND o.deptype = 'o'
        AND o.dbid = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database())
    LEFT JOIN pg_catalog.pg_proc AS p ON d.refclassid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.refobjid
    WHERE d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = {{trigger}} AND d.refclassid <> 'pg_catalog.pg_class'::regclass
      AND o.refobjid NOT IN (SELECT oid FROM trusted) AND {OF_SUPABASE_SQL} IS NOT TRUE
    GROUP BY o.refobjid
"""
# Whether the table `c` has code that a foreign key runs when it finds or deletes rows.
ACTS_SQL = """
    (c.relhasrules
     OR EXISTS (SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
                WHERE t.tgrelid = c.oid AND t.tgenabled <> 'D' AND t.tgtype & 24 <> 0
                  AND (p.pronamespace <> 'pg_catalog'::regnamespace OR p.proname NOT LIKE 'RI\\_FKey\\_%%'))
     OR EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)))
"""
# The tables that are written to, and the tables `beyond` them that the actions of foreign keys write to.
TABLES_SQL = f"""
    WITH RECURSIVE home AS (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s),
    trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT oid FROM home)")}), ours AS (
        SELECT c.oid, c.relname, c.relowner, c.relowner IN (SELECT oid FROM trusted) AS trusted
        FROM pg_catalog.pg_class AS c WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    ), written AS (
        SELECT o.oid, o.relname::text FROM ours AS o WHERE o.trusted AND (%(all)s OR o.relname = ANY (%(tables)s::text[]))
    ), reached AS (
        SELECT w.oid, w.relname AS origin FROM written AS w WHERE %(deletes)s
        UNION
        SELECT n.oid, r.origin FROM reached AS r, LATERAL (
            SELECT k.conrelid FROM pg_catalog.pg_constraint AS k
            WHERE k.confrelid = r.oid AND k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
            UNION ALL
            SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS p ON p.oid = i.inhrelid AND p.relispartition
            WHERE i.inhparent = r.oid) AS n (oid)
    ), beyond AS (
        SELECT c.*, r.origin, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS place
        FROM reached AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.oid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE r.oid NOT IN (SELECT oid FROM written)
    )
"""
# The triggers of a table that a foreign key's action writes to run as its owner; before PostgreSQL 18, AFTER triggers run as the
# role of the outer statement.
STRANGERS_SQL = f"""{TABLES_SQL}
    SELECT 'owner' AS kind, pg_catalog.min(o.relname::text COLLATE "C"), pg_catalog.quote_ident(current_database()), count(*)::int,
           pg_catalog.pg_get_userbyid(o.relowner)::text, false
    FROM ours AS o WHERE NOT o.trusted AND o.relname = ANY (%(tables)s::text[]) GROUP BY o.relowner
    UNION
    SELECT 'trigger', w.relname, t.tgname::text, 1, pg_catalog.pg_get_userbyid(s.owner)::text, s.definer
    FROM pg_catalog.pg_trigger AS t JOIN written AS w ON w.oid = t.tgrelid,
         LATERAL ({TRIGGER_OWNERS_SQL.format(trigger="t.oid")}) AS s (owner, definer)
    WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
    UNION
    SELECT 'planted', c.origin, pg_catalog.quote_ident(t.tgname) || ' ON ' || c.place, 1, pg_catalog.pg_get_userbyid(s.owner)::text, s.definer
    FROM beyond AS c JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid,
         LATERAL ({TRIGGER_OWNERS_SQL.format(trigger="t.oid")}) AS s (owner, definer)
    WHERE c.relowner IN (SELECT oid FROM trusted) AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 24 <> 0
    UNION
    SELECT 'reference', c.origin, c.place, 1, pg_catalog.pg_get_userbyid(c.relowner)::text, false
    FROM beyond AS c
    WHERE current_setting('server_version_num')::int < 180000 AND c.relowner NOT IN (SELECT oid FROM trusted) AND {ACTS_SQL}
    ORDER BY 1, 2, 3, 5
"""
# The tables reached by foreign keys that this role may lock, so that no trigger or further foreign key is added meanwhile.
BEYOND_SQL = f"""{TABLES_SQL}
    SELECT DISTINCT c.place FROM beyond AS c
    WHERE c.relkind IN ('r', 'p') AND has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'UPDATE, DELETE')
    ORDER BY 1
"""
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
WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|TRUNCATE|MERGE|COPY)\b", re.IGNORECASE)


# The tables that this role may write to, which it may lock, and whether others may create triggers on them.
WRITTEN_SQL = """
    SELECT c.relname::text, EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) AS a
                                    WHERE a.privilege_type = 'TRIGGER' AND a.grantee <> c.relowner)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s::text[]) AND c.relkind IN ('r', 'p')
      AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
    ORDER BY c.relname COLLATE "C"
"""


@dataclass(frozen=True, slots=True)
class UntrustedCode:
    """A table of ours, a trigger on one, or a table that references one, that runs code of an untrusted role."""

    table: str
    what: str
    role: str
    cure: str
    is_definer: bool  # It runs as its owner.

    @property
    def sentence(self) -> str:
        how = "as that role, which can replace it with code that runs " if self.is_definer else ""
        return f"{self.what} runs code of the role {self.role} {how}with the privileges of the role that writes to {self.table}"

    @property
    def finding(self) -> Finding:
        return Finding(Severity.ERROR, "tables.untrusted", self.table, f"{self.sentence}.", self.cure)


def our_tables() -> list[str]:
    """Return the names of the tables that our migrations create."""
    return [*(thing.name for thing in contracts.catalog_of(contracts.load().versions).tables), *LEDGERS]


def read_untrusted_code(
    connection, *, schema: str, tables: Iterable[str] | None = None, deletes: bool = True
) -> Iterator[UntrustedCode]:
    """Yield the code of untrusted roles that a write to `tables`, or to all of `schema`, runs; with `deletes`, also a deletion or a change of keys."""
    names = our_tables() if tables is None else list(tables)
    rows = fetch_all(connection, STRANGERS_SQL, {"schema": schema, "tables": names, "all": tables is None, "deletes": deletes})
    for kind, table, name, number, role, is_definer in rows:
        at = f"{quote(schema)}.{quote(table)}"
        if kind == "owner":
            others = f" and {plural(number - 1, 'other')}" if number > 1 else ""
            what = f"Table {table}{others}, whose owner does not own the schema,"
            cure = (
                f"If the site created them: GRANT CREATE ON DATABASE {name} TO {quote(role)}; otherwise drop them, or make the"
                f" site's role their owner. REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC keeps other roles from creating any."
            )
        elif kind == "trigger":
            what = f"Trigger {name} of {table}"
            cure = (
                f"DROP TRIGGER {quote(name)} ON {at}; REVOKE TRIGGER ON {at} FROM {quote(role)}, PUBLIC; or, if it is needed, make"
                " the owner of the table the owner of what it calls."
            )
        elif kind == "planted":
            what = f"Trigger {name}, whose foreign key leads to {table},"
            cure = f"DROP TRIGGER {name}; REVOKE TRIGGER ON that table FROM {quote(role)}, PUBLIC; or, if it is needed, make the owner of the table the owner of what it calls."
        else:
            what = f"Table {name}, whose foreign key refers to {table},"
            cure = f"Ask its owner first, then drop the foreign key, or make the owner of {table} the owner of {name}."
        yield UntrustedCode(table, what, role, cure, is_definer)


def read_readable(connection, *, schema: str) -> set[str]:
    """Return the names of the tables in `schema` that can be read without running code of another role."""
    return {name for (name,) in fetch_all(connection, READABLE_SQL, [schema])}


def refuse_untrusted_code(
    connection, tables: Iterable[str] | None = None, *, deletes: bool = False, reads: bool = False
) -> None:
    """Raise Refusal if a write to `tables`, or to any of our schema, would run code of another role.

    In a transaction that does not only read (`reads`), it locks `tables`, and with `deletes` the tables that foreign keys lead
    to: no trigger can be added to them until it ends.
    """
    if (schema := read_home(connection)[0]) is None:
        return
    with connection.cursor() as cursor:
        cursor.execute(HIDING_SQL, {"schema": schema, "tables": our_tables() if tables is None else sorted(tables)})
        if row := cursor.fetchone():
            raise Refusal(
                f"Nothing was changed. {row[0]} comes before {row[1]} in the search path: remove its schema from"
                " the path, or name ours in POSTGRES_URL (?schema=)."
            )
    if tables is not None:
        tables = sorted(tables)
        if tables and connection.in_atomic_block and not reads:
            lockable = fetch_all(
                connection, WRITTEN_SQL, {"schema": schema, "tables": tables}
            )  # From PostgreSQL 16 on, INSERT alone allows this lock.
            _lock(connection, [f"{quote(schema)}.{quote(table)}" for table, _ in lockable])
            beyond = [
                place
                for (place,) in fetch_all(
                    connection, BEYOND_SQL, {"schema": schema, "tables": tables, "all": False, "deletes": deletes}
                )
            ]
            _lock(connection, beyond)
    if found := list(read_untrusted_code(connection, schema=schema, tables=tables, deletes=deletes)):
        more = f" `manage.py dbstatus` lists {len(found) - 1} more." if len(found) > 1 else ""
        raise Refusal(f"Nothing was changed. {found[0].sentence}. {found[0].cure}{more}")


def _lock(connection, places: list[str]) -> None:
    if places:
        execute(connection, f"LOCK TABLE {', '.join(places)} IN ROW EXCLUSIVE MODE")


def block_untrusted_triggers(connection) -> None:
    """Let only their owners create triggers on our tables, then raise Refusal if one runs code of another role.

    It locks the tables in between, and so waits for a transaction that is adding a trigger.
    """
    if (schema := read_home(connection)[0]) is None:
        return
    tables = dict(fetch_all(connection, WRITTEN_SQL, {"schema": schema, "tables": our_tables()}))
    try:
        with transaction.atomic(using=connection.alias):
            places = [f"{quote(schema)}.{quote(table)}" for table, is_open in tables.items() if is_open]
            _lock(connection, places)  # REVOKE fails where a trigger is being created: both change the table's row in pg_class.
            for place in places:
                revoke_trigger(connection, place)
    except Error as error:
        if sqlstate(error) != READ_ONLY:  # Nothing can be written to a read-only database.
            raise
    with transaction.atomic(using=connection.alias):
        refuse_untrusted_code(connection, tables)
    refuse_untrusted_code(connection)


def refuse_before_writes(connection) -> None:
    """Make `connection` raise Refusal at the first statement that would run code of another role, for Django's own commands.

    It also does so for a write while a restore is about to replace the database, and for a DELETE while this machine's clock is
    wrong, because some commands delete old rows.
    """
    asked: set[str] = set()

    def ask(execute, statement, parameters, many, context):
        written = WRITES.match(statement) if isinstance(statement, str) else None
        if written and (kind := written[1].upper()) not in asked:
            if not asked:
                refuse_during_restore(connection)
            asked.add(kind)
            refuse_untrusted_code(connection, deletes=kind in ("DELETE", "UPDATE"))
            if kind == "DELETE":
                server_time(connection)
        return execute(statement, parameters, many, context)

    connection.execute_wrappers.append(ask)
