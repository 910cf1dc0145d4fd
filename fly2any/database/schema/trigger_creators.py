"""Triggers that a role with no privilege other than TRIGGER on the table could have created.

PostgreSQL does not record who created a trigger. The owner of its function says nothing: other roles may call functions of trusted
roles, of extensions and of PostgreSQL, some of which run any query, or do what the arguments, the name or the table of the trigger say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..sql import fetch_all, literal
from ..trusted_roles import TRUSTED_ROLES_SQL

# What the condition of a trigger may contain: tags of expressions, with their names before PostgreSQL 16, that run only the functions
# whose oids they contain. Others look up code by a type or a text, such as JSON_VALUE (… RETURNING a domain).
HARMLESS_NODES = (
    "VAR CONST FUNCEXPR NAMEDARGEXPR OPEXPR DISTINCTEXPR NULLIFEXPR SCALARARRAYOPEXPR BOOLEXPR FIELDSELECT RELABELTYPE COERCEVIAIO"
    " ARRAYCOERCEEXPR CONVERTROWTYPEEXPR COLLATE COLLATEEXPR CASE CASEEXPR WHEN CASEWHEN CASETESTEXPR ARRAY ARRAYEXPR ROW ROWEXPR"
    " ROWCOMPARE ROWCOMPAREEXPR COALESCE COALESCEEXPR MINMAX MINMAXEXPR SQLVALUEFUNCTION NULLTEST BOOLEANTEST COERCETODOMAIN SUBSCRIPTINGREF"
)
HARMLESS_VOLATILE = "random clock_timestamp timeofday gen_random_uuid uuidv4 uuidv7"
HARMLESS_TRIGGERS = "suppress_redundant_updates_trigger tsvector_update_trigger tsvector_update_trigger_column"
HARMLESS_EXTENSIONS = "moddatetime citus citus_columnar"
# The body of a function that sets columns to the time, or nothing, and does nothing else.
TIMES = (
    r"^\s*begin\s+(new\.\x22?\w+\x22?\s*:?=\s*(now\(\)|current_timestamp(\(\d\))?|(clock|statement|transaction)_timestamp\(\)|localtimestamp"
    r"|timezone\('utc'(::text)?,\s*now\(\)\)|now\(\)\s+at\s+time\s+zone\s+'utc')\s*;\s*)*return\s+new\s*;\s*end\s*;?\s*$"
)
ONLY_TIMES_SQL = f"""
    (p.prosrc ~* {literal(TIMES)} AND p.prolang = (SELECT l.oid FROM pg_catalog.pg_language AS l WHERE l.lanname = 'plpgsql'))
"""
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
# Whether the function `p` of PostgreSQL runs no code that its arguments name: by a query, a cursor, a type or an oid. That of a
# partitioned table is enough: PostgreSQL evaluates the functions of its partition key when it opens the table.
IS_HARMLESS_SQL = f"""
    CASE WHEN p.provolatile = 'v' THEN p.proname::text = ANY (pg_catalog.string_to_array({literal(HARMLESS_VOLATILE)}, ' '))
         ELSE p.proname::text !~ '_to_xml|^pg_input_' AND NOT EXISTS (
            SELECT FROM pg_catalog.unnest(p.proargtypes::oid[]) AS g (type) JOIN pg_catalog.pg_type AS y ON y.oid = g.type
            WHERE y.typname::text ~ '^(cstring|internal|oid|reg)' AND y.typname::text NOT IN ('regconfig', 'regdictionary')) END
"""
# The functions `p` that the condition of the trigger `t` calls.
CALLED_SQL = """
    pg_catalog.regexp_matches(t.tgqual::text, ':(?:op)?funcid ([0-9]+)', 'g') AS f (oid)
    JOIN pg_catalog.pg_proc AS p ON p.oid = f.oid[1]::oid
"""
# Why the condition of the trigger `t` may run any code, regardless of the owners of its functions; NULL if it may not.
CONDITION_SQL = rf"""
    (SELECT pg_catalog.min(w.why COLLATE "C") FROM (
        SELECT 'its condition contains ' || n.tag[1] FROM pg_catalog.regexp_matches(t.tgqual::text, '\{{([A-Z]+)', 'g') AS n (tag)
        WHERE n.tag[1] <> ALL (pg_catalog.string_to_array({literal(HARMLESS_NODES)}, ' '))
        UNION ALL
        SELECT 'its condition calls ' || p.proname::text FROM {CALLED_SQL} WHERE p.oid < 16384 AND NOT {IS_HARMLESS_SQL}) AS w (why))
"""
# What a role that may create triggers could misuse of the trigger `t` and its function `p`, NULL if nothing.
MISUSED_SQL = f"""
    COALESCE(
        (SELECT CASE WHEN p.oid < 16384
                     THEN CASE WHEN p.proname::text <> ALL (pg_catalog.string_to_array({literal(HARMLESS_TRIGGERS)}, ' '))
                               THEN 'its function is PostgreSQL''s own' END
                     WHEN x.name = ANY (pg_catalog.string_to_array({literal(HARMLESS_EXTENSIONS)}, ' ')) OR {OF_SUPABASE_SQL} THEN NULL
                     WHEN x.name IS NOT NULL THEN 'its function belongs to the extension ' || x.name
                     WHEN t.tgnargs > 0 THEN 'it passes arguments to its function'
                     WHEN NOT {ONLY_TIMES_SQL} THEN 'its function does more than set columns to the current time' END
         FROM (SELECT (SELECT e.extname::text FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
                       WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                         AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e')) AS x (name)),
        (SELECT 'its condition calls ' || pg_catalog.min(p.proname::text COLLATE "C") FROM {CALLED_SQL}
         WHERE p.oid >= 16384 AND p.provolatile <> 'i'))
"""
# Of the given triggers, those whose creator matters: whether it matters also while no untrusted role may create triggers on the table,
# the trigger and its table, the untrusted roles that may, and the reason.
UNKNOWN_SQL = f"""
    WITH trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s)")})
    SELECT t.oid::bigint, w.condition IS NOT NULL, pg_catalog.quote_ident(t.tgname), pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
           COALESCE(h.holders, ''), COALESCE(w.condition, h.holders || ' may create triggers there, and ' || w.misused)
    FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT pg_catalog.string_agg(g.name, ', ' ORDER BY g.name COLLATE "C") FROM (
            SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
            FROM pg_catalog.aclexplode(c.relacl) AS a
            WHERE a.privilege_type = 'TRIGGER' AND a.grantee NOT IN (SELECT oid FROM trusted)) AS g (name)
    ) AS h (holders)
    CROSS JOIN LATERAL (SELECT {CONDITION_SQL}, CASE WHEN h.holders IS NOT NULL THEN {MISUSED_SQL} END) AS w (condition, misused)
    WHERE t.oid = ANY (%(oids)s::bigint[]::oid[]) AND COALESCE(w.condition, w.misused) IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class UnknownCreator:
    """A trigger that an untrusted role may have created to run its own code."""

    name: str  # These are SQL.
    table: str
    holders: str  # The untrusted roles that may create triggers on the table, "" for none.
    always: bool  # Whether it is untrusted without them too.
    reason: str


def read_unknown(connection, schema: str, oids: Iterable[int]) -> dict[int, UnknownCreator]:
    """Return those of the triggers with these oids that an untrusted role may have created to run its own code."""
    if not (wanted := sorted(set(oids))):
        return {}
    return {
        oid: UnknownCreator(name, table, holders, always, reason)
        for oid, always, name, table, holders, reason in fetch_all(connection, UNKNOWN_SQL, {"schema": schema, "oids": wanted})
    }
