"""Default settings of sessions (of a role, database or server) that make writes fail or go unchecked, or round values: findings.

The settings of our own sessions are in sql.py (`time_limits`, ALIVE, LONGEST_IDLE) and, for migrations, migration/run.py (`settle`).
"""

from __future__ import annotations

from dataclasses import dataclass

from fly2any.postgres.search_path import names_of

from . import facts
from .findings import Finding, Severity
from .sql import literal, quote
from .units import plural

UTC_NAMES = [f"{area}{name}" for area in ("", "etc/") for name in ("utc", "gmt", "uct", "zulu", "universal")]  # In lower case.
(MARKING_TABLE,) = facts.tables("marks_schema")

# Where settings are set for sessions of this database, and whether for this role: for a role, the database or both, and, if neither
# sets it, by the server or POSTGRES_URL.
CONFIGURED_SQL = """
    SELECT pg_catalog.lower(pg_catalog.split_part(c.setting, '=', 1)) AS name,
           CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'ROLE ALL'
                ELSE concat_ws(' IN ', 'ROLE ' || quote_ident(r.rolname), 'DATABASE ' || quote_ident(d.datname)) END AS place,
           COALESCE(r.rolname, session_user) = session_user AS is_ours, r.oid AS role, pg_catalog.split_part(c.setting, '=', 2) AS value
    FROM pg_catalog.pg_db_role_setting AS s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting)
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
    WHERE COALESCE(d.datname, current_database()) = current_database()
    UNION ALL
    SELECT s.name, CASE WHEN s.source = 'client' THEN 'CLIENT' ELSE 'SYSTEM' END, true, NULL, s.reset_val FROM pg_catalog.pg_settings AS s
    WHERE s.source NOT IN ('database', 'user', 'database user', 'global')
"""
ON, OFF = "on|t|tr|tru|true|y|ye|yes|1", "off|of|f|fa|fal|fals|false|n|no|0"  # The spellings of a boolean.
_SETTING_SQL = f"SELECT * FROM ({CONFIGURED_SQL}) AS c WHERE c.name = '{{name}}' AND c.value ~* '^({{values}})$'"
READ_ONLY, REPLICATION_ROLE = "default_transaction_read_only", "session_replication_role"
MAY_WRITE = f"EXISTS (SELECT FROM known WHERE known.relname = {literal(MARKING_TABLE)} AND has_table_privilege({{role}}, known.oid, 'INSERT'))"
# For another role, only if it may write otherwise; `known` is the relation of server.HOME_CTES.
READ_ONLY_SQL = f"""
    SELECT configured.place, configured.is_ours FROM ({_SETTING_SQL.format(name=READ_ONLY, values=ON)}) AS configured
    WHERE configured.is_ours OR {MAY_WRITE.format(role="configured.role")}
"""
REPLICATION_ROLE_SQL = f"""
    SELECT configured.place, configured.value FROM ({_SETTING_SQL.format(name=REPLICATION_ROLE, values="replica")}) AS configured ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting: the values that are findings under a condition, in which `r` is the role of that name, the finding's code and what the values do."""

    values: str
    condition: str
    code: str
    effect: str  # {digits} are those of a float.
    severity: Severity = Severity.WARNING


