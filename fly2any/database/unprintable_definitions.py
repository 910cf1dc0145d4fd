"""Objects whose definition the server cannot print: dbstatus then reads the rest of the catalogue, and pg_dump fails.

An expression may be nested as deeply as the parser accepts, but printing it takes more of the server's stack, or more than 1 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from django.db import Error

from .errors import Refusal, sqlstate
from .findings import Finding, Severity
from .sql import attempted, catalogue, fetch_all
from .units import few, plural

# What is read in place of such an expression: a function that does not exist, so that nothing is concluded from it.
STAND_IN = "unprintable()"
# The SQLSTATEs of an expression that is nested too deeply, and of a text that is too long, also for the memory.
STATES = ("54001", "54000", "53200")
OF_TABLE = "(SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = {})"
# The catalogues of expressions as `o`: the column with the number, the owner, the printed text and a condition.
PRINTED = (
    ("pg_constraint", "o.oid", f"COALESCE({OF_TABLE.format('o.conrelid')}, (SELECT t.typowner FROM pg_catalog.pg_type AS t WHERE t.oid = o.contypid))",
     "pg_catalog.pg_get_constraintdef(o.oid)", "o.contype IN ('c', 'x')"),
    ("pg_attrdef", "o.oid", OF_TABLE.format("o.adrelid"), "pg_catalog.pg_get_expr(o.adbin, o.adrelid)", "true"),
    ("pg_policy", "o.oid", OF_TABLE.format("o.polrelid"),
     "pg_catalog.concat(pg_catalog.pg_get_expr(o.polqual, o.polrelid), pg_catalog.pg_get_expr(o.polwithcheck, o.polrelid))", "true"),
    ("pg_index", "o.indexrelid", OF_TABLE.format("o.indexrelid"), "pg_catalog.pg_get_indexdef(o.indexrelid)", "o.indexprs IS NOT NULL OR o.indpred IS NOT NULL"),
    ("pg_rewrite", "o.oid", OF_TABLE.format("o.ev_class"), "pg_catalog.pg_get_ruledef(o.oid)", "true"),
    ("pg_trigger", "o.oid", OF_TABLE.format("o.tgrelid"), "pg_catalog.pg_get_triggerdef(o.oid)", "NOT o.tgisinternal"),
    ("pg_statistic_ext", "o.oid", "o.stxowner", "pg_catalog.pg_get_statisticsobjdef(o.oid)", "true"),
    ("pg_proc", "o.oid", "o.proowner", "pg_catalog.pg_get_functiondef(o.oid)", "o.prokind <> 'a'"),
    ("pg_type", "o.oid", "o.typowner", "pg_catalog.pg_get_expr(o.typdefaultbin, 0::oid)", "o.typdefaultbin IS NOT NULL"),
    ("pg_partitioned_table", "o.partrelid", OF_TABLE.format("o.partrelid"), "pg_catalog.pg_get_partkeydef(o.partrelid)", "true"),
    ("pg_class", "o.oid", "o.relowner", "pg_catalog.pg_get_partition_constraintdef(o.oid)", "o.relispartition"),
)  # fmt: skip
IN_RELATIONS = ("pg_index", "pg_partitioned_table")  # Their numbers are those of relations.
FIRST_NUMBER = 16384  # Of an object that initdb did not create.
# The queries of dbstatus print within others, which takes some of the stack: the text is printed within more of them here.
NESTED = 24
PRINTABLE_SQL = "({} = ANY (%(unprintable)s::oid[])) IS NOT TRUE"
LISTED_SQL = "SELECT {number} FROM pg_catalog.{catalogue} AS o WHERE {number} >= {first} AND ({condition}) ORDER BY 1"
PRINT_SQL = (
    "SELECT pg_catalog.count(pg_catalog.length({printed})) FROM pg_catalog.{catalogue} AS o WHERE {number} = ANY (%s::oid[])"
)
DESCRIBED_SQL = """
    SELECT pg_catalog.pg_get_userbyid({owner})::text, CASE WHEN r.rulename = '_RETURN' THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0)
                                    ELSE pg_catalog.pg_describe_object('pg_catalog.{named}'::regclass, {number}, 0) END
    FROM pg_catalog.{catalogue} AS o LEFT JOIN pg_catalog.pg_rewrite AS r ON r.oid = {number} AND '{catalogue}' = 'pg_rewrite'
    WHERE {number} = %s::oid
