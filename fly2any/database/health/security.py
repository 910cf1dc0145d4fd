"""The security of the live server: one function for each topic of `dbstatus --security`; TOPICS, at the end, lists them.

security_access.py and security_code.py have the functions of two topics. A new check is a finding (fly2any/database/findings.py, docs/reference/findings.md) that a test
produces; a new topic is also named in the row of `--security` in docs/reference/dbstatus.md, whose printed output shows it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import Tags, run_checks
from django.db import Error, transaction

from fly2any.postgres.url import is_local

from ..errors import sqlstate
from ..findings import Finding, Severity
from ..schema.protected_tables import read_excess
from ..schema.sizes_and_use import read_extents
from ..sql import PEOPLE, quote
from ..trusted_roles import TRUSTED_SQL
from ..units import plural
from .examine import Figure, Question, Reader
from .security_access import ownership, readers
from .security_code import code
from .server_settings import read_settings

# The role of this connection, then those of other clients' sessions. Memberships count, because a member can use SET ROLE.
ROLES_SQL = """
    SELECT r.rolname AS name, r.rolname = current_user AS own, r.rolcreaterole AS createrole, r.rolbypassrls AS bypassrls, r.rolreplication AS replication,
           EXISTS (SELECT FROM pg_catalog.pg_roles AS s WHERE s.rolsuper AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER')) AS superuser,
           ARRAY(SELECT m.rolname::text FROM pg_catalog.pg_roles AS m
                 WHERE NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')
                   AND m.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files') ORDER BY 1) AS server,
           (SELECT count(*) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE')) AS owns
    FROM pg_catalog.pg_roles AS r
    WHERE r.rolname = current_user
       OR r.oid IN (SELECT a.usesysid FROM pg_catalog.pg_stat_activity AS a
                    WHERE a.datname = current_database() AND COALESCE(a.backend_type, 'client backend') = 'client backend')
    ORDER BY own DESC, r.rolname COLLATE "C"
"""
EXTRA = ("superuser", "createrole", "bypassrls", "replication")
# Privileges of every role that can connect, other than CONNECT.
PUBLIC_SQL = """
    SELECT 'SCHEMA ' || pg_catalog.quote_ident(n.nspname) AS place, a.privilege_type AS privilege
    FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a
    WHERE n.nspname = %(schema)s AND a.grantee = 0 AND a.privilege_type = 'CREATE'
    UNION ALL
    SELECT 'TABLE ' || pg_catalog.quote_ident(c.relname), pg_catalog.string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace, pg_catalog.aclexplode(c.relacl) AS a
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'v', 'm', 'p') AND a.grantee = 0
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    GROUP BY c.relname
    ORDER BY 1
"""
# Login roles other than superusers that can write to users, including by membership or to single columns.
WRITERS_SQL = """
    SELECT l.rolname AS name FROM pg_catalog.pg_roles AS l
    WHERE l.rolcanlogin AND NOT l.rolsuper AND EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r, pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relname = %(people)s AND c.relkind = 'r' AND pg_catalog.pg_has_role(l.oid, r.oid, 'MEMBER')
          AND (pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE') OR pg_catalog.has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE')))
    ORDER BY l.rolname
"""
# Without pg_read_all_stats a role sees no address of other roles' sessions.
SESSIONS_SQL = """
    SELECT count(*) AS remote, count(*) FILTER (WHERE NOT s.ssl) AS plain, pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS all
    FROM pg_catalog.pg_stat_activity AS a JOIN pg_catalog.pg_stat_ssl AS s USING (pid)
    WHERE a.datname = current_database() AND a.client_addr IS NOT NULL AND NOT a.client_addr <<= '127.0.0.0/8' AND a.client_addr <> '::1'
"""
TLS_SQL = "SELECT s.version || ' ' || s.cipher AS tls FROM pg_catalog.pg_stat_ssl AS s WHERE s.pid = pg_backend_pid() AND s.ssl"
ROLES_HASHES_SQL = """
    SELECT rolname AS name FROM pg_catalog.pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%%' ORDER BY rolname
"""
BCRYPT = r"^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$"
# All rows of a small table, some blocks of a large one.
PASSWORDS_SQL = """
    SELECT count(*) AS seen, count(*) FILTER (WHERE password !~ %(bcrypt)s) AS not_bcrypt,
           count(*) FILTER (WHERE password ~ %(bcrypt)s AND password ~ '^....0') AS cheap
    FROM {table} AS u {sample} WHERE password IS NOT NULL
