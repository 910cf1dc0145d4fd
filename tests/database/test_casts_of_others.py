"""Types of another role, which may create casts from them: cures convert the values without its functions."""

import dataclasses

import pytest

from fly2any.database.schema import read_catalog
from fly2any.database.schema.cures import retype
from fly2any.database.schema.type_changes import converted
from tests.conftest import django

TYPES = """
    CREATE SCHEMA mal;
    CREATE TYPE mal.kind AS ENUM ('1', 'high'); CREATE TYPE mal.pair AS (a text, b int); CREATE DOMAIN mal.kept AS mal.kind;
    CREATE FUNCTION mal.evil(mal.kind) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$;
    CREATE FUNCTION mal.evil(mal.pair) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$;
    CREATE FUNCTION mal.number(mal.kind) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$;
    CREATE CAST (mal.kind AS text) WITH FUNCTION mal.evil(mal.kind) AS IMPLICIT;
    CREATE CAST (mal.pair AS text) WITH FUNCTION mal.evil(mal.pair) AS ASSIGNMENT;
    CREATE CAST (mal.kind AS int) WITH FUNCTION mal.number(mal.kind);
"""


@pytest.mark.parametrize(
    ("live", "value", "wanted", "result"),
    [
        ("mal.kind", "high", "text", "high"),
        ("mal.kind", "high", "character varying(4)", "high"),
        ("mal.kind", "1", "integer", 1),
        ("mal.kept", "high", "text", "high"),
        ("mal.kind[]", "{high,1}", "text[]", ["high", "1"]),
        ("mal.pair", "(x,2)", "text", "(x,2)"),
    ],
)
def test_a_cure_of_a_columns_type_runs_no_cast_of_the_types_owner(database, live, value, wanted, result):
    database.execute(f"{TYPES} CREATE TABLE t (a {live}); INSERT INTO t VALUES ('{value}'), (NULL)")
    with django(database) as connection:
        catalog = read_catalog(connection, schema="public")
    [column] = catalog.columns

    changes, _ = retype(dataclasses.replace(column, type=wanted), column, [], catalog)
    database.execute("".join(changes))

    assert database.execute("SELECT a FROM t ORDER BY a IS NULL") == [(result,), (None,)]


WRITTEN = (
    "dates and times are written as 2027-04-25 00:00:00+00; if the site writes them otherwise, convert them with to_char()"
)


def test_values_of_types_without_such_casts_are_converted_by_postgresqls_own(database):
    database.execute(
        "CREATE TYPE kind AS ENUM ('a'); CREATE DOMAIN kept AS int; CREATE TABLE t (a kind, b kept, c int[], d timestamptz)"
    )
    with django(database) as connection:
        columns = read_catalog(connection, schema="public").columns

    assert [(one.casts, converted(dataclasses.replace(one, type="text"), one)) for one in columns] == [
        (False, (f'"{name}"::text', check))
        for name, check in zip("abcd", ("", "", "each list is written in braces", WRITTEN), strict=True)
    ]
