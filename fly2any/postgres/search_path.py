"""The search path of a connection: it must be the requested one, and must not put other roles' code before PostgreSQL's."""

from __future__ import annotations

import re

from django.db.utils import OperationalError

# The last columns: the server's process, whether the schema that "$user" stands for exists, and who owns it, unless that role
# could do anything here anyway. Each name is qualified, and each operator: if pg_catalog is last in the path, others would take
# precedence.
STATE_SQL = """
    SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_schema(), CURRENT_USER, pg_catalog.pg_backend_pid(),
           EXISTS (SELECT FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) CURRENT_USER),
           (SELECT o.rolname
            FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) n.nspowner
            WHERE n.nspname OPERATOR(pg_catalog.=) CURRENT_USER AND NOT o.rolsuper AND o.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_database AS d WHERE d.datdba OPERATOR(pg_catalog.=) n.nspowner
                              AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
"""
SOURCE_SQL = "SELECT s.source FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'search_path'"
WORD = re.compile(r"(?:\\.|[^\\\s])+", re.S)
SETTING = re.compile(r"(?:-c|--)(?P<name>[^=]+)=(?P<value>.*)", re.S)
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

    "$user" becomes the schema that it stands for now: otherwise any role with CREATE on the database could make a schema of that
    name later, whose tables would take precedence over ours. Raises SearchPathError if the path leads to another schema than
    `path`, or takes another role's code for PostgreSQL's.
    """
    with connection.cursor() as cursor:
        here, schema, role, process, has_own, other_owner = cursor.execute(STATE_SQL).fetchone()
    names = names_of(here)
    wanted = names if path is None else names_of(path)
    if names != wanted and [schema] != wanted:
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
    if "$user" in names and other_owner is not None:
        others = [name for name in names if name != "$user"] or ["public"]
        raise SearchPathError(
            f"The schema {_quoted([role])} belongs to the role {other_owner}, and {role} searches it because of its name: run"
            f" ALTER ROLE {_quoted([role])} IN DATABASE {_quoted([database])} SET search_path TO {_quoted(others)};"
            f" or ALTER SCHEMA {_quoted([role])} OWNER TO {_quoted([role])}; if it is meant to be there."
        )
    if "$user" in names and (others := [role if name == "$user" else name for name in names if has_own or name != "$user"]):
        keeps_session = (
            keeps_session or process == connection.info.backend_pid
        )  # A pooler gives its clients a number of its own.
        if keeps_session:
            with connection.cursor() as cursor:
                cursor.execute(f"SET search_path TO {_quoted(others)}")
        return _quoted(others), keeps_session
    if path is None:
        return None, True
    with connection.cursor() as cursor:
        return path, cursor.execute(SOURCE_SQL).fetchone()[0] == "client"


def local(path: str) -> str:
    """Return the statement that sets the search path of a transaction, and lets its isolation level be set after it."""
    names = _quoted(names_of(path))
    return f"SET LOCAL search_path TO {names}" if names else "SET LOCAL search_path TO ''"


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