"""
SHOWN = 5
OF_DUMPS = "pg_dump exited with"  # In the message of its failure.
CURE = (
    "Its owner should drop it, or write it with less nesting. If it is needed as it is, a superuser can raise max_stack_depth, for which the"
    " server's process needs a larger limit than that (`ulimit -s`): ALTER SYSTEM SET max_stack_depth TO '7MB'; SELECT pg_reload_conf();"
)


@dataclass(frozen=True, slots=True)
class Unprintable:
    """An object that the server cannot print, with its owner and the server's reason."""

    number: int
    what: str
    owner: str
    why: str


def printed(number: str, expression: str) -> str:
    """Return an SQL expression that prints `expression`, unless the object of that number is among those that cannot be printed."""
    return f"CASE WHEN {number} = ANY (%(unprintable)s::oid[]) THEN '{STAND_IN}' ELSE {expression} END"


def read_unprintable(connection) -> tuple[Unprintable, ...]:
    """Return the objects of the database that the server cannot print. Each is printed once, so this takes a while in a large one."""
    with catalogue(connection):
        return tuple(one for part in PRINTED for one in _of_catalogue(connection, *part))


def findings(found: Sequence[Unprintable]) -> Iterator[Finding]:
    for one in found:
        message = f"The server cannot print the {one.what}, which belongs to {one.owner} ({one.why}). It was not compared, and no backup can be taken."
        yield Finding(Severity.ERROR, "object.unprintable", one.what, message, CURE)


def describe(found: Sequence[Unprintable]) -> str:
    """Return a sentence about objects that kept pg_dump from its end, with the cure."""
    named = few([f"{one.what} of {one.owner} ({one.why})" for one in found], SHOWN, separator="; ")
    return f"No backup was taken, because the server cannot print {plural(len(found), 'object')}: {named}. {CURE}"


@contextmanager
def explain_unprintable(connection) -> Iterator[None]:
    """Run the block, which runs pg_dump; if that fails because of objects that cannot be printed, raise Refusal with their names."""
    try:
        yield
    except Refusal as refusal:
        found: tuple[Unprintable, ...] = ()
        with suppress(Error):  # The server may be gone, which is why pg_dump failed.
            found = read_unprintable(connection) if OF_DUMPS in str(refusal) else ()
        if not found:
            raise
        raise Refusal(describe(found)) from refusal


def _of_catalogue(connection, name: str, number: str, owner: str, expression: str, condition: str) -> Iterator[Unprintable]:
    for _ in range(NESTED):
        expression = f"(SELECT {expression} OFFSET 0)"
    listed = LISTED_SQL.format(number=number, catalogue=name, first=FIRST_NUMBER, condition=condition)
    question = PRINT_SQL.format(printed=expression, catalogue=name, number=number)
    named = "pg_class" if name in IN_RELATIONS else name
    described = DESCRIBED_SQL.format(owner=owner, named=named, number=number, catalogue=name)
    for one, why in _failing(connection, question, [oid for (oid,) in fetch_all(connection, listed)]):
        for role, what in fetch_all(connection, described, [one]):
            yield Unprintable(one, what, role, why)


def _failing(connection, question: str, numbers: list[int]) -> Iterator[tuple[int, str]]:
    """Yield those of the objects that cannot be printed, found by halves, with the reason."""
    if not numbers:
        return
    try:
        with attempted(connection):
            fetch_all(connection, question, [numbers])
        return
    except Error as error:
        if sqlstate(error) not in STATES:
            raise
        why = str(error).splitlines()[0]
    if len(numbers) == 1:
        yield numbers[0], why
        return
    middle = len(numbers) // 2
    yield from _failing(connection, question, numbers[:middle])
    yield from _failing(connection, question, numbers[middle:])
