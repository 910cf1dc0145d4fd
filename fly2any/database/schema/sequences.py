"""The sequences of columns: their next value must exist and be unused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fly2any.postgres.schema import API_ROLES

from ..findings import Finding, Severity
from ..other_writers import grantees, named, place_of, together
from ..sql import literal, quote
from ..trusted_roles import TRUSTED_ROLES_SQL
from .cures import preceded
from .expressions_on_server import Live
from .objects import Catalog, Column, where
from .type_changes import LARGEST
from .unmanaged import AGREE

# pg_sequence_last_value() is NULL before a sequence's first value, also after RESTART or setval(…, false). That value is then in the
# sequence's only row, which may be read only with SELECT. ts_stat() reads it in the same query, whatever the server was built with
# (table_to_xml() needs libxml, pg_get_sequence_data() PostgreSQL 18). It gets the sequence's name, and the owner of the sequence or
# of the schema can give that name to a view with code of its own meanwhile. So both must be as in SAFE_SQL.
SAFE_SQL = f"""
    WITH safe (schema, owner) AS MATERIALIZED (
        SELECT n.oid, trusted.role
        FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL ({TRUSTED_ROLES_SQL.format(schema="n.oid")}) AS trusted (role)
        WHERE n.nspowner IN ({TRUSTED_ROLES_SQL.format(schema="n.oid")}))
"""
IS_SAFE_SQL = """
    EXISTS (SELECT FROM pg_catalog.pg_class AS q JOIN safe ON safe.schema = q.relnamespace AND safe.owner = q.relowner WHERE q.oid = {sequence})
"""
FIRST_VALUE_SQL = f"""
    CASE WHEN pg_catalog.has_sequence_privilege({{sequence}}, 'SELECT') AND {IS_SAFE_SQL}
         THEN (SELECT f.word::bigint
               FROM pg_catalog.ts_stat('SELECT last_value::text::pg_catalog.tsvector FROM ' || {{sequence}}::regclass) AS f) END
"""
# The other roles that sign in and may INSERT, but not use the sequence of the default. Supabase grants every table to the roles of its API.
DENIED_SQL = f"""
    ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles AS r
          WHERE a.attidentity = '' AND r.rolcanlogin AND r.rolname NOT IN (current_user, {", ".join(map(literal, API_ROLES))})
            AND pg_catalog.has_any_column_privilege(r.oid, a.attrelid, 'INSERT')
            AND NOT pg_catalog.has_sequence_privilege(r.oid, s.seqrelid, 'USAGE, UPDATE') ORDER BY r.rolname)
"""
# The sequences of a column: its identity's, and those that its default names. A column's type may have a lower maximum than its sequence.
NEXT_SQL = f"""
    SELECT {{place}}, CASE WHEN pg_catalog.has_sequence_privilege(s.seqrelid, 'USAGE, SELECT')
                         THEN COALESCE(CASE WHEN s.seqcycle AND s.seqincrement > 0 AND l.value > s.seqmax - s.seqincrement THEN s.seqmin
                                            WHEN s.seqcycle AND s.seqincrement < 0 AND l.value < s.seqmin - s.seqincrement THEN s.seqmax
                                            ELSE l.value + s.seqincrement END,
                                       {FIRST_VALUE_SQL.format(sequence="s.seqrelid")}) END, {{used}}, s.seqincrement,
           CASE WHEN s.seqincrement < 0 THEN CASE WHEN NOT s.seqcycle OR s.seqmin < -t.most - 1 THEN GREATEST(s.seqmin, -t.most - 1) END
                WHEN NOT s.seqcycle OR s.seqmax > t.most THEN LEAST(s.seqmax, t.most) END,
           s.seqrelid::regclass::text, pg_catalog.format_type(s.seqtypid, NULL), current_user::text,
           a.attidentity <> '' OR pg_catalog.has_sequence_privilege(s.seqrelid, 'USAGE, UPDATE'), s.seqcycle,
           (SELECT q.relpersistence = 'u' FROM pg_catalog.pg_class AS q WHERE q.oid = s.seqrelid),
           {IS_SAFE_SQL.format(sequence="s.seqrelid")},
           {DENIED_SQL},
           (SELECT pg_catalog.pg_has_role(q.relowner, 'USAGE') FROM pg_catalog.pg_class AS q WHERE q.oid = s.seqrelid)
    FROM pg_catalog.pg_attribute AS a
    CROSS JOIN LATERAL (
        SELECT d.objid FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
          AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
        UNION
        SELECT d.refobjid FROM pg_catalog.pg_attrdef AS f JOIN pg_catalog.pg_depend AS d
            ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
        WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum
    ) AS named (oid)
    JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = named.oid
    CROSS JOIN LATERAL (SELECT CASE WHEN pg_catalog.has_sequence_privilege(s.seqrelid, 'USAGE, SELECT')
                                    THEN pg_catalog.pg_sequence_last_value(s.seqrelid) END) AS l (value)
    CROSS JOIN LATERAL (SELECT CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
                                    ELSE 9223372036854775807 END) AS t (most)
    WHERE a.attrelid = {{table}}::regclass AND a.attname = {{column}}
