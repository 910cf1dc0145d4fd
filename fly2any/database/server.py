"""The server of a database, and this project's requirements for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS

from fly2any.postgres.search_path import SearchPathError, lasting, names_of
from fly2any.postgres.url import is_local

from .clock import TIME, Clock, since
from .collations import EXCLUSIONS_SQL, OF_DATABASE_SQL, OTHERS_SQL, of_collations, of_database
from .errors import NO_SCHEMA
from .event_triggers import EVENT_TRIGGERS_SQL, LOGIN_TRIGGERS_SQL, of_event_triggers
from .extensions import UNAVAILABLE_SQL, of_unavailable
from .findings import Finding, Severity
from .other_schemas import OTHER_SCHEMAS_SQL, of_other_schemas
from .other_writers import GRANTED_SQL, OTHER_WRITERS_SQL, of_other_writers
from .schema_owner import SCHEMA_OWNER_SQL, of_schema_owner
from .session_defaults import (
    HIDDEN_ZONE,
    HIDDEN_ZONE_SQL,
    MARKING_TABLE,
    READ_ONLY_SQL,
    REPLICATION_ROLE_SQL,
    SETTINGS_SQL,
    UTC_NAMES,
    of_read_only,
    of_replication_role,
    of_setting,
)
from .sql import RECORD, ask, literal, pinned, quote
from .supabase import SERVED_SQL, of_api_role
from .trusted_roles import TRUSTED_SQL
from .units import few, plural

JOURNAL = "fly2any_migration_runs"  # The journal of all runs.
ENOUGH_CONNECTIONS = 100  # The guide's figure.

# The limits of connections, also of the session's role and of {others}, a condition for a role `r`, and how many clients count towards
# each. Not every role sees the backend type of other roles' sessions.
CONNECTIONS_SQL = """
    SELECT l.what, l."limit", l.reserved, count(s.pid)::int AS used, count(*) FILTER (WHERE s.state = 'active') AS active,
           count(*) FILTER (WHERE s.state LIKE 'idle in transaction%%') AS idle_in_transaction,
           count(*) FILTER (WHERE s.pid IS NOT NULL AND s.backend_type IS NULL) AS hidden
    FROM (SELECT 'max_connections' AS what, current_setting('max_connections')::int AS "limit",
                 current_setting('superuser_reserved_connections')::int + COALESCE(current_setting('reserved_connections', true), '0')::int AS reserved
          UNION ALL
          SELECT 'database ' || datname, datconnlimit, 0 FROM pg_catalog.pg_database WHERE datname = current_database() AND datconnlimit >= 0
          UNION ALL
          SELECT 'role ' || r.rolname, r.rolconnlimit, 0 FROM pg_catalog.pg_roles AS r WHERE (r.rolname = session_user OR {others}) AND r.rolconnlimit >= 0) AS l
    LEFT JOIN pg_catalog.pg_stat_activity AS s
           ON s.usesysid IS NOT NULL AND COALESCE(s.backend_type, 'client backend') = 'client backend'
              AND l.what IN ('max_connections', 'database ' || s.datname, 'role ' || s.usename)
    GROUP BY l.what, l."limit", l.reserved
"""

# The schema is the first with both the migration ledger and the people's table, of trusted roles, or else with one of them, because another
# project of Django may have a ledger of its own; or else the one for new tables; or else the first, even if the role may not use it.
# reset_val is what the server or the role sets: Django sets the session to UTC.
PATH_SQL = """
    WITH path AS (
        SELECT n.oid, n.nspname, p.place, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable
        FROM pg_catalog.unnest(%(path)s::text[]) WITH ORDINALITY AS p (name, place)
        JOIN pg_catalog.pg_namespace AS n ON n.nspname = CASE p.name WHEN '$user' THEN current_user::text ELSE p.name END
    )