# Less than 100 milliseconds, and less than 10 seconds, after which a pool of connections may use one again.
_SHORT = "0*[1-9][0-9]? ?(ms)?|[1-9][0-9]* ?us|0?[.]0[0-9]*[1-9]0* ?s"
_SHORT_IDLE = "0*[1-9][0-9]{0,3} ?(ms)?|[1-9][0-9]* ?us|0?[.][0-9]*[1-9]0* ?s|0*[1-9]([.][0-9]*)? ?s"
_WRITES = f"(configured.is_ours OR {MAY_WRITE.format(role='configured.role')})"
# Another role that signs in, may write our tables, and whose path leads to none: a setting for this database precedes one of the role.
_LEADS_ELSEWHERE = f"""
    NOT configured.is_ours AND {MAY_WRITE.format(role="configured.role")}
    AND (SELECT a.rolcanlogin FROM pg_catalog.pg_roles AS a WHERE a.oid = configured.role)
    AND (configured.place LIKE '%% IN DATABASE %%' OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_db_role_setting AS z JOIN pg_catalog.pg_database AS d ON d.oid = z.setdatabase
        CROSS JOIN LATERAL pg_catalog.unnest(z.setconfig) AS c (setting)
        WHERE z.setrole = configured.role AND d.datname = current_database() AND c.setting LIKE 'search_path=%%'))
    AND NOT EXISTS (
        SELECT FROM pg_catalog.unnest(pg_catalog.string_to_array(configured.value, ',')) AS part (name)
        WHERE home.schema = CASE pg_catalog.btrim(part.name, ' "') WHEN '$user' THEN pg_catalog.pg_get_userbyid(configured.role)
                            ELSE pg_catalog.btrim(part.name, ' "') END)
"""
_UTC = f"({'|'.join(UTC_NAMES)})"
_HAS_ZONE = """
    EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS z CROSS JOIN LATERAL pg_catalog.unnest(z.setconfig) AS c (setting)
            WHERE z.setrole = {role} AND c.setting ILIKE 'timezone=%%'
              AND z.setdatabase IN ({databases}(SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())))
"""
# The zone of another role that signs in and may write our tables; or that of the database or of all roles, if this session has another
# one, which is UTC, and such a role has none of its own.
_ZONE = f"""
    CASE WHEN configured.role IS NULL
         THEN EXISTS (SELECT FROM pg_catalog.pg_settings AS s WHERE s.name = 'TimeZone' AND s.reset_val ~* '^{_UTC}$')
              AND (configured.place <> 'ROLE ALL' OR NOT {_HAS_ZONE.format(role="0::oid", databases="")})
              AND EXISTS (SELECT FROM pg_catalog.pg_roles AS a
                          WHERE a.rolcanlogin AND NOT a.rolsuper AND a.rolname <> session_user AND {MAY_WRITE.format(role="a.oid")}
                            AND NOT {_HAS_ZONE.format(role="a.oid", databases="0::oid, ")})
         ELSE NOT configured.is_ours AND {MAY_WRITE.format(role="configured.role")}
              AND (SELECT a.rolcanlogin AND NOT a.rolsuper FROM pg_catalog.pg_roles AS a WHERE a.oid = configured.role)
              AND (configured.place LIKE '%% IN DATABASE %%' OR NOT {_HAS_ZONE.format(role="configured.role", databases="")}) END
"""
# Whether sessions of a role that writes to our tables begin in the server's zone, which is not visible here: this role, or the client's
# options, set another for this session, and neither the database nor all roles have one.
HIDDEN_ZONE_SQL = """
    (WITH zoned AS (
         SELECT z.setrole AS role
         FROM pg_catalog.pg_db_role_setting AS z CROSS JOIN LATERAL pg_catalog.unnest(z.setconfig) AS c (setting)
         WHERE pg_catalog.lower(c.setting) LIKE 'timezone=%%'
           AND z.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()))
     )
     SELECT NOT EXISTS (SELECT FROM zoned WHERE zoned.role = 0)
        AND EXISTS (SELECT FROM pg_catalog.pg_settings AS s WHERE s.name = 'TimeZone' AND s.source = 'client'
                    UNION ALL
                    SELECT FROM zoned JOIN pg_catalog.pg_roles AS r ON r.oid = zoned.role WHERE r.rolname = session_user)
        AND EXISTS (SELECT FROM pg_catalog.pg_roles AS r
                    WHERE r.rolcanlogin AND (NOT r.rolsuper OR r.rolname = session_user)
                      AND NOT EXISTS (SELECT FROM zoned WHERE zoned.role = r.oid)
                      AND EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                                  WHERE n.nspname = {schema} AND c.relname = ANY (%(tables)s) AND c.relkind IN ('r', 'p')
                                    AND pg_catalog.has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE'))))
"""
HIDDEN_ZONE = "The time zone of the server is not known, because this role or the options of the URL set one"
_OTHERS = {
    "extra_float_digits": _Setting(
        "0|-[0-9]+", "true", "database.float_digits", "clients read a price rounded to {digits}",
    ),
    "default_transaction_isolation": _Setting(
        "repeatable read|serializable", "configured.is_ours", "database.isolation", "concurrent writes may fail with serialization errors (40001)",
    ),
    **dict.fromkeys(
        ("enable_indexscan", "enable_bitmapscan"),
        _Setting(OFF, "true", "database.plans", "queries that an index serves read whole tables"),
    ),
    "temp_file_limit": _Setting(
        "0[a-z]*", "configured.is_ours", "database.temp_files", "a sort or an index build that does not fit into memory fails",
    ),
    "default_tablespace": _Setting(
        ".+", "configured.is_ours AND EXISTS (SELECT FROM pg_catalog.pg_tablespace AS t WHERE t.spcname = configured.value"
        " AND t.oid <> (SELECT d.dattablespace FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())"
        " AND NOT has_tablespace_privilege(session_user, t.oid, 'CREATE'))",
        "database.tablespace", "this role may create nothing in that tablespace, so migrations fail",
    ),
    "default_table_access_method": _Setting(
        ".+", "configured.is_ours AND configured.value <> 'heap'",
        "database.access_method", "migrations create tables that may lack keys, or fail if the server has no such method",
    ),
    "lock_timeout": _Setting(_SHORT, _WRITES, "database.timeout", "each statement that waits for a lock fails at once"),
    "statement_timeout": _Setting(_SHORT, _WRITES, "database.timeout", "statements that take longer fail"),
    "transaction_timeout": _Setting(_SHORT, _WRITES, "database.timeout", "the server ends the connection of a transaction that takes longer"),
    "idle_in_transaction_session_timeout": _Setting(
        _SHORT, _WRITES, "database.timeout", "the server ends the connection of a transaction that waits longer for its client",
    ),
    "idle_session_timeout": _Setting(
        _SHORT_IDLE, _WRITES, "database.timeout", "the server ends connections that a pool still holds, and their next statement fails",
    ),
    "array_nulls": _Setting(
        OFF, _WRITES, "database.array_nulls", "NULL in an array that a client sends is stored as the text NULL",
    ),
    "client_encoding": _Setting(
        "(?!(utf-?8|unicode)$).+", _WRITES, "database.encoding",
        "a client that sets no encoding cannot read every text, and what it writes is misread if it sends UTF-8",
    ),
    "search_path": _Setting(
        ".+", _LEADS_ELSEWHERE, "server.schema", "unless the client sets another path, it finds none of our tables", Severity.NOTE,
    ),
    "timezone": _Setting(
        f"(?!{_UTC}$).+", _ZONE, "server.time_zone", "they read and write times in this zone, but the guide asks for UTC",
    ),
    "role": _Setting(
        ".+", f"configured.is_ours AND r.oid IS NOT NULL AND {MAY_WRITE.format(role='session_user')} AND NOT {MAY_WRITE.format(role='r.oid')}",
        "database.role", "that role may not write here, although the role that connects may",
    ),
}  # fmt: skip
_WANTED = ", ".join(f"({literal(name)}, {literal(f'^({one.values})$')})" for name, one in _OTHERS.items())
_CONDITIONS = " ".join(f"WHEN {literal(name)} THEN {one.condition}" for name, one in _OTHERS.items())
SETTINGS_SQL = f"""
    SELECT configured.name, configured.place, configured.value
    FROM ({CONFIGURED_SQL}) AS configured JOIN (VALUES {_WANTED}) AS w (name, values) ON w.name = configured.name
    LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = configured.value
    WHERE configured.value ~* w.values AND CASE configured.name {_CONDITIONS} END
    ORDER BY 1, 2
"""


