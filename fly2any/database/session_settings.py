"""Default settings of sessions (of a role, database or server) that make writes fail or go unchecked, or round values."""

from __future__ import annotations

from . import facts
from .findings import Finding, Severity
from .sql import literal

(MARKING_TABLE,) = facts.tables("marks_schema")

# Where a setting has one of the given values for sessions of this database, and whether for this role: set for a role, the database
# or both, and, if neither sets it, by the server or POSTGRES_URL.
_TOLD_SQL = """
    SELECT CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'ROLE ALL'
                ELSE concat_ws(' IN ', 'ROLE ' || quote_ident(r.rolname), 'DATABASE ' || quote_ident(d.datname)) END AS place,
           COALESCE(r.rolname, session_user) = session_user AS is_ours, r.oid AS role, pg_catalog.split_part(c.setting, '=', 2) AS value
    FROM pg_catalog.pg_db_role_setting AS s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting)
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
    WHERE c.setting ~* '^{name}=({values})$' AND COALESCE(d.datname, current_database()) = current_database()
    UNION ALL
    SELECT CASE WHEN s.source = 'client' THEN 'CLIENT' ELSE 'SYSTEM' END, true, NULL, s.reset_val FROM pg_catalog.pg_settings AS s
    WHERE s.name = '{name}' AND s.reset_val ~* '^({values})$' AND s.source NOT IN ('database', 'user', 'database user', 'global')
"""
READ_ONLY, REPLICATION_ROLE = "default_transaction_read_only", "session_replication_role"
FLOAT_DIGITS = "extra_float_digits"
# For another role, only if it may write otherwise; `known` is the relation of server.HOME_CTES.
READ_ONLY_SQL = f"""
    SELECT told.place, told.is_ours FROM ({_TOLD_SQL.format(name=READ_ONLY, values="on|t|tr|tru|true|y|ye|yes|1")}) AS told
    WHERE told.is_ours
       OR EXISTS (SELECT FROM known WHERE known.relname = {literal(MARKING_TABLE)} AND has_table_privilege(told.role, known.oid, 'INSERT'))
"""
REPLICATION_ROLE_SQL = f"""
    SELECT told.place, told.value FROM ({_TOLD_SQL.format(name=REPLICATION_ROLE, values="replica|local")}) AS told ORDER BY 1
"""
FLOAT_DIGITS_SQL = f"""
    SELECT told.place, told.value FROM ({_TOLD_SQL.format(name=FLOAT_DIGITS, values="0|-[0-9]+")}) AS told ORDER BY 1
"""


def of_read_only(place: str, database: str, is_ours: bool) -> Finding:
    """Return the finding that writes fail, for a row of READ_ONLY_SQL."""
    who = "every write of this role here" if is_ours else "every write of that role, which may write otherwise,"
    message = f"{READ_ONLY} is on ({place}), so {who} fails."
    cure, is_sql = _reset(READ_ONLY, place)
    if is_sql and place != "SYSTEM":
        cure = f"SET {READ_ONLY} TO off;\n{cure}"
    severity = Severity.ERROR if is_ours else Severity.NOTE
    return Finding(severity, "database.read_only", database, message, cure, is_sql=is_sql)


def of_replication_role(place: str, value: str) -> Finding:
    """Return the finding that triggers and foreign keys do not run, for a row of REPLICATION_ROLE_SQL."""
    message = f"Its sessions begin with {REPLICATION_ROLE} = {value}: no trigger runs, and no foreign key is checked."
    cure, is_sql = _reset(REPLICATION_ROLE, place)
    return Finding(Severity.ERROR, "security.replication_role", place, message, cure, is_sql=is_sql)


def of_float_digits(place: str, value: str) -> Finding:
    """Return the finding that prices are read rounded, for a row of FLOAT_DIGITS_SQL."""
    digits = max(1, 15 + int(value))
    message = f"Its sessions begin with {FLOAT_DIGITS} = {value}: clients read a price rounded to {digits} significant digit{'s' * (digits > 1)}."
    cure, is_sql = _reset(FLOAT_DIGITS, place)
    return Finding(Severity.WARNING, "database.float_digits", place, message, cure, is_sql=is_sql)


def _reset(setting: str, place: str) -> tuple[str, bool]:
    """Return the cure that resets a setting where it is set, and whether it is SQL."""
    if place == "CLIENT":
        return "Remove it from the options of POSTGRES_URL, or from PGOPTIONS.", False
    if place == "SYSTEM":
        return f"ALTER SYSTEM RESET {setting};\nSELECT pg_reload_conf();", True
    return f"ALTER {place} RESET {setting};", True
