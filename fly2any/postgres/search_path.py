"""The search path of a connection: it must be the requested one, and must not put other roles' objects before ours or PostgreSQL's.

base.py requires it of each new connection and of each one that a pool lends.
"""

from __future__ import annotations

import re

from django.db.utils import OperationalError

from .memberships import JOINED_SQL

# Each name is qualified, and each operator: if pg_catalog is last in the path, others would take precedence.
STATE_SQL = """
    SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_schema(), CURRENT_USER, pg_catalog.pg_backend_pid()
"""
# The tables by which a schema is known as ours: Django's migration ledger, and the site's people.
MARKING_TABLES = ("django_migrations", "users")
# The schemas of some names: whether their owner could do anything here anyway, whether only such roles, or those to which it gave
# the right to let others, may create in them, and how likely their MARKING_TABLES are ours, 1 being the most, NULL without them.
SCHEMAS_SQL = f"""
    WITH strong AS (
        SELECT r.oid
        FROM pg_catalog.pg_roles AS r
        JOIN pg_catalog.pg_database AS d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        JOIN pg_catalog.pg_roles AS me ON me.rolname OPERATOR(pg_catalog.=) CURRENT_USER
        WHERE r.rolsuper OR r.oid OPERATOR(pg_catalog.=) me.oid OR r.oid OPERATOR(pg_catalog.=) d.datdba
           OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'::pg_catalog.name
           OR r.rolname OPERATOR(pg_catalog.!~) '^pg_'::pg_catalog.text AND NOT me.rolsuper AND pg_catalog.pg_has_role(r.oid, 'USAGE')
              AND r.oid IN ({JOINED_SQL})
    ), named AS (
        SELECT n.oid, n.nspname, n.nspacl, n.nspowner IN (SELECT s.oid FROM strong AS s) AS owned,
               NOT EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) AS a
                           WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'::pg_catalog.text AND NOT a.is_grantable
                             AND a.grantee NOT IN (SELECT s.oid FROM strong AS s)) AS ungranted
        FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.name[])
    )
    SELECT n.nspname::pg_catalog.text, n.owned, n.owned AND n.ungranted,
           (SELECT pg_catalog.min(CASE WHEN n.owned AND n.ungranted OR c.relowner IN (SELECT s.oid FROM strong AS s) THEN 1
                                       WHEN n.owned AND c.relowner IN (SELECT a.grantee FROM pg_catalog.aclexplode(n.nspacl) AS a
                                                                       WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'::pg_catalog.text
                                                                         AND a.is_grantable) THEN 1
                                       WHEN n.owned THEN 2 ELSE 3 END)
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.name[])
              AND c.relkind OPERATOR(pg_catalog.=) ANY ('{{r,p}}'::pg_catalog."char"[]))
    FROM named AS n
"""
SOURCE_SQL = "SELECT s.source FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'search_path'"
WORD = re.compile(r"(?:\\.|[^\\\s])+", re.S)
SETTING = re.compile(r"(?:-c|--)(?P<name>[^=]+)=(?P<value>.*)", re.S)
# PostgreSQL searches a session's temporary tables and types before all others unless the path names their schema.
TEMPORARY = "pg_temp"
NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]*))\s*(?:,|$)')


class SearchPathError(OperationalError):
    """A connection would use a schema other than the requested one, or run another role's code; the message gives the cure."""


def option(schema: str) -> str:
    """Return the startup option by which the search path is one schema, its name taken literally, as Prisma does."""
    path = '"' + schema.replace('"', '""') + '"'
    return "-c search_path=" + re.sub(r"([\s\\])", r"\\\1", path)


def split(options: str) -> tuple[str, str | None]:
    """Return the startup options without search_path, and the search path that they set, None without one."""
    words = WORD.findall(options)
    kept, path = [], None
    while words:
        word = words.pop(0)
        text = "-c" + words[0] if word == "-c" and words else word
        setting = SETTING.fullmatch(re.sub(r"\\(.)", r"\1", text, flags=re.S))
        if setting and setting["name"].strip().lower().replace("-", "_") == "search_path":
            path = setting["value"]
        else:
            kept += [word, words[0]] if text != word else [word]
        del words[: text != word]
    return " ".join(kept), path