"""
HOME_CTES = f"""
    {PATH_SQL}, known AS (
        SELECT c.oid, c.relname, path.nspname, path.place, path.usable, pg_catalog.pg_get_userbyid(c.relowner) AS owner, {TRUSTED_SQL} AS trusted
        FROM path JOIN pg_catalog.pg_class AS c ON c.relnamespace = path.oid
        WHERE c.relname IN ({literal(RECORD)}, {literal(MARKING_TABLE)}) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    ), home AS (
        SELECT COALESCE((SELECT nspname FROM known WHERE trusted GROUP BY nspname, usable, place ORDER BY usable DESC, count(*) DESC, place LIMIT 1),
                        (SELECT nspname FROM known WHERE usable AND relname = {literal(MARKING_TABLE)} ORDER BY place LIMIT 1),
                        (SELECT nspname FROM path WHERE usable ORDER BY place LIMIT 1),
                        (SELECT nspname FROM path ORDER BY place LIMIT 1)) AS schema
    )
"""
# Where the search path of this session's role in this database is set, as the beginning of a statement, and its value.
SETS_PATH_SQL = """ARRAY(
    SELECT one.part
    FROM (SELECT 'ALTER ' || CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'ROLE ALL'
                                  ELSE concat_ws(' IN ', 'ROLE ' || quote_ident(r.rolname), 'DATABASE ' || quote_ident(d.datname)) END AS place,
                 substr(c.setting, length('search_path=') + 1) AS value
          FROM pg_catalog.pg_db_role_setting AS s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting)
          LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
          WHERE c.setting LIKE 'search_path=%%' AND COALESCE(r.rolname, session_user) = session_user AND COALESCE(d.datname, current_database()) = current_database()
          ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1) AS setting
    CROSS JOIN LATERAL (VALUES (1, setting.place), (2, setting.value)) AS one (number, part) ORDER BY one.number
)"""
SERVER_SQL = f"""
    {HOME_CTES}, ledger AS (
        SELECT known.oid FROM known JOIN home ON home.schema = known.nspname WHERE known.relname = {literal(RECORD)} AND known.trusted
        LIMIT 1
    )
    SELECT current_setting('server_version') AS version,
           current_database() AS database,
           current_user AS role,
           home.schema,
           (SELECT nspname FROM path WHERE usable ORDER BY place LIMIT 1) AS creates_in,
           ARRAY(SELECT quote_ident(found.nspname) || '.' || quote_ident(found.relname)
                 FROM (SELECT DISTINCT ON (c.relname) c.relname, path.nspname FROM path JOIN pg_catalog.pg_class AS c ON c.relnamespace = path.oid
                       WHERE path.usable AND c.relname = ANY (%(tables)s) ORDER BY c.relname, path.place) AS found
                 WHERE found.nspname <> home.schema
                   AND EXISTS (SELECT FROM pg_catalog.pg_class AS own JOIN pg_catalog.pg_namespace AS n ON n.oid = own.relnamespace
                               WHERE n.nspname = home.schema AND own.relname = found.relname)
                 ORDER BY found.relname COLLATE "C") AS hiding,
           ARRAY({OTHER_SCHEMAS_SQL}) AS elsewhere,
           current_setting('server_encoding') AS encoding,
           lower('I' COLLATE "default") AS lower_i,
           COALESCE((SELECT s.version || ' ' || s.cipher FROM pg_catalog.pg_stat_ssl AS s WHERE s.pid = pg_backend_pid() AND s.ssl), '') AS tls,
           (SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name = 'TimeZone') AS time_zone,
           {HIDDEN_ZONE_SQL.format(schema="home.schema")} AS hides_zone,
           COALESCE((SELECT 'ALTER ROLE ' || quote_ident(session_user) || CASE WHEN z.setdatabase = 0 THEN '' ELSE ' IN DATABASE ' || quote_ident(current_database()) END
                     FROM pg_catalog.pg_db_role_setting AS z JOIN pg_catalog.pg_roles AS r ON r.oid = z.setrole
                     WHERE r.rolname = session_user AND z.setconfig::text ~* '[{{,"]timezone='
                       AND z.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
                     ORDER BY z.setdatabase DESC LIMIT 1), 'ALTER DATABASE ' || quote_ident(current_database())) AS sets_zone,
           {SETS_PATH_SQL} AS sets_path,
           {SCHEMA_OWNER_SQL} AS schema_owner,
           (SELECT known.owner::text FROM known
            WHERE known.relname = {literal(MARKING_TABLE)} AND known.nspname = home.schema AND NOT pg_catalog.pg_has_role(known.owner, 'USAGE')
              AND pg_catalog.pg_has_role(known.owner, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END))
               AS owner_to_set,
           pg_is_in_recovery() AS standby,
           pg_backend_pid() AS process,
           {TIME} AS time,
           {OF_DATABASE_SQL} AS collation,
           {OTHERS_SQL} AS collations,
           {EXCLUSIONS_SQL} AS exclusions,
           ARRAY(SELECT ARRAY[w.place, w.is_ours::text] FROM ({READ_ONLY_SQL}) AS w ORDER BY 1) AS read_only,
           ARRAY(SELECT ARRAY[w.place, w.value] FROM ({REPLICATION_ROLE_SQL}) AS w) AS replication_roles,
           ARRAY(SELECT ARRAY[w.name, w.place, w.value] FROM ({SETTINGS_SQL}) AS w) AS settings,
           ARRAY(SELECT ARRAY[w.role, w.connects, w.uses] FROM ({OTHER_WRITERS_SQL}) AS w ORDER BY 1) AS other_writers,
           ARRAY(SELECT ARRAY[w.roles, w.expected, w."table", w.held, COALESCE(w.hidden, '')] FROM ({GRANTED_SQL}) AS w ORDER BY w.roles, w."table") AS granted,
           ARRAY(SELECT ARRAY[w.role, w.number, w.tables] FROM ({SERVED_SQL}) AS w ORDER BY 1) AS served,
           ARRAY({EVENT_TRIGGERS_SQL}) AS event_triggers,
           ARRAY({LOGIN_TRIGGERS_SQL}) AS login_triggers,
           ARRAY({UNAVAILABLE_SQL}) AS unavailable,
           COALESCE(has_schema_privilege(home.schema, 'USAGE'), false) AS may_use,
           COALESCE(has_schema_privilege(home.schema, 'CREATE'), false) AS may_create,
           (SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) AS owns_database,
           COALESCE((SELECT has_schema_privilege(home.schema, 'USAGE') AND has_table_privilege(ledger.oid, 'SELECT') FROM ledger), true)
               AS may_read_migrations,
           has_schema_privilege(home.schema, 'USAGE') AND COALESCE((
               SELECT has_table_privilege(c.oid, 'SELECT')
               FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS jn ON jn.oid = c.relnamespace
               WHERE c.relname = {literal(JOURNAL)} AND jn.nspname = home.schema AND {TRUSTED_SQL}
           ), false) AS may_read_journal,
           fullest."limit" AS max_connections,
           fullest.used AS connections
    FROM home, (SELECT * FROM ({CONNECTIONS_SQL.format(others="false")}) AS c ORDER BY c."limit", c.used DESC LIMIT 1) AS fullest