"""
USED_SQL = "(SELECT CASE WHEN s.seqincrement < 0 THEN pg_catalog.min({column}) ELSE pg_catalog.max({column}) END FROM {table})"


@dataclass(frozen=True, slots=True)
class Asked:
    """A column whose sequence is asked for, and whether its next value must be compared with those in use."""

    column: Column
    unique: bool
    readable: bool = True  # the values in use


@dataclass(frozen=True, slots=True)
class Next:
    """What a column's sequence returns next."""

    asked: Asked
    value: int | None  # None where this role may not read the sequence, or the server did not answer
    used: int | None = None  # the last value in use
    increment: int = 1
    end: int | None = (
        None  # the last value of the sequence or of the column's type; None where the sequence begins again before it
    )
    sequence: str = ""
    type: str = ""  # of the sequence
    role: str = ""
    usable: bool = True  # by this role, for a default
    cycles: bool = False
    unlogged: bool = False  # from PostgreSQL 15 on
    safe: bool = True  # whether no untrusted role may give the sequence's name to another relation
    denied: Sequence[str] = ()  # other roles that may INSERT, but not use the sequence for a default
    owned: bool = True  # by a role whose privileges this role has

    @property
    def step(self) -> int:
        return 1 if self.increment > 0 else -1

    @property
    def is_exhausted(self) -> bool:
        return self.value is not None and self.end is not None and (self.value - self.end) * self.step > 0

    @property
    def is_at_limit(self) -> bool:
        """Whether the sequence ends where the type of its column does."""
        return self.increment > 0 and self.end == LARGEST.get(self.asked.column.type)

    @property
    def is_taken(self) -> bool:
        return self.value is not None and self.used is not None and (self.value - self.used) * self.step <= 0


def next_values(live: Live, asked: list[Asked]) -> Iterator[Next]:
    """Yield the next value of each sequence of the columns `asked`; one that fails does not affect the others."""
    parts = [_part(live, place, one) for place, one in enumerate(asked)]
    rows = live.ask(SAFE_SQL + " UNION ALL ".join(parts), every=True) if parts else []
    if not isinstance(rows, list):
        if len(asked) == 1:
            yield Next(asked[0], None)
        else:
            for one in asked:
                yield from next_values(live, [one])
        return
    for place, *values in rows:
        yield Next(asked[place], *values)


def _part(live: Live, place: int, asked: Asked) -> str:
    table = f"{quote(live.schema)}.{quote(asked.column.table)}"
    used = USED_SQL.format(column=quote(asked.column.name), table=table)
    compared = asked.unique and asked.readable
    return NEXT_SQL.format(
        place=place, used=used if compared else "NULL::bigint", table=literal(table), column=literal(asked.column.name)
    )


def taken_values(expected: Catalog, actual: Catalog, live: Live) -> Iterator[Finding]:
    """Yield a finding for each column of a table of ours whose sequence returns a value that is in use, or no further value.

    One more lists the sequences that could not be checked.
    """
    keys = {(key.table, key.columns) for key in actual.keys if key.valid}
    trusted = {table.name for table in actual.tables if table.trusted and "SELECT" not in table.restricted}
    ours = {(column.table, column.name): column for column in expected.columns}
    known = {table.name for table in expected.tables}
    tables = {table.name: table.insertable for table in actual.tables if table.name in known}
    asked = []
    for column in actual.columns:
        contracted = ours.get((column.table, column.name))
        if contracted is not None and column.numbers_as(contracted):
            unique = column.table in trusted and (column.table, (column.name,)) in keys
            asked.append(Asked(column, unique, column.readable))
        elif column.table in tables and (column.identity or "nextval(" in (column.filled or "")):
            asked.append(Asked(column, False))
    found = [*next_values(live, asked)]
    yield from _unknown(found)
    yield from _unlogged(found, {table.name for table in actual.tables if table.logged})
    for following in found:
        column = following.asked.column
        title = f"column {column.name} of {column.table}"
        alter = f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)}"
        if not following.usable and tables.get(column.table):
            message = f"{following.role} may not use {following.sequence}{_fails(title)}"
            yield Finding(Severity.ERROR, "column.sequence", where(column), message, _of_owner(following))
        contracted = ours.get((column.table, column.name))
        is_served = contracted is not None and column.numbers_as(contracted)
        yield from _denied(following, title, is_replaced=bool(contracted and contracted.identity) and not is_served)
        if not (following.is_exhausted or following.is_taken):
            continue
        if contracted is None:
            message = f"The sequence of the unmanaged {title} is exhausted, so every INSERT fails."
            cure = f"{alter} DROP {'IDENTITY' if column.identity else 'DEFAULT'};"
            cure += "" if column.nullable else f"\n{alter} DROP NOT NULL;"
            yield Finding(Severity.ERROR, "column.sequence", where(column), message, f"{AGREE}{cure}")
            continue
        if not is_served:  # Another finding, whose cure gives the column its own sequence.
            continue
        message = f"The sequence of {title} {_returns(following)}"
        cure, is_sql = _cure(following)
        yield Finding(Severity.ERROR, "column.sequence", where(column), message, cure, is_sql=is_sql)