# PostgreSQL's defaults. A setting of the database takes precedence over the server's, whether that is in a file, which may be
# one that the role cannot see, or on the server's command line.
_DEFAULTS = {
    READ_ONLY: "off",
    REPLICATION_ROLE: "origin",
    "extra_float_digits": "1",
    "default_transaction_isolation": "'read committed'",
    "enable_indexscan": "on",
    "enable_bitmapscan": "on",
    "temp_file_limit": "-1",
    "default_tablespace": "''",
    "default_table_access_method": "heap",
    "lock_timeout": "0",
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "array_nulls": "on",
    "pg_stat_statements.track": "top",
    "track_counts": "on",
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
    "client_encoding": "'UTF8'",  # Our sessions set it, so that the server's is not seen.
}


def of_read_only(place: str, database: str, is_ours: bool) -> Finding:
    """Return the finding that writes fail, for a row of READ_ONLY_SQL."""
    who = "every write of this role here" if is_ours else "every write of that role, which may write otherwise,"
    message = f"{READ_ONLY} is on ({place}), so {who} fails."
    cure, is_sql = reset(READ_ONLY, place, database)
    if is_sql:
        cure = f"SET {READ_ONLY} TO off;\n{cure}"
    severity = Severity.ERROR if is_ours else Severity.NOTE
    return Finding(severity, "database.read_only", database, message, cure, is_sql=is_sql)