def require(
    connection, path: str | None, *, variable: str, user: str, database: str, keeps_session: bool
) -> tuple[str | None, bool]:
    """Return the search path that the psycopg connection must set, None if the server's is right, and whether it holds for all its transactions.

    Without a requested `path`, the server's is made explicit (`_explicit`). The temporary schema is last. Raises SearchPathError
    if the path leads to another schema than `path`, or takes another role's code for PostgreSQL's.
    """
    with connection.cursor() as cursor:
        here, schema, role, process = cursor.execute(STATE_SQL).fetchone()
    names = names_of(here)
    wanted = lasting(names if path is None else names_of(path))
    if wanted not in (lasting(names), [schema]):
        found = f"the schema {schema}" if schema else "no schema"
        raise SearchPathError(
            f"{variable} asks for the schema {', '.join(wanted)}, but its pooler drops the setting: connections are in"
            f" {found}; run ALTER ROLE {_quoted([user])} IN DATABASE {_quoted([database])} SET search_path TO {_quoted(wanted)};"
            " and let the pooler reconnect (RECONNECT in PgBouncer's console), or set the variable to the database's direct URL."
        )
    if "pg_catalog" in names[1:]:
        raise SearchPathError(
            f"The search path of {role} is {here}: objects that another role creates there would take precedence over PostgreSQL's"
            " own; remove pg_catalog, which is then searched first, where the path is set (ALTER DATABASE, ALTER ROLE or the URL)."
        )
    with connection.cursor() as cursor:
        is_kept = path is None or cursor.execute(SOURCE_SQL).fetchone()[0] == "client"
        if path is None:
            wanted = _explicit(cursor, wanted, role)
        explicit = [*wanted, TEMPORARY]
        # Where no schema exists, the temporary one would become that in which tables are created.
        if schema is None or not wanted:
            return path, is_kept
        if explicit == names:
            return path and _quoted(explicit), is_kept
        # A pooler gives its clients a number of its own.
        if keeps_session := keeps_session or process == connection.info.backend_pid:
            cursor.execute(f"SET search_path TO {_quoted(explicit)}")
    return _quoted(explicit), keeps_session


def _explicit(cursor, names: list[str], role: str) -> list[str]:
    """Return the schemas of a search path so that no other role can put a table before ours, now or while the connection lives.

    "$user" becomes the schema that it stands for now, and schemas that do not exist are left out: any role with CREATE on the
    database could create them later. A schema in which other roles may create comes after ours. A schema of another role that is
    searched only because of its name is left out.
    """
    named = {name: role if name == "$user" else name for name in names}
    found = {
        name: state for name, *state in cursor.execute(SCHEMAS_SQL, [list(named.values()), list(MARKING_TABLES)]).fetchall()
    }
    there = [one for name, one in named.items() if one in found and (name != "$user" or found[one][0])]
    there = list(dict.fromkeys(there))
    ours = min((one for one in there if one in found and found[one][2]), key=lambda one: found[one][2], default=None)
    if ours is None:
        return there
    before = there[: there.index(ours)]
    closed = [one for one in before if one not in found or found[one][1]]
    return [*closed, ours, *(one for one in before if one not in closed), *there[there.index(ours) + 1 :]]


def local(path: str) -> str:
    """Return the statement that sets the search path of a transaction, and lets its isolation level be set after it."""
    names = _quoted(names_of(path))
    return f"SET LOCAL search_path TO {names}" if names else "SET LOCAL search_path TO ''"


def lasting(names: list[str]) -> list[str]:
    """Return the schemas other than the temporary one."""
    return [name for name in names if name != TEMPORARY]


def names_of(path: str) -> list[str]:
    """Return the schemas that a search path lists."""
    found = []
    place = 0
    while place < len(path) and (match := NAME.match(path, place)):
        quoted, plain = match.groups()
        found.append(plain.strip().lower() if quoted is None else quoted.replace('""', '"'))
        place = match.end()
    return found


def _quoted(names: list[str]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)
