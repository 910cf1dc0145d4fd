"""The conversion of a column's values to another type: its expression, what it loses, what prevents it, and which casts
would run other code."""

from __future__ import annotations

import re
from itertools import permutations, product

from ..sql import as_written, quote
from .objects import Column

MODIFIER = re.compile(r"\([\d,-]+\)")  # Such as the precision of timestamp(3) with time zone.
LARGEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1}
INTEGERS = (*LARGEST, "bigint")
# Pairs of types other than text of which the second keeps or rejects every value of the first.
KEPT = {
    *permutations(INTEGERS, 2),
    *product(INTEGERS, ["numeric"]),
    *product(["smallint", "integer", "real"], ["double precision"]),
}
DECIMAL = re.compile(r"numeric\((\d+),(\d+)\)")
DIGITS = 15  # The decimal digits of which every number is the same after a conversion to double precision and back.
LARGER = ("bigint", "numeric", "real", "double precision")
TIMES = (
    "date",
    "timestamp with time zone",
    "timestamp without time zone",
    "time with time zone",
    "time without time zone",
    "interval",
)
MILLISECONDS = "the numbers are read as milliseconds since 1970, those of smallint and integer as seconds"
# Conversions for which PostgreSQL has no cast, or whose cast changes how a value is written, each with what must be checked before it.
# Operators have exactly the types of PostgreSQL's own, so that no other role's fits better.
UNCAST: dict[tuple[str, str], tuple[str, str]] = {
    **{
        (one, "timestamp with time zone"): (
            "pg_catalog.to_timestamp({}::double precision / 1000::double precision)",
            MILLISECONDS,
        )
        for one in LARGER
    },
    **{
        (one, "timestamp with time zone"): ("pg_catalog.to_timestamp({}::double precision)", MILLISECONDS)
        for one in ("smallint", "integer")
    },
    **{(one, "boolean"): (f"({{}} <> 0::{one})", "every number other than 0 becomes true") for one in ("smallint", *LARGER)},
    ("bit", "boolean"): ("{}::integer::boolean", "every number other than 0 becomes true"),
    ("real", "double precision"): ("{}::text::double precision", ""),
    ("money", "double precision"): ("{}::numeric::double precision", "lc_monetary decides what the digits mean"),
    **{
        (one, two): (f"{how}::{two}", f"the times become {unit} since 1970")
        for one in ("timestamp with time zone", "timestamp without time zone")
        for two, how, unit in (
            ("bigint", "(EXTRACT(epoch FROM {}) * 1000::numeric)", "milliseconds"),
            ("integer", "EXTRACT(epoch FROM {})", "seconds"),
        )
    },
    **{
        (one, "text[]"): (
            "pg_catalog.translate({}::text, '[]', '{{}}')::text[]",
            "only arrays of strings without escapes are converted",
        )
        for one in ("json", "jsonb")
    },
    **{
        (one, "text"): (
            "{}::text",
            "dates and times are written as 2027-04-25 00:00:00+00; if the site writes them otherwise, convert them with to_char()",
        )
        for one in TIMES
    },
    **{
        (one, "text"): (
            "({} #>> '{{}}'::text[])",
            "a string is written without quotes, null as NULL, and every other value as JSON",
        )
        for one in ("json", "jsonb")
    },
    ("bytea", "text"): ("pg_catalog.convert_from({}, 'UTF8')", "bytes that are not UTF-8 stop the statement"),
    ("money", "text"): ("{}::text", "lc_monetary decides how the amounts are written"),
    ("inet", "text"): (as_written("{0}"), ""),  # The cast adds /32 to an address.
}