"""
# Another role's table is not read.
MAY_READ_PEOPLE_SQL = f"""
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass(%(table)s)::oid AND {TRUSTED_SQL}) AS may
"""
SAMPLE = 64 * 1024 * 1024  # Bytes.
STAFF_SQL = """
    SELECT count(*) AS staff, count(*) FILTER (WHERE COALESCE("lastLoginAt", "createdAt") < now() - interval '90 days') AS idle FROM {table}
    WHERE "isStaff" AND "isActive" AND password IS NOT NULL
"""
# The lines of pg_hba.conf for networks, in the order in which the server tries them.
RULES_SQL = """
    SELECT line_number AS line, type, COALESCE(address, '') AS address, auth_method AS method, COALESCE(netmask, '') AS netmask,
           database = '{all}' AND user_name = '{all}' AS everybody, COALESCE(pg_catalog.array_to_string(options, ' '), '') AS options, error
    FROM pg_catalog.pg_hba_file_rules WHERE type IS DISTINCT FROM 'local' ORDER BY line_number
"""
LOCAL_ADDRESSES = ("127.0.0.1", "::1", "localhost", "samehost")
TRUSTING_METHODS = ("trust", "ident")  # No authentication, or only what the client's machine claims.
EVERYWHERE = ("all", "0.0.0.0", "::")  # noqa: S104  Of pg_hba.conf.
# A boolean is stored as it was written from PostgreSQL 18 on; "receipt" logs only the address, "setup_durations" only times.
ROLES_LOGGED = {"on", "true", "yes", "1", "all", "authentication", "authorization"}
AUDIT = ("log_connections", "log_statement", "shared_preload_libraries", "pgaudit.log")


def privileges(read: Reader) -> Iterator[Figure | Finding]:
    """Report excess privileges of the role of this connection and of others."""
    role, *connected = read(ROLES_SQL)
    extra, owner = _beyond(role)
    yield Figure("this role", f"{role.name}{f', {owner}' if owner else ''}{', ' + ', '.join(extra) if extra else ''}")
    embedded = read.connection.settings_dict.get("EMBEDDED")
    if extra and not embedded:
        yield Finding(
            Severity.WARNING, "security.role", role.name,
            f"The role has, or can acquire, {', '.join(extra)}, which neither the admin nor a migration needs.",
            "Connect as one of the roles that `manage.py dbroles` prints.",
        )  # fmt: skip
    for other in () if embedded else connected:
        extra, owner = _beyond(other)
        parts = [f"is the {owner}"] * bool(owner) + [f"has, or can acquire, {', '.join(extra)}"] * bool(extra)
        if parts:
            yield Finding(
                Severity.NOTE, "security.session", other.name,
                f"Another client is connected as this role, which {' and '.join(parts)}.",
                "If it is the site, have it connect as the role that `manage.py dbroles` prints for it: it needs none of that.",
            )  # fmt: skip
    writers = [row.name for row in read(WRITERS_SQL, people=PEOPLE)]
    yield Figure(f"roles that write to {PEOPLE}", ", ".join(writers) or "none but superusers", len(writers))
    for excess in read_excess(read.connection, schema=read.schema):
        yield Finding(
            Severity.WARNING, "security.ledger", excess.name,
            f"The role {excess.role} has {excess.privileges} on {excess.name} through default privileges, so the role can change the records in it.",
            excess.revoke(read.schema), is_sql=True,
        )  # fmt: skip
    for row in read(PUBLIC_SQL):
        yield Finding(
            Severity.WARNING, "security.public", row.place,
            f"Every role that can connect has {row.privilege} on {row.place}.",
            f"REVOKE {row.privilege} ON {row.place} FROM PUBLIC;", is_sql=True,
        )  # fmt: skip


def _beyond(role) -> tuple[list[str], str]:
    """Return what a role may do beyond reading and writing rows, and a clause about the tables that it owns, "" without any."""
    owner = f"owner of {plural(role.owns, 'table')}" if role.owns else ""
    return [word.upper() for word in EXTRA if getattr(role, word)] + role.server, owner


def encryption(read: Reader) -> Iterator[Figure | Finding]:
    """Report whether and how connections are encrypted."""
    host = read.connection.settings_dict["HOST"]
    tls = next((row.tls for row in read(TLS_SQL)), "")
    server = read_settings(read, ["ssl", "ssl_min_protocol_version"])
    found = server.values
    pooled = read.one("SELECT pg_catalog.pg_backend_pid() AS process").process != read.connection.connection.info.backend_pid
    yield Figure(
        "the pooler's link" if pooled else "this connection",
        tls or ("a local socket" if host.startswith("/") or not host else "not encrypted"),
    )
    least = found.get("ssl_min_protocol_version")
    oldest = "the minimum version is not readable by this role" if least is None else _versions(least)
    state = found.get("ssl", "unknown")
    yield Figure("the server", f"TLS {state}" if state == "off" else f"TLS {state}, {oldest}")
    if found.get("ssl") == "on" and found.get("ssl_min_protocol_version") in ("", "TLSv1", "TLSv1.1"):
        cure, is_sql = server.cure({"ssl_min_protocol_version": "TLSv1.2"})
        yield Finding(
            Severity.WARNING, "security.tls_version", "ssl_min_protocol_version",
            f"The server accepts versions of TLS that are no longer secure: the minimum is {found['ssl_min_protocol_version'] or 'not set'}.",
            cure, is_sql=is_sql,
        )  # fmt: skip
    sessions = read.one(SESSIONS_SQL)
    unencrypted = f", {sessions.plain} not encrypted" if sessions.remote else ""
    whose = "" if sessions.all else " (only this role's sessions are visible)"
    yield Figure("sessions from other machines", f"{sessions.remote}{unencrypted}{whose}", sessions.plain)
    if sessions.plain:
        yield Finding(
            Severity.WARNING, "security.plain_sessions", "pg_stat_ssl",
            f"{plural(sessions.plain, 'session from another machine is', 'sessions from other machines are')} not encrypted: passwords and rows can be read in transit.",
            "Use only hostssl lines in pg_hba.conf, and sslmode=require in every URL.",
        )  # fmt: skip
    mode = read.connection.settings_dict["OPTIONS"].get("sslmode", "")
    if tls and not is_local(host) and mode not in ("verify-ca", "verify-full"):
        yield Finding(
            Severity.NOTE, "security.unverified", "sslmode",
            f"sslmode is {mode or 'prefer'}: the connection is encrypted, but the server's certificate is not verified.",
            "Set sslmode=verify-full, and the provider's sslrootcert if it publishes one, in the URL.",
        )  # fmt: skip


def _versions(least: str) -> str:
    return f"version {least.removeprefix('TLSv')} or later" if least else "any version"


def passwords(read: Reader) -> Iterator[Figure | Finding]:
    """Report how passwords of roles and people are stored, and whether staff need a second factor."""
    yield from _of_roles(read)
    table = f"{quote(read.schema)}.{quote(PEOPLE)}"
    if not read.one(MAY_READ_PEOPLE_SQL, table=table).may:
        return
    size = read_extents(read.connection, schema=read.schema)[PEOPLE].heap or 0
    sample = f"TABLESAMPLE SYSTEM ({100 * SAMPLE / size:.4f})" if size > 2 * SAMPLE else ""
    yield from _of_people(read, table, sample)
    yield from _of_staff(read, table)


def _of_roles(read: Reader) -> Iterator[Figure | Finding]:
    try:
        with transaction.atomic(using=read.connection.alias):
            plain = [row.name for row in read(ROLES_HASHES_SQL)]
        yield Figure("roles' passwords", "SCRAM-SHA-256" if not plain else f"{len(plain)} not SCRAM-SHA-256", len(plain))
        for name in plain:
            yield Finding(
                Severity.WARNING, "security.role_password", name, f"The password of {name} is stored as an MD5 hash, which can be cracked quickly.",
                f"In `manage.py dbshell`, with password_encryption = 'scram-sha-256': \\password {quote(name)}",
            )  # fmt: skip
    except Error as error:
        if sqlstate(error) != "42501":
            raise
        made = read_settings(read, ["password_encryption"]).values.get("password_encryption", "unknown")
        yield Figure("roles' passwords", f"not readable by this role; new ones are stored as {made}")


def _of_people(read: Reader, table: str, sample: str) -> Iterator[Figure | Finding]:
    people = read.one(PASSWORDS_SQL.format(table=table, sample=sample), bcrypt=BCRYPT)
    yield Figure(
        "people's passwords",
        f"{people.seen:,} checked{', a sample' if sample else ''}, {people.not_bcrypt} not bcrypt, {people.cheap} with fewer than 2^10 rounds",
    )
    if people.not_bcrypt:
        yield Finding(
            Severity.ERROR, "security.password_kind", f"{PEOPLE}.password",
            f"Of {plural(people.seen, 'password')} checked, {plural(people.not_bcrypt, 'is not a bcrypt hash: it', 'are not bcrypt hashes: they')} may be stored in plain text.",
            f"SELECT id FROM {PEOPLE} WHERE password !~ '{BCRYPT}' lists the people; set their passwords to NULL, and ask them to set new ones.",
        )  # fmt: skip
    if people.cheap:
        yield Finding(
            Severity.WARNING, "security.password_cost", f"{PEOPLE}.password",
            f"Of {plural(people.seen, 'password')} checked, {plural(people.cheap, 'is a bcrypt hash', 'are bcrypt hashes')} with fewer than 2^10 rounds, which can be cracked quickly.",
            "A changed password is hashed with 2^12 rounds: ask people with many privileges to change theirs.",
        )  # fmt: skip


def _of_staff(read: Reader, table: str) -> Iterator[Figure | Finding]:
    staff = read.one(STAFF_SQL.format(table=table))
    idle = f" ({staff.idle} not signed in for 90 days)" if staff.staff else ""
    factor = "required" if settings.SECOND_FACTOR else "not required"
    yield Figure(
        "staff with a password",
        f"{staff.staff}{idle}; a second factor is {factor}",
        staff.staff,
    )
    if not settings.SECOND_FACTOR and not settings.DEVELOPMENT:
        yield Finding(
            Severity.WARNING, "security.second_factor", "SECOND_FACTOR", "Staff need only a password to sign in to the admin.",
            "Set SECOND_FACTOR=true, or remove SECOND_FACTOR=false and DEBUG=true.",
        )  # fmt: skip
    if staff.idle:
        yield Finding(
            Severity.NOTE, "security.idle_staff", f"{PEOPLE}.isStaff", f"{plural(staff.idle, 'member of staff has', 'members of staff have')} not signed in for 90 days.",
            "Remove the staff status of those who left, in the admin.",
        )  # fmt: skip


def exposure(read: Reader) -> Iterator[Figure | Finding]:
    """Report which networks can reach the server, and how clients authenticate."""
    listens = read_settings(read, ["listen_addresses"]).values.get("listen_addresses")
    yield Figure("listens on", "not readable by this role" if listens is None else listens or "no network, a local socket only")
    try:
        with transaction.atomic(using=read.connection.alias):
            rules = read(RULES_SQL)
    except Error as error:
        if sqlstate(error) != "42501":
            raise
        yield Figure("pg_hba.conf", "not readable by this role: check in your provider's settings which networks can connect")
        return
    yield Figure("pg_hba.conf", plural(len(rules), "line for networks", "lines for networks"), len(rules))
    if listens is None or not all(address.strip() in LOCAL_ADDRESSES for address in listens.split(",") if address.strip()):
        yield from _open_lines(rules)


def _open_lines(rules: list[Any]) -> Iterator[Finding]:
    """Yield the problems of the lines of pg_hba.conf, of which the first match counts."""
    plain_closed = False
    for row in rules:
        where = f"pg_hba.conf line {row.line}"
        anywhere = row.address in EVERYWHERE and row.netmask in ("", *EVERYWHERE)
        local = row.address in LOCAL_ADDRESSES or row.address.startswith("127.")
        come_from = "anywhere" if anywhere else f"{row.address}{f'/{row.netmask}' if row.netmask else ''}"
        if row.error:
            yield Finding(
                Severity.WARNING, "security.open", where, f"The server cannot parse this line, and keeps the previous rules: {row.error}.",
                "Correct it, and run SELECT pg_reload_conf().",
            )  # fmt: skip
        if row.method == "reject" and anywhere and row.everybody:
            plain_closed = plain_closed or row.type in ("host", "hostnossl")
            if row.type == "host":
                return  # Later lines are never reached.
        if local or row.method == "reject" or row.type is None:
            continue
        if row.method in TRUSTING_METHODS and "clientcert=" not in row.options:
            yield Finding(
                Severity.ERROR, "security.trust", where, f"Clients from {come_from} can connect without a password ({row.method}).",
                f"Replace {row.method} with scram-sha-256 there, and run SELECT pg_reload_conf().",
            )  # fmt: skip
        elif row.method == "md5" or (row.method == "password" and row.type != "hostssl" and not plain_closed):
            harm = (
                "also accepts MD5 hashes, which can be cracked quickly"
                if row.method == "md5"
                else "sends passwords in plain text, even without TLS"
            )
            yield Finding(
                Severity.WARNING, "security.method", where, f"The method {row.method}, for clients from {come_from}, {harm}.",
                "Write scram-sha-256 there once every role's password is stored that way, and run SELECT pg_reload_conf().",
            )  # fmt: skip
        if anywhere and row.type in ("host", "hostnossl") and not plain_closed:
            yield Finding(
                Severity.WARNING, "security.open", where, "This line accepts connections from any address, without TLS.",
                "Name the addresses that need it, and write hostssl.",
            )  # fmt: skip


def logs_roles(value: str) -> bool:
    """Return whether a value of log_connections, a list from PostgreSQL 18 on, logs the roles of connections."""
    return not ROLES_LOGGED.isdisjoint(word.strip().lower() for word in value.split(","))


def audit(read: Reader) -> Iterator[Figure | Finding]:
    """Report what the server and the admin log."""
    server = read_settings(read, AUDIT)
    found = server.values
    by_pgaudit = found.get("pgaudit.log", "none") not in ("none", "")
    unseen = "" if "shared_preload_libraries" in found else "; the settings of pgaudit are not readable by this role"
    connections = logs_roles(found.get("log_connections", "off"))
    schema = by_pgaudit or found.get("log_statement") in ("ddl", "mod", "all")
    said = f"connections {'on' if connections else 'off'}, DDL {'on' if schema else 'off'}"
    yield Figure("the server's log", f"{said}{', pgaudit' if by_pgaudit else ''}{unseen}")
    yield Figure("the admin", "changes, opened conversations, exports and sign-ins are recorded in the database")
    if not (connections and schema):
        missing = "DDL is" if connections else "Connections are" if schema else "Connections and DDL are"
        cure, is_sql = server.cure({"log_connections": "on", "log_statement": "ddl"})
        message = f"{missing} not logged{unseen}."
        yield Finding(Severity.NOTE, "security.audit", "log_connections, log_statement", message, cure, is_sql=is_sql)


def secrets(read: Reader) -> Iterator[Figure | Finding]:
    """Report on the secrets of this process, without showing them, and Django's own deployment checks."""
    yield Figure("SECRET_KEY", plural(len(settings.SECRET_KEY), "character"))
    if settings.DEVELOPMENT:
        yield Figure("environment", "development, on the embedded server: Django's checks for production are not run")
    else:
        for problem in run_checks(tags=[Tags.security], include_deployment_checks=True):
            yield Finding(
                Severity.WARNING, "security.django", str(problem.id), " ".join(str(problem.msg).split()),
                "Run `manage.py check --deploy` for details; docs/reference/settings.md lists the variables.",
            )  # fmt: skip
    password = str(read.connection.settings_dict.get("PASSWORD") or "")
    if password and _is_weak(password, read.connection.settings_dict["USER"]):
        yield Finding(
            Severity.WARNING, "security.weak_password", settings.DATABASE_VARIABLE,
            "The password in the URL is shorter than 16 characters, or derived from the user's name.",
            "Create one with `openssl rand -base64 24`, and set it with \\password in `manage.py dbshell` and in the environment.",
        )  # fmt: skip
    identity_file = settings.BACKUPS["identity_file"]
    for path in (settings.ENV_FILE, settings.BASE_DIR / ".secret_key", Path(identity_file) if identity_file else None):
        if path and path.is_file() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            yield Finding(
                Severity.WARNING, "security.readable_file", path.name, "Other users of this machine can read it.", f"chmod 600 {path}",
            )  # fmt: skip
    place = settings.BACKUPS["location"]
    if identity_file and place.startswith("/") and Path(place) in Path(identity_file).parents:
        yield Finding(
            Severity.WARNING, "security.key_beside", Path(identity_file).name, "The key that decrypts the backups is stored with them.",
            "Keep it on another machine, and verify backups there.",
        )  # fmt: skip


def _is_weak(password: str, user: str) -> bool:
    return len(password) < 16 or (bool(user) and re.sub(r"\d+$", "", password.lower()) == user.lower())


TOPICS: dict[str, Question] = {
    "privileges": privileges,
    "readers": readers,
    "ownership": ownership,
    "code": code,
    "encryption": encryption,
    "passwords": passwords,
    "exposure": exposure,
    "audit": audit,
    "secrets": secrets,
}