def of_replication_role(database: str, place: str, value: str) -> Finding:
    """Return the finding that triggers and foreign keys do not run, for a row of REPLICATION_ROLE_SQL."""
    message = f"{sessions_of(place)} begin with {REPLICATION_ROLE} = {value}: no trigger runs, and no foreign key is checked."
    cure, is_sql = reset(REPLICATION_ROLE, place, database)
    return Finding(Severity.ERROR, "security.replication_role", place, message, cure, is_sql=is_sql)


def of_setting(database: str, schema: str, name: str, place: str, value: str) -> Finding:
    """Return the finding about a setting that hinders reads or writes, for a row of SETTINGS_SQL; `schema` has our tables."""
    setting = _OTHERS[name]
    digits = plural(max(1, 15 + int(value)), "significant digit") if "{digits}" in setting.effect else ""
    cure, is_sql = reset(name, place, database)
    if name == "search_path":
        # Its default may lack our schema too, and other statements of the role need the rest of the path.
        here = place if " IN DATABASE " in place else f"{place} IN DATABASE {quote(database)}"
        cure = f"ALTER {here} SET search_path TO {', '.join(map(quote, (*names_of(value), schema)))};"
    if name == "timezone":
        cure, is_sql = f"ALTER {place} SET timezone TO 'UTC';", False
    message = f"{sessions_of(place)} begin with {name} = {value}: {setting.effect.format(digits=digits)}."
    return Finding(setting.severity, setting.code, place, message, cure, is_sql=is_sql)


def sessions_of(place: str) -> str:
    """Return the sessions of a place in CONFIGURED_SQL as the beginning of a sentence."""
    return {"SYSTEM": "The server's sessions", "CLIENT": "Sessions with the options of the URL"}.get(
        place, f"Sessions of {place}"
    )


def reset(setting: str, place: str, database: str) -> tuple[str, bool]:
    """Return the cure that resets a setting where it is set, or overrides the server's for `database`, and whether it is SQL."""
    if place == "CLIENT":
        return f"Remove {setting} from the options of POSTGRES_URL.", False
    if place == "SYSTEM":
        return f"ALTER DATABASE {quote(database)} SET {setting} TO {_DEFAULTS[setting]};", True
    return f"ALTER {place} RESET {setting};", True
