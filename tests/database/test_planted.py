"""Functions and operators that another role planted in the search path, with types that fit better than PostgreSQL's own."""

import json
import re
from itertools import product
from pathlib import Path

import django.db.backends.postgresql
import pytest

from tests.conftest import PROJECT, manage, start_server
from tests.database.driven import COMMANDS, TOKEN, drive

# Argument types that PostgreSQL's own function of this type converts, so that an exact match wins.
NEAR = {
    "text": ["varchar", "name", '"char"', "regclass", "regtype", "int4", "int8", "oid", "bool", "timestamptz", "text[]"],
    "name": ["text", "varchar"],
    "int8": ["int2", "int4", "oid"],
    "int4": ["int2", '"char"', "int8"],
    "float8": ["int4", "int8", "numeric", "float4"],
    "numeric": ["int4", "int8"],
    "oid": ["regclass", "regtype", "regproc", "int4", "int8"],
    "regclass": ["oid", "text", "name"],
    "timestamptz": ["date", "timestamp"],
    "timestamp": ["date", "timestamptz"],
    "interval": ["time"],
    "jsonb": ["json"],
    "bool": [],
}
# Types of which several at once fit better, in a function of three arguments or more.
NEAREST = {"regclass": ["text"], "int8": ["int4"], "name": ["text"], "oid": ["regclass"]}
# Commands between those of COMMANDS, and others that need a session.
SESSIONS = """
    dbbackup --verify
    dbrestore latest --into copied
    dbrestore latest --yes
    STEPS
    migrate
    dbadopt
    dbadopt --yes
    dbmaintain weekly
    dbmaintain quarterly
    loaddata FIXTURE
    dbcontract --check
    migrate travel 0001 --yes --without-backup
    migrate
    dbreset --yes --without-backup
    migrate
"""
ELEMENTS = ["int2", "int4", "int8", "oid", "text", "varchar", "name", '"char"', "bool", "float8", "numeric", "timestamptz", "interval", "jsonb", "regclass"]  # fmt: skip
ROWS = ["pg_catalog.pg_constraint", "pg_catalog.pg_index", "pg_catalog.pg_stat_user_indexes"]
ARRAYS = [f"{kind}[]" for kind in ELEMENTS] + ["int2vector", "oidvector"]
ANY = {"anyelement", "anynonarray", "any", "anycompatible", "anycompatiblenonarray"}
ANY_ARRAY = {"anyarray", "anycompatiblearray"}
OPERATORS = {
    "bool": ["=", "<>", "<", ">", ">=", "<=", "&&", "@>", "~", "~~", "!~"],
    "text": ["||", "->", "->>", "-", "+", "/", "*", "&"],
}
OPERANDS = ["int2", "int4", "int8", "oid", "xid", "text", "varchar", "name", '"char"', "bool", "regclass", "regtype", "float8", "numeric", "timestamptz",
            "interval", "jsonb", "text[]", "name[]", "int2[]", "int4[]", "oid[]", '"char"[]', "int2vector", "oidvector"]  # fmt: skip

FUNCTIONS_SQL = """
    SELECT p.proname, ARRAY(SELECT t.typname::text FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, place)
                            JOIN pg_type AS t ON t.oid = a.type ORDER BY a.place),
           format_type(p.prorettype, NULL), p.proretset
    FROM pg_proc AS p WHERE p.pronamespace = 'pg_catalog'::regnamespace
"""
OPERATORS_SQL = """
    SELECT o.oprname, l.typname, r.typname FROM pg_operator AS o JOIN pg_type AS l ON l.oid = o.oprleft JOIN pg_type AS r ON r.oid = o.oprright
    WHERE o.oprnamespace = 'pg_catalog'::regnamespace
"""
BODY = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked: {}'; END $$"


def called():
    """The names of the functions that our SQL and Django's own may call."""
    folders = [PROJECT / name for name in ("fly2any", "accounts", "travel", "engagement", "ai_consultant")]
    files = [
        file for folder in (*folders, Path(django.db.backends.postgresql.__file__).parent) for file in folder.rglob("*.py")
    ]
    return {word for file in files for word in re.findall(r"\b([a-z_][a-z0-9_]*)\s*\(", file.read_text().lower())}


def typname(kind):
    """Return how the catalogue names a type."""
    name = kind.rpartition(".")[2].replace('"', "")
    return f"_{name[:-2]}" if name.endswith("[]") else name