# Views, rules, triggers, policies, functions and filters of publications that use a column, and columns of the type of its table's
# rows: PostgreSQL refuses to drop it or to change its type.
USED_BY_SQL = """
    ARRAY(SELECT DISTINCT CASE WHEN r.rulename = '_RETURN' THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0)
                               ELSE pg_catalog.pg_describe_object(u.classid, u.objid, 0) END
          FROM pg_catalog.pg_depend AS u LEFT JOIN pg_catalog.pg_rewrite AS r ON u.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = u.objid
          WHERE u.refclassid = 'pg_catalog.pg_class'::regclass AND u.refobjid = c.oid AND u.refobjsubid = a.attnum
            AND u.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_policy'::regclass,
                              'pg_catalog.pg_publication_rel'::regclass, 'pg_catalog.pg_proc'::regclass)
            AND c.relkind IN ('r', 'p', 'f')
          UNION
          SELECT pg_catalog.pg_describe_object(u.classid, u.objid, u.objsubid)
          FROM pg_catalog.pg_type AS y JOIN pg_catalog.pg_depend AS u ON u.refclassid = 'pg_catalog.pg_type'::regclass AND u.refobjid IN (y.oid, y.typarray)
          JOIN pg_catalog.pg_class AS h ON h.oid = u.objid AND h.relkind IN ('r', 'p', 'm')
          WHERE y.oid = c.reltype AND u.classid = 'pg_catalog.pg_class'::regclass AND u.objsubid > 0 AND c.relkind IN ('r', 'p') ORDER BY 1)
"""
# A type, and those below a domain and an array.
BELOW_SQL = """
    WITH RECURSIVE below AS (
        SELECT {type} AS oid
        UNION
        SELECT part.oid
        FROM below JOIN pg_catalog.pg_type AS b ON b.oid = below.oid
        CROSS JOIN LATERAL (VALUES (b.typbasetype), (b.typelem)) AS part (oid) WHERE part.oid <> 0
    )
"""
# Whether a cast of the column's type, or of the types below a domain and an array, calls a function: the owner of a type may create
# casts from it, also of an enum to text. PostgreSQL's own casts have OIDs below 16384.
CASTS_SQL = f"""
    CASE WHEN t.oid >= 16384 OR t.typelem >= 16384 THEN EXISTS (
        {BELOW_SQL.format(type="t.oid")}
        SELECT FROM below JOIN pg_catalog.pg_cast AS k ON k.castsource = below.oid WHERE k.oid >= 16384 AND k.castfunc <> 0)
    ELSE false END
"""


def lost_by_type_change(column: Column, live: Column) -> str:
    """Return what the conversion of values to the type of `column` loses, "" if it keeps or rejects each."""
    given, wanted = live.type, column.type
    if given.endswith("[]") and wanted.endswith("[]"):
        given, wanted = given.removesuffix("[]"), wanted.removesuffix("[]")
    times = given.startswith("timestamp") and wanted == "timestamp with time zone"
    padded = given.startswith("character(") or given == "bpchar"
    if check := converted(column, live)[1]:
        return check
    if wanted == "jsonb" and (given == "json" or is_text(given)):
        stops = "" if given == "json" else ", and a value that is not JSON stops the statement"
        return f"jsonb keeps neither the order of the keys of an object nor a key that occurs twice{stops}"
    if padded and is_text(wanted):
        return "trailing blanks are removed"
    decimal = DECIMAL.fullmatch(given)
    fits = wanted == "double precision" and decimal is not None and max(map(int, decimal.groups())) <= DIGITS
    if given == wanted or is_text(wanted) or times or fits or (given, wanted) in KEPT:
        return ""
    return f"values of the type {live.type} are rounded or truncated if {column.type} cannot hold them"


def converted(column: Column, live: Column) -> tuple[str, str]:
    """Return the expression for the values of `live` in the type of `column`, and what must be checked first."""
    name = quote(live.name)
    if live.type.endswith("[]") and column.type == "jsonb" and not live.casts:
        return f"pg_catalog.to_jsonb({name})", "each list becomes an array of JSON"
    if live.type.endswith("[]") and is_text(column.type) and not column.type.endswith("[]"):
        expression, check = "{}::text", "each list is written in braces"
    else:
        wanted = "text" if is_text(column.type) else column.type
        expression, check = UNCAST.get((MODIFIER.sub("", live.type), wanted), (f"{{}}::{column.type}", ""))
    if live.casts:
        written = as_written(name)
        return written if is_text(column.type) else f"({written})::{column.type}", check
    return expression.format(name), check


def compares_as_text(column: Column, live: Column) -> bool:
    """Return whether a foreign key may join columns of both types."""
    return is_text(column.type) and is_text(live.type)


def is_text(type_: str) -> bool:
    return type_ == "text" or type_.startswith("character varying")
