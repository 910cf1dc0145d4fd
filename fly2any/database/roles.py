"""Three roles, each with what it needs and no more, as SQL to read and to run; who works with the tables today goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .catalog import quote
from .diagnosis import Refusal
from .server import read_schema

# Tables that only the role that migrates writes, and the record of access, which is only ever added to.
LEDGERS = ("django_migrations", "fly2any_migration_runs")
APPEND_ONLY = ("fly2any_accesses",)
# What nobody reads who only reads: tokens, hashes and keys. A test compares it with what the admin keeps secret.
SECRETS = {
    "users": ("password",),
    "accounts": ("refresh_token", "access_token", "id_token", "session_state"),
    "sessions": ("sessionToken",),
    "verification_tokens": ("token",),
    "user_sessions": ("token",),
    "push_subscriptions": ("endpoint", "p256dh", "auth"),
    "otp_totp_totpdevice": ("key",),
    "otp_static_statictoken": ("token",),
    "django_session": ("session_key", "session_data"),
}

TABLES_SQL = """
    SELECT c.relname AS name,
           (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s)
    ORDER BY c.relname COLLATE "C"
"""
OWNERS_SQL = """
    SELECT DISTINCT r.rolname
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s)
      AND r.rolname <> %(migrate)s AND NOT r.rolsuper
    ORDER BY r.rolname
"""


@dataclass(frozen=True, slots=True)
class Names:
    """The three roles: `migrate` owns the tables, `app` is the site's and the admin's, `read` only reads."""

    migrate: str
    app: str
    read: str


def roles_sql(connection, tables: list[str], *, prefix: str) -> str:
    """Return the SQL that makes the roles of `prefix`, or brings them up to date, for those of `tables` that exist.

    Raises Refusal where the prefix is no beginning of a role's name.
    """
    if not prefix or len(prefix.encode()) > 50 or prefix.startswith("pg_") or "\0" in prefix:
        raise Refusal(f"“{prefix}” is no beginning for the names of roles: 1 to 50 bytes, and not pg_.")
    names = Names(*(f"{prefix}_{end}" for end in ("migrate", "app", "read")))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_database()")
        database, schema = cursor.fetchone()[0], read_schema(connection)
        cursor.execute(TABLES_SQL, {"schema": schema, "tables": [*tables, *LEDGERS]})
        there = cursor.fetchall()
        cursor.execute(OWNERS_SQL, {"schema": schema, "tables": [*tables, *LEDGERS], "migrate": names.migrate})
        owners = [name for (name,) in cursor.fetchall()]
    lines = [*_roles(names, database, schema), *_owners(names, owners), *_tables(names, schema, there), *_later(names, schema)]
    return "\n".join([*lines, "COMMIT;", *_in_the_end(names, database, schema, owners), ""])


def _roles(names: Names, database: str, schema: str) -> Iterator[str]:
    yield "-- Read this, then run it as a superuser, or as the owner of the database with CREATEROLE: manage.py dbroles | psql -v ON_ERROR_STOP=1"
    yield "-- Passwords are not in it. Afterwards, in psql, for each role: \\password"
    yield "BEGIN;"
    for name in (names.migrate, names.app, names.read):
        yield f"DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {_literal(name)}) THEN CREATE ROLE {quote(name)} LOGIN; END IF; END $do$;"
    everybody = ", ".join(map(quote, (names.migrate, names.app, names.read)))
    yield f"GRANT CONNECT ON DATABASE {quote(database)} TO {everybody};"
    yield f"GRANT CREATE, TEMPORARY ON DATABASE {quote(database)} TO {quote(names.migrate)};  -- Extensions."
    yield f"GRANT USAGE ON SCHEMA {quote(schema)} TO {everybody};"
    yield f"GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(names.migrate)};"
    yield f"ALTER ROLE {quote(names.app)} SET idle_in_transaction_session_timeout TO '5min';"
    yield f"ALTER ROLE {quote(names.read)} SET default_transaction_read_only TO on;"
    yield f"ALTER ROLE {quote(names.read)} SET statement_timeout TO '5min';"


def _owners(names: Names, owners: list[str]) -> Iterator[str]:
    for name in owners:
        yield f"GRANT {quote(names.migrate)} TO {quote(name)};  -- It owns the tables today, and goes on as before."


def _in_the_end(names: Names, database: str, schema: str, owners: list[str]) -> Iterator[str]:
    yield f"-- For backups that are proven by a restore on this server: ALTER ROLE {quote(names.migrate)} CREATEDB;"
    yield "-- When every client uses one of the three:"
    yield from (f"-- REVOKE {quote(names.migrate)} FROM {quote(name)};" for name in owners)
    yield f"-- REVOKE ALL ON DATABASE {quote(database)} FROM PUBLIC;"
    yield f"-- REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC;"


def _tables(names: Names, schema: str, tables: list[tuple[str, list[str]]]) -> Iterator[str]:
    migrate, app, read = map(quote, (names.migrate, names.app, names.read))
    for name, columns in tables:
        place = f"{quote(schema)}.{quote(name)}"
        yield f"ALTER TABLE {place} OWNER TO {migrate};"
        yield f"REVOKE ALL ON {place} FROM {app}, {read};"
        may = "SELECT" if name in LEDGERS else "SELECT, INSERT" if name in APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
        yield f"GRANT {may} ON {place} TO {app};"
        if hidden := SECRETS.get(name):
            shown = ", ".join(quote(column) for column in columns if column not in hidden)
            yield f"GRANT SELECT ({shown}) ON {place} TO {read};"
        else:
            yield f"GRANT SELECT ON {place} TO {read};"
    yield f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {quote(schema)} TO {app};"


def _later(names: Names, schema: str) -> Iterator[str]:
    yield "-- What later migrations make. A new table's secrets: run this command again."
    default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(names.migrate)} IN SCHEMA {quote(schema)}"
    yield f"{default} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {quote(names.app)};"
    yield f"{default} GRANT USAGE, SELECT ON SEQUENCES TO {quote(names.app)};"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
