"""The server a database lives on, and what this project asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fly2any.postgres.url import is_local

from .findings import Finding, Severity

ENOUGH_CONNECTIONS = 100  # The guide's figure.

# reset_val is what the server or the role sets; Django sets the session itself to UTC.
SERVER_SQL = """
    SELECT current_setting('server_version') AS version,
           current_database() AS database,
           current_user AS role,
           current_schema() AS schema,
           COALESCE((SELECT s.version || ' ' || s.cipher FROM pg_catalog.pg_stat_ssl AS s WHERE s.pid = pg_backend_pid() AND s.ssl), '') AS tls,
           (SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name = 'TimeZone') AS time_zone,
           current_setting('max_connections')::int AS max_connections,
           CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit END AS database_limit,
           CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit END AS role_limit,
           (SELECT sum(b.numbackends)::int FROM pg_catalog.pg_stat_database AS b) AS connections,
           pg_is_in_recovery() AS standby,
           COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
           COALESCE(has_table_privilege(to_regclass('django_migrations'), 'SELECT'), true) AS may_read_migrations
    FROM pg_catalog.pg_database AS d, pg_catalog.pg_roles AS r
    WHERE d.datname = current_database() AND r.rolname = current_user
"""

PRIVILEGES_SQL = """
    SELECT p.name AS privilege,
           count(*) AS tables,
           count(*) FILTER (WHERE CASE p.name WHEN 'ALTER' THEN pg_has_role(c.relowner, 'USAGE')
                                              ELSE has_table_privilege(c.oid, p.name) END) AS held
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'ALTER']) WITH ORDINALITY AS p (name, place)
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
    GROUP BY p.name, p.place
    ORDER BY p.place
"""


@dataclass(frozen=True, slots=True)
class Privilege:
    """On how many of the contract's tables that exist the role holds a privilege; ALTER is the owner's."""

    privilege: str
    tables: int
    held: int


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    host: str  # "" for a socket
    database: str
    role: str
    schema: str | None  # where unqualified names are created
    tls: str  # protocol and cipher, "" without TLS
    time_zone: str
    max_connections: int
    connections: int
    standby: bool
    may_create: bool  # tables in the schema
    may_read_migrations: bool
    privileges: tuple[Privilege, ...]

    def findings(self) -> Iterator[Finding]:
        """Yield what the guide and the migrations ask for and this server does not give."""
        if self.schema is None:
            yield Finding(
                Severity.ERROR,
                "server.schema",
                self.database,
                "The role's search_path names no schema that exists, so no table can be found.",
                f'ALTER ROLE "{self.role}" SET search_path TO public, or correct ?schema= in POSTGRES_URL.',
            )
        if not self.tls and not is_local(self.host):
            yield Finding(
                Severity.WARNING,
                "server.tls",
                self.host,
                "The connection is not encrypted, and the server is not on this machine.",
                "Add sslmode=require to POSTGRES_URL; on your own server switch ssl on first.",
            )
        if self.time_zone not in (
            "UTC",
            "Etc/UTC",
            "GMT",
            "Etc/GMT",
            "UCT",
            "Etc/UCT",
            "Zulu",
            "Etc/Zulu",
            "Universal",
            "Etc/Universal",
        ):
            yield Finding(
                Severity.WARNING,
                "server.time_zone",
                self.database,
                f"The database's time zone is {self.time_zone}: sessions other than ours read and write times in it, and the guide asks for UTC.",
                f"ALTER DATABASE \"{self.database}\" SET timezone TO 'UTC';",
            )
        if self.max_connections < ENOUGH_CONNECTIONS:
            yield Finding(
                Severity.WARNING,
                "server.connections",
                self.database,
                f"{self.max_connections} connections are allowed here, and the guide asks for {ENOUGH_CONNECTIONS} or more.",
                "Raise max_connections (and the limits of the database and the role), or put a connection pooler in front.",
            )
        missing = [privilege.privilege for privilege in self.privileges if privilege.held < privilege.tables]
        if missing or not self.may_create:
            lacking = ", ".join([*missing, *([] if self.may_create else ["CREATE in the schema"])])
            yield Finding(
                Severity.NOTE,
                "server.privileges",
                self.role,
                f"The role {self.role} does not hold {lacking}: enough for this report, not for everything else.",
                "To migrate connect as the owner of the tables; the site needs SELECT, INSERT, UPDATE and DELETE.",
            )


def read_server(connection, *, tables: list[str]) -> Server:
    """Return the server behind `connection`, and the privileges that its role holds on those of `tables` that exist."""
    with connection.cursor() as cursor:
        cursor.execute(SERVER_SQL)
        row = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
        limits = [row.pop("max_connections"), row.pop("database_limit"), row.pop("role_limit")]
        cursor.execute(PRIVILEGES_SQL, {"schema": row["schema"], "tables": tables})
        privileges = tuple(Privilege(*values) for values in cursor.fetchall())
    host = connection.settings_dict["HOST"]
    return Server(
        host="" if host.startswith("/") else host,
        max_connections=min(limit for limit in limits if limit is not None),
        privileges=privileges,
        **row,
    )