"""

# The schema and the owner of the first migration ledger in the path, which Django reads, if it is another role's.
HOME_SQL = f"""
    {HOME_CTES}
    SELECT COALESCE((SELECT nspname FROM path WHERE usable AND nspname = home.schema LIMIT 1),
                    (SELECT nspname FROM path WHERE usable ORDER BY place LIMIT 1)),
           EXISTS (SELECT FROM known WHERE relname = {literal(RECORD)} AND trusted AND nspname = home.schema),
           (SELECT CASE WHEN NOT first.trusted THEN ARRAY[first.nspname, first.owner]::text[] END
            FROM (SELECT * FROM known WHERE relname = {literal(RECORD)} AND usable ORDER BY place LIMIT 1) AS first),
           {SCHEMA_OWNER_SQL}
    FROM home
"""


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    host: str  # "" for a socket
    database: str
    role: str
    schema: str | None  # where our tables are
    creates_in: str | None  # where a new table would be
    hiding: list[str]  # relations that statements use instead of our tables, since their schema comes first in the search path
    elsewhere: list[str]  # schemas outside the search path that have our tables, if none in it has
    encoding: str
    lower_i: str  # the letter that lower('I') is in the database's locale
    tls: str  # protocol and cipher of the server's connection, which is the pooler's behind one; "" without TLS
    pooled: bool  # whether the connection goes through a pooler
    encrypted: bool  # whether our own connection, to the pooler or the server, is encrypted
    collation_of: (
        str | None
    )  # the version that the database's indexes were built with, None without one; "" if the server has the same
    collation_now: str | None
    collations: list[
        list[str]
    ]  # others with another version than columns and indexes were built with; whether REFRESH records it
    exclusions: list[str]  # indexes of exclusion constraints, quoted
    time_zone: str
    sets_zone: str  # The beginning of the statement that sets the time zone for this role in this database.
    sets_path: list[str]  # The same for the search path, and its value; empty where it is the server's or the URL's.
    schema_owner: str | None  # of `schema`, if it is not trusted
    owner_to_set: str | None  # of our tables, if this role may SET ROLE to it and does not inherit its privileges
    max_connections: int
    connections: int
    standby: bool
    clock: Clock
    read_only: list[list[str]]  # where default_transaction_read_only is on, and whether that applies to this role
    replication_roles: list[list[str]]  # where session_replication_role is replica, and that value
    settings: list[list[str]]  # other defaults of sessions that are findings: name, place and value
    other_writers: list[list[str]]  # that may write, and whether they may connect and use the schema
    granted: list[
        list[str]
    ]  # to other roles that write: their names in JSON, what they should hold, table, what they hold, columns that they may not read
    served: list[list[str]]  # by Supabase's API: role, number of tables, and their names
    event_triggers: list[str]  # that run when the schema changes, except those of extensions
    login_triggers: list[str]  # event triggers that run when a session begins, with the same exception
    unavailable: list[str]  # extensions that are installed, and whose files the server lacks
    may_use: bool  # what is in the schema
    may_create: bool  # tables in the schema
    owns_database: bool
    may_read_migrations: bool
    may_read_journal: bool
    hides_zone: bool = False  # the server's time zone, in which sessions of a role that writes begin

    def findings(self, alias: str = DEFAULT_DB_ALIAS) -> Iterator[Finding]:
        """Yield a finding for each requirement of the guide and the migrations that this server, `alias` in DATABASES, does not meet."""
        yield from self._schema()
        if self.standby and alias == DEFAULT_DB_ALIAS:  # The replica of POSTGRES_REPLICA_URL has to be one.
            yield Finding(
                Severity.WARNING, "server.standby", self.database,
                "The server is a standby (pg_is_in_recovery() is true), so neither the admin nor a command can write to it.",
                "Set POSTGRES_URL to the primary, or promote this server: SELECT pg_promote(); to check a replica, set POSTGRES_REPLICA_URL and add --database replica.",
            )  # fmt: skip
        yield from self._read_only()
        yield from (of_replication_role(self.database, *one) for one in self.replication_roles)
        yield from (of_setting(self.database, self.schema or "", *one) for one in self.settings)
        yield from of_other_writers(self.database, self.schema or "", self.other_writers)
        yield from (of_api_role(self.schema or "", *one) for one in self.served)
        yield from of_event_triggers(self.database, self.event_triggers, self.login_triggers)
        yield from map(of_unavailable, self.unavailable)
        yield from self._encoding()
        yield from self._letters()
        yield from self._collation()
        yield from self._encryption()
        yield from self._time_zone()
        yield from self._connections()
        yield from self.clock.findings()

    def _schema(self) -> Iterator[Finding]:
        if self.schema_owner is not None:
            yield of_schema_owner(self.database, self.schema or "", self.schema_owner)
        if self.schema is None:
            path, cure = "", f"ALTER ROLE {quote(self.role)} SET search_path TO public;"
            if self.sets_path:
                place, value = self.sets_path
                path, cure = f" ({value}, as {place} sets it)", f"{place} RESET search_path;"
            yield Finding(
                Severity.ERROR, "server.schema", self.database, f"No schema in the search path{path} exists, so no table can be found.",
                f"Correct ?schema= in POSTGRES_URL, create the schema, or: {cure}",
            )  # fmt: skip
        elif self.elsewhere:
            yield of_other_schemas(self.database, self.schema, self.elsewhere, next(iter(self.sets_path), None))
        elif self.hiding:
            come = "comes" if len(self.hiding) == 1 else "come"
            yield Finding(
                Severity.ERROR, "server.schema", self.database,
                f"The tables are in the schema {self.schema}, but {few(self.hiding, 3)} {come} first in the search path: the site reads and writes there.",
                f"Add ?schema={self.schema} to POSTGRES_URL.",
            )  # fmt: skip
        elif self.creates_in not in (None, self.schema):
            yield Finding(
                Severity.WARNING, "server.schema", self.database,
                f"The tables are in the schema {self.schema}, but new ones would be created in {self.creates_in}, which comes first in the search path.",
                f"Add ?schema={self.schema} to POSTGRES_URL, or remove the schema {self.creates_in} if nothing is in it.",
            )  # fmt: skip

    def _read_only(self) -> Iterator[Finding]:
        for place, is_ours in () if self.standby else self.read_only:
            yield of_read_only(place, self.database, is_ours == "true")

    def _encoding(self) -> Iterator[Finding]:
        if self.encoding != "UTF8":
            yield Finding(
                Severity.ERROR, "server.encoding", self.database,
                f"The database's encoding is {self.encoding}, which cannot hold every character.",
                "Dump it, create a new database with ENCODING 'UTF8' TEMPLATE template0, and restore the dump there.",
            )  # fmt: skip

    def _letters(self) -> Iterator[Finding]:
        if self.lower_i != "i":
            yield Finding(
                Severity.NOTE, "server.letters", self.database,
                f"In the locale of the database, lower('I') is {self.lower_i}, not i: the admin's search for a word with this letter finds no name"
                " that is written in another case.",
                "Enter names as they are stored, or move the data to a database of another locale: dump it, create a database with another"
                " LOCALE and TEMPLATE template0, and restore the dump there.",
            )  # fmt: skip

    def _collation(self) -> Iterator[Finding]:
        """Yield the collations whose order may have changed under the indexes: all our keys are text."""
        if self.collation_of != self.collation_now:
            yield of_database(self.database, self.collation_of, self.collation_now, self.exclusions)
        yield from of_collations(self.database, self.collations, self.exclusions)

    def _encryption(self) -> Iterator[Finding]:
        if not self.encrypted and not is_local(self.host):
            whom = "the pooler" if self.pooled else "the server"
            yield Finding(
                Severity.WARNING, "server.tls", self.host, f"The connection is not encrypted, and {whom} is not on this machine.",
                f"Add sslmode=require to POSTGRES_URL; on your own {whom.removeprefix('the ')} turn {'TLS' if self.pooled else 'ssl'} on first.",
            )  # fmt: skip

    def _time_zone(self) -> Iterator[Finding]:
        if self.time_zone.lower() not in UTC_NAMES:
            yield Finding(
                Severity.WARNING, "server.time_zone", self.database,
                f"The database's time zone is {self.time_zone}: other sessions read and write times in this zone, but the guide asks for UTC.",
                f"{self.sets_zone} SET timezone TO 'UTC';",
            )  # fmt: skip
        elif self.hides_zone:
            yield Finding(
                Severity.WARNING, "server.time_zone", self.database,
                f"{HIDDEN_ZONE}: if it is not UTC, sessions of other roles or clients read and write times in it.",
                f"ALTER DATABASE {quote(self.database)} SET timezone TO 'UTC';",
            )  # fmt: skip

    def _connections(self) -> Iterator[Finding]:
        if self.max_connections < ENOUGH_CONNECTIONS:
            yield Finding(
                Severity.WARNING, "server.connections", self.database,
                f"{plural(self.max_connections, 'connection is', 'connections are')} allowed, but the guide asks for {ENOUGH_CONNECTIONS} or more.",
                "Raise max_connections (and the limits of the database and the role), or put a connection pooler in front.",
            )  # fmt: skip


def read_home(connection) -> tuple[str | None, bool]:
    """Return the schema that our tables are in, or would be created in, None without one, and whether our record is there.

    Raises SearchPathError if a relation of that name belongs to another role: reading it could run that role's code.
    """
    with pinned(connection) as path, connection.cursor() as cursor:
        cursor.execute(HOME_SQL, {"path": names_of(path)})
        schema, recorded, untrusted, schema_owner = cursor.fetchone()
    if schema_owner is not None:
        found = of_schema_owner("", schema, schema_owner)
        raise SearchPathError(f"{found.message} {found.cure}")
    if untrusted is not None:
        place, owner = untrusted
        raise SearchPathError(
            f"{RECORD} belongs to the role {owner}, which may be another tenant's, so it is not read. If it is the ledger, give it to"
            f" the owner of the other tables (ALTER TABLE {RECORD} OWNER TO …); if all of them belong to {owner}: GRANT CREATE ON"
            f" SCHEMA {quote(place)} TO {quote(owner)} WITH GRANT OPTION; otherwise drop it."
        )
    return schema, recorded


def read_schema(connection) -> str:
    """Return the schema that our tables are in, or would be created in; raise SearchPathError without one."""
    if (schema := read_home(connection)[0]) is None:
        raise SearchPathError(NO_SCHEMA.replace("POSTGRES_URL", connection.settings_dict.get("VARIABLE", "POSTGRES_URL")))
    return schema


def flush_statistics(connection) -> None:
    """Report this session's changes to the statistics now, so that they are not added to the counts of its next VACUUM or ANALYZE."""
    # PostgreSQL 14 reports at the end of a command, half a second after the last report.
    flush = "pg_stat_force_next_flush()" if connection.pg_version >= 150000 else "pg_sleep(0.6)"
    ask(connection, f"SELECT pg_catalog.{flush}")


def read_server(connection) -> Server:
    """Return the server behind `connection`."""
    with pinned(connection) as path, connection.cursor() as cursor:
        dated = connection.pg_version >= 150000
        tables = [model._meta.db_table for model in apps.get_models(include_auto_created=True)]
        began = datetime.now(UTC)
        cursor.execute(
            SERVER_SQL if dated else SERVER_SQL.replace(OF_DATABASE_SQL, "NULL"), {"path": names_of(path), "tables": tables}
        )
        row = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
        clock = since(began, row.pop("time"))
    if row["sets_path"] and lasting(names_of(row["sets_path"][1])) != lasting(names_of(path)):  # The URL sets another.
        row["sets_path"] = []
    host = connection.settings_dict["HOST"]
    link = connection.connection
    before, now = row.pop("collation") or ("", "")
    pooled = row.pop("process") != link.info.backend_pid  # A pooler reports a process id of its own.
    return Server(
        clock=clock,
        pooled=pooled,
        encrypted=link.pgconn.ssl_in_use if pooled else bool(row["tls"]),
        collation_of=before,
        collation_now=now,
        host="" if host.startswith("/") else host,
        **row,
    )