def _returns(following: Next) -> str:
    if following.is_exhausted:
        return "is exhausted: an INSERT fails."
    reach = "up to" if following.step > 0 else "down to"
    return f"returns {following.value} next, but values {reach} {following.used} are in use: an INSERT that gets one of them fails."


def _denied(following: Next, title: str, *, is_replaced: bool) -> Iterator[Finding]:
    """Yield a finding for other roles whose INSERTs fail because they may not use the sequence, which an identity may replace."""
    for roles in together(following.denied):
        message = f"{named(roles)} may INSERT into {following.asked.column.table}, but may not use {following.sequence}{_fails(title)}"
        cure = preceded("" if following.owned else "As its owner:", _grant(following, *roles))
        loses = "" if following.owned else "the owner of the sequence must run it"
        loses = "as an identity, the column needs no privilege on its sequence" if is_replaced else loses
        yield Finding(Severity.WARNING, "grants.missing", place_of(roles), message, cure, is_sql=True, loses=loses)


def _fails(title: str) -> str:
    return f", from which the default of {title} takes its values, so every INSERT that uses the default fails."


def _of_owner(following: Next) -> str:
    return f"As its owner: {_grant(following, following.role)}"


def _grant(following: Next, *roles: str) -> str:
    return f"GRANT USAGE, SELECT ON SEQUENCE {following.sequence} TO {grantees(roles)};"


def _unlogged(found: list[Next], logged: set[str]) -> Iterator[Finding]:
    """Yield a finding for each sequence that a crash sets back, unlike the table whose column it belongs to."""
    for following in found:
        column = following.asked.column
        if following.unlogged and following.asked.unique and column.table in logged:
            message = f"The sequence of column {column.name} of {column.table} is UNLOGGED: a crash sets it back to a value that is in use, and INSERTs fail."
            cure = f"ALTER SEQUENCE {following.sequence} SET LOGGED;"
            yield Finding(Severity.ERROR, "table.weaker", where(column), message, cure, is_sql=True)


def _cure(following: Next) -> tuple[str, bool]:
    """Return the cure for a sequence that is exhausted or behind the values in use, and whether it is SQL."""
    column = following.asked.column
    alter = f"ALTER SEQUENCE {following.sequence}"
    upwards = " INCREMENT 1" if following.increment < 0 else ""
    upwards += " NO CYCLE" if following.cycles else ""
    # Not pg_get_serial_sequence, which may return another sequence that belongs to the column.
    resume = f"SELECT pg_catalog.setval({literal(following.sequence)}, (SELECT COALESCE(max({quote(column.name)}), 1) FROM {quote(column.table)}));"
    if not following.is_exhausted:
        return (f"{alter}{upwards} NO MAXVALUE;\n" if upwards else "") + resume, True
    if not following.is_at_limit:
        wider = f" AS {column.type}" if following.type != column.type else ""
        return f"{alter}{wider}{upwards} NO MAXVALUE;", True
    if following.used == following.end:
        return "Change its column to bigint in a migration, and the sequence with it.", False
    return resume, True  # A larger MAXVALUE would not help.


def _unknown(found: list[Next]) -> Iterator[Finding]:
    """Yield the note about sequences that were not checked, or not compared with the values in use."""
    unread = [one for one in found if one.value is None]
    uncompared = [one for one in found if one.value is not None and one.asked.unique and not one.asked.readable]
    if not (unread or uncompared):
        return
    columns = ", ".join(where(one.asked.column) for one in (*unread, *uncompared))
    role = quote(next((one.role for one in (*unread, *uncompared) if one.role), "CURRENT_USER"))
    grants = (
        [f"GRANT SELECT ON SEQUENCE {', '.join(names)} TO {role};"]
        if (names := [one.sequence for one in unread if one.sequence and one.safe])
        else []
    )
    grants += [
        f"GRANT SELECT ({quote(one.asked.column.name)}) ON {quote(one.asked.column.table)} TO {role};"
        for one in found
        if one.asked.unique and not one.asked.readable
    ]
    cure = (
        f"As their owner: {' '.join(grants)}" if grants else "The server did not return their next values: its log shows why."
    )
    if unsafe := [one.sequence for one in unread if not one.safe]:
        moved = f"Give {', '.join(unsafe)} the owner and the schema of the column's table (ALTER SEQUENCE … OWNER TO …, SET SCHEMA …): until then, another role may give that name to another relation."
        cure = f"{cure}\n{moved}" if grants else moved
    message = f"The sequences of {columns} were not checked, or not compared with the values in use: whether an INSERT fails there is not known."
    yield Finding(Severity.NOTE, "column.sequence", "sequences", message, cure)
