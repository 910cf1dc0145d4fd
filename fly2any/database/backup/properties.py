"""The properties of a database besides its contents: encoding, locale, settings, privileges, owner and connection limit."""

from __future__ import annotations

import re

from django.db import DataError, ProgrammingError
from psycopg import sql

from ..errors import sqlstate
from ..progress import Progress
from ..sql import catalogue, fetch_all, fetch_one, quote
from .owners import new_owner
from .tablespaces import read_own

# The options of CREATE DATABASE for a database like this one. daticulocale is datlocale from PostgreSQL 17 on, and daticurules is
# new in 16; to_jsonb knows all of them.
LIKE_SQL = """
    SELECT pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, pg_catalog.to_jsonb(d) ->> 'datlocprovider',
           COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale'),
           pg_catalog.to_jsonb(d) ->> 'daticurules',
           pg_catalog.pg_get_userbyid(d.datdba), d.datconnlimit
    FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
"""
SETTINGS_SQL = """
    SELECT COALESCE(r.rolname, ''), s.setconfig
    FROM pg_catalog.pg_db_role_setting AS s LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
    WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    ORDER BY 1
"""
GRANTS_SQL = """
    SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
    FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(COALESCE(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
    WHERE d.datname = pg_catalog.current_database() ORDER BY 1, 2
"""
# Settings that are lists, stored as they are written: each element is quoted where it must be.
NAMES = ("search_path", "temp_tablespaces")  # Their elements are identifiers: without quotes in lower case.
LISTS = (*NAMES, "session_preload_libraries", "local_preload_libraries")
BLANK = r"[ \t\n\r\f\v]*"
ELEMENT = re.compile(rf'{BLANK}(?:"((?:[^"]|"")*)"|([^ \t\n\r\f\v,"][^ \t\n\r\f\v,]*)){BLANK}(,|\Z)')


def creation(connection, name: str) -> sql.Composed:
    """Return the statement that creates the database `name` like that of `connection`."""
    encoding, collate, ctype, provider, locale, rules, *_ = fetch_one(connection, LIKE_SQL)
    parts: list[sql.Composable] = [sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))]
    for word, value in (("ENCODING", encoding), ("LC_COLLATE", collate), ("LC_CTYPE", ctype)):
        parts.append(sql.SQL(f"{word} {{}}").format(sql.Literal(value)))
    if provider == "c":
        parts.append(sql.SQL("LOCALE_PROVIDER libc"))
    elif provider in ("i", "b"):
        kind = {"i": "icu", "b": "builtin"}[provider]
        option = {"i": "ICU_LOCALE", "b": "BUILTIN_LOCALE"}[provider]
        parts.append(sql.SQL(f"LOCALE_PROVIDER {kind} {option} {{}}").format(sql.Literal(locale)))
        if rules:
            parts.append(sql.SQL("ICU_RULES {}").format(sql.Literal(rules)))
    return sql.SQL(" ").join(parts)


def create(connection, name: str) -> None:
    """Create the database `name`, like that of `connection` and for its owner, closed to other roles until copy_grants().

    It is in the same tablespace, if this role may create in it.
    """
    statement = sql.SQL("{} OWNER {}").format(creation(connection, name), sql.Identifier(new_owner(connection)))
    own = read_own(connection)
    if own and own.is_usable:
        statement += sql.SQL(" TABLESPACE {}").format(sql.Identifier(own.name))
    with connection.cursor() as cursor:
        cursor.execute(statement)
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))


def copy_grants(connection, name: str) -> None:
    """Give roles the privileges on the database `name` that they have on that of `connection`."""
    grants = fetch_all(connection, GRANTS_SQL)
    with connection.cursor() as cursor:
        for role, privilege, may_grant in grants:
            option = " WITH GRANT OPTION" if may_grant and role is not None else ""
            grantee = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
            statement = sql.SQL(f"GRANT {privilege} ON DATABASE {{}} TO {{}}{option}")
            cursor.execute(statement.format(sql.Identifier(name), grantee))


def copy_properties(connection, elsewhere, new: str, progress: Progress) -> None:
    """Give the database `new` the settings, the limit and the owner of that of `connection`, over `elsewhere`, a connection to another.

    A list that PostgreSQL cannot parse, and therefore ignores, and a setting that this role may not set, or that this server does
    not know, are left out and reported to `progress`.
    """
    with catalogue(connection) as cursor:
        cursor.execute(SETTINGS_SQL)
        settings_of = cursor.fetchall()
        cursor.execute(LIKE_SQL)
        *_, owner, limit = cursor.fetchone()
        current = connection.settings_dict["NAME"]
    name = sql.Identifier(new)
    with elsewhere.cursor() as cursor:
        for role, lines in settings_of:
            alter_role = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), name)
            for line in lines:
                option, _, value = line.partition("=")
                if (shown := literals(option, value)) is None:
                    of = f" of the role {role}" if role else ""
                    progress.say(
                        f"The setting {option}{of} is not a valid list and was not copied: set it again with ALTER … SET."
                    )
                    continue
                alter = alter_role if role else sql.SQL("ALTER DATABASE {}").format(name)
                try:
                    cursor.execute(sql.SQL("{} SET {} TO {}").format(alter, sql.Identifier(option), shown))
                except (ProgrammingError, DataError) as error:
                    why = "this role may not set it" if sqlstate(error) == "42501" else "the server refuses it"
                    of = f"ROLE {quote(role)} IN DATABASE {quote(current)}" if role else f"DATABASE {quote(current)}"
                    progress.say(  # Without its value, which may be a secret.
                        f"The setting {option} was not copied ({why}): after the restore, run ALTER {of} SET {option} TO … as a role that"
                        " may, with the value of the old database (\\drds in psql)."
                    )
        if limit != -1:
            cursor.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, sql.Literal(limit)))
        cursor.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(owner)))


def literals(option: str, value: str) -> sql.Composable | None:
    """Return the value of a setting as literals; None if it is one of LISTS and PostgreSQL cannot parse it.

    Any role may store any text in a setting of its own, so none of it becomes part of a statement.
    """
    if option not in LISTS or not value.strip(" \t\n\r\f\v"):
        return sql.Literal(value)
    elements, place, more = [], 0, ","
    while more:
        if not (match := ELEMENT.match(value, place)):
            return None
        quoted, plain, more = match.groups()
        if plain and option in NAMES:
            plain = plain.encode().lower().decode()  # ASCII, as PostgreSQL does.
        elements.append(sql.Literal(quoted.replace('""', '"') if quoted is not None else plain))
        place = match.end()
    return sql.SQL(", ").join(elements)
