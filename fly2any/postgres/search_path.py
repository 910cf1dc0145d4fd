"""The search path that a connection asks for in its startup options, which a pooler may refuse or leave out."""

from __future__ import annotations

import re

from django.db.utils import OperationalError

STATE_SQL = """
    SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_schema(),
           (SELECT s.source FROM pg_catalog.pg_settings AS s WHERE s.name = 'search_path')
"""
WORD = re.compile(r"(?:\\.|[^\\\s])+", re.S)
SETTING = re.compile(r"(?:-c|--)(?P<name>[^=]+)=(?P<value>.*)", re.S)
NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]*))\s*(?:,|$)')


class SearchPathError(OperationalError):
    """A connection that would read and write in another schema than was asked for; the message says so, and the cure."""


def option(schema: str) -> str:
    """Return the startup option by which the search path is one schema, its name taken literally, as Prisma does."""
    path = '"' + schema.replace('"', '""') + '"'
    escaped = path.replace("\\", "\\\\").replace(" ", "\\ ")
    return f"-c search_path={escaped}"


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


def require(connection, path: str, *, variable: str, user: str, database: str) -> bool:
    """Return whether the psycopg connection itself has the search path `path`, which then holds for all its transactions.

    Raises SearchPathError where it leads to another schema.
    """
    with connection.cursor() as cursor:
        here, schema, source = cursor.execute(STATE_SQL).fetchone()
    wanted = _names(path)
    if _names(here) == wanted or [schema] == wanted:
        return source == "client"
    asked, found = ", ".join(wanted), f"the schema {schema}" if schema else "no schema"
    raise SearchPathError(
        f"{variable} asks for the schema {asked}, but its pooler drops the setting: connections are in"
        f" {found}; run ALTER ROLE {_quoted([user])} IN DATABASE {_quoted([database])} SET search_path TO {_quoted(wanted)};"
        " and let the pooler reconnect (RECONNECT in PgBouncer's console), or set the variable to the database's direct URL."
    )


def local(path: str) -> str:
    """Return the statement that sets the search path of a transaction, and lets its isolation level be set after it."""
    names = _quoted(_names(path))
    return f"SET LOCAL search_path TO {names}" if names else "SET LOCAL search_path TO ''"


def _names(path: str) -> list[str]:
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