def variants(arguments):
    """Yield the types of arguments that fit a call better than `arguments`."""
    if not ANY.union(ANY_ARRAY).isdisjoint(arguments):
        pairs = [*((kind, f"{kind}[]") for kind in ELEMENTS), *((kind, "int2vector") for kind in ROWS), ("text", "oidvector")]
        for element, array in pairs:
            yield [element if kind in ANY else array if kind in ANY_ARRAY else kind for kind in arguments]
    if len(arguments) <= 2:
        yield from map(list, product(*([kind, *NEAR.get(kind, [])] for kind in arguments)))
        return
    yield from map(list, product(*([kind, *NEAREST.get(kind, [])] for kind in arguments)))
    for place, kind in enumerate(arguments):
        for other in NEAR.get(kind, []):
            yield [*arguments[:place], other, *arguments[place + 1 :]]


def look_alikes(server):
    """Return the functions and the operators to plant, as SQL with {} for the schema."""
    rows = server.execute(FUNCTIONS_SQL)
    taken, names, made = {(name, tuple(kinds)) for name, kinds, *_ in rows}, called(), []
    for name, arguments, result, is_set in rows:
        if name not in names or not 1 <= len(arguments) <= 5 or result in ("internal", "trigger", "cstring", "anyrange"):
            continue
        for kinds in variants(arguments):
            place = (name, tuple(map(typname, kinds)))
            if place in taken or any(kind.startswith("any") or kind in ("internal", "cstring", "record") for kind in kinds):
                continue
            taken.add(place)
            types = ", ".join(f'pg_catalog."{typname(kind)}"' for kind in kinds)
            signature = f'"{name}"({types})'
            returns = f"{'SETOF ' if is_set else ''}{'text' if result.startswith('any') else result}"
            made.append(
                f"CREATE FUNCTION {{}}.{signature} RETURNS {returns} {BODY.format(signature.replace('pg_catalog.', ''))}"
            )
    ours = set(server.execute(OPERATORS_SQL))
    for number, (left, right) in enumerate(product(OPERANDS, OPERANDS)):
        for result, operators in OPERATORS.items():
            names = [name for name in operators if (name, typname(left), typname(right)) not in ours]
            function = f"operator_{result}_{number}"
            lines = [
                f"CREATE FUNCTION {{0}}.{function}({left}, {right}) RETURNS {result} {BODY.format(f'an operator of {left} and {right}'.replace(chr(34), ''))}"
            ]
            lines += [
                f"CREATE OPERATOR {{0}}.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {{0}}.{function})"
                for name in names
            ]
            made.append("; ".join(lines))
    return made


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A server with demo data where another role planted look-alikes in both schemas of the search path."""
    server = start_server(tmp_path_factory.mktemp("server"), migrated=True, lc_messages="C")
    try:
        assert manage("dbseed", "--production", "--users", "20", url=server.url()).returncode == 0
        server.execute("""UPDATE users SET "isStaff" = true, "isSuperuser" = true WHERE id = (SELECT min(id) FROM users);
                          CREATE SCHEMA postgres; ALTER DATABASE fly2any SET search_path TO public, "$user" """)
        made = look_alikes(server)
        assert len(made) > 1000
        for first in range(0, len(made), 400):
            lines = [line.format("public" if place % 2 else "postgres") for place, line in enumerate(made[first : first + 400])]
            server.execute("SET check_function_bodies = off; SET search_path = pg_catalog; " + "; ".join(lines))
        yield server
    finally:
        server.remove()


@pytest.mark.slow
def test_no_command_or_page_calls_a_function_planted_by_another_role(planted, tmp_path):
    log = planted.home / "log"
    begun = log.stat().st_size

    fixture = tmp_path / "groups.json"
    fixture.write_text('[{"model": "auth.group", "pk": 900, "fields": {"name": "Night shift", "permissions": []}}]')
    commands = SESSIONS.replace("STEPS", COMMANDS).replace("FIXTURE", str(fixture))

    ran = manage("shell", "-v0", "-c", drive(commands), url=planted.url(), timeout=600, METRICS_TOKEN=TOKEN,
                 BACKUP_LOCATION=str(tmp_path / "backups"), ARCHIVE_LOCATION=str(tmp_path / "archive"),
                 RETENTION="price_history=1,ai_conversations=1,recent_searches=1,axes_accessattempt=1")  # fmt: skip

    said = log.read_text()[begun:]
    assert ran.returncode == 0, ran.stderr
    assert re.findall(r"hijacked: [^\x00]*?STATEMENT: .*(?:\n\t.*){0,5}|hijacked: .*", said) == []
    results = json.loads(ran.stdout.splitlines()[-1])
    assert {what: result for what, result in results.items() if result not in (0, 4, 200)} == {}
