"""Unmanaged indexes that refuse long values, and unique defaults that may return a value twice."""

import secrets

import pytest
from django.db import DatabaseError, connection, transaction

from fly2any.database.schema.expressions import is_distinct, is_total
from fly2any.database.schema.unmanaged import AGREE
from fly2any.database.verification import verify
from tests.database.test_writes import run

LONG = "and a write fails where {} exceeds {:,} bytes after compression"


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("index", "refuses", "limit"),
    [
        ("ON users (bio)", "bio", 2704),
        ("ON users (id) INCLUDE (bio)", "bio", 2704),
        ("ON users (upper(bio))", "upper(bio)", 2704),
        ("ON users USING brin (bio)", "bio", 4064),
        ("ON users USING gin (bio)", "bio", 2712),
        ("ON users USING gin (id, upper(bio))", "upper(bio)", 2712),
        ("ON users USING gin (string_to_array(bio, ' '))", "string_to_array(bio, ' '::text)", 2712),
        ("ON users USING gin (to_tsvector('simple', left(bio, 500)))", None, 0),
        ("ON users USING gin (bio gin_trgm_ops)", None, 0),
        ("ON users USING gin (left(bio, 500))", None, 0),
        ("ON users USING brin (bio text_bloom_ops)", None, 0),
        ("ON users USING hash (bio)", None, 0),
        ("ON users USING spgist (bio)", None, 0),
        ("ON users (md5(bio))", None, 0),
        ("ON users (left(bio, 500))", None, 0),
        ("ON users (bio) WHERE length(bio) < 500", None, 0),
    ],
)
def test_an_index_that_refuses_long_values_is_reported(index, refuses, limit):
    with connection.cursor() as cursor:
        if "gin" in index:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS btree_gin")
        cursor.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('1', 'a@example.org', now())")
        cursor.execute(f"CREATE INDEX theirs {index}")
    text = secrets.token_hex(12_000)  # compresses to a half

    findings = verify(connection).findings

    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE users SET bio = %s", [text])
            stored = True
    except DatabaseError:
        stored = False
    assert stored is (refuses is None)
    assert [(one.severity, one.code, LONG.format(refuses, limit) in one.message) for one in findings] == (
        [] if refuses is None else [("warning", "index.extra", True)]
    )
    for one in findings:
        run(one.cure.removeprefix(AGREE).replace(" CONCURRENTLY", ""))
    assert verify(connection).findings == ()


@pytest.mark.django_db
def test_the_most_that_a_brin_index_holds_is_exact_to_a_few_bytes():
    run(
        "INSERT INTO users (id, email, \"updatedAt\") VALUES ('1', 'a@example.org', now())",
        "ALTER TABLE users ALTER bio SET STORAGE external",  # not compressed
        "CREATE INDEX theirs ON users USING brin (bio)",
    )

    run(f"UPDATE users SET bio = '{secrets.token_hex(2032)}'")

    with pytest.raises(DatabaseError, match="exceeds maximum 8152"), transaction.atomic():
        run(f"UPDATE users SET bio = '{secrets.token_hex(2040)}'")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("index", "severity"),
    [
        ("users (name)", "note"),
        ("users (upper(name), country)", "note"),
        ("ai_messages (content)", "warning"),
        ("notifications (message)", "warning"),
        ("users (email, id)", None),
        ('user_preferences ("preferredAirlines")', "warning"),
    ],
)
def test_only_an_index_over_what_is_often_long_is_more_than_a_note(index, severity):
    run(f"CREATE INDEX theirs ON {index}")

    assert [one.severity for one in verify(connection).findings] == ([severity] if severity else [])


PART = "Or index a part or a digest of it: left({0}, 500), md5({0}), or USING hash"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("table", "index", "advice"),
    [
        ("user_preferences", '"homeAirport"', PART.format('"homeAirport"')),
        ("users", "upper(bio)", PART.format("upper(bio)")),
        ("user_preferences", '"preferredAirlines"', "Or index it USING hash"),
    ],
)
def test_the_indexes_to_create_instead_can_be_created(table, index, advice):
    run(f"CREATE INDEX theirs ON {table} (({index}))")

    [finding] = verify(connection).findings
    run(finding.cure.removeprefix(AGREE).replace(" CONCURRENTLY", ""), f"CREATE INDEX ON {table} USING hash (({index}))")
    if "left" in advice:
        run(f"CREATE INDEX ON {table} ({advice.partition(': ')[2].removesuffix(', or USING hash')})")

    assert finding.cure.partition("-- ")[2] == advice
    assert verify(connection).findings == ()


@pytest.mark.django_db
def test_a_unique_constraint_that_refuses_long_values_is_reported():
    run("ALTER TABLE users ADD theirs uuid DEFAULT gen_random_uuid(), ADD CONSTRAINT theirs_u UNIQUE (theirs, bio)")

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code, finding.where) == ("warning", "index.extra", "users.theirs_u")
    assert 'DROP CONSTRAINT "theirs_u";' in finding.cure


@pytest.mark.django_db
def test_the_words_of_a_long_text_are_a_note_with_a_cure():
    run("ALTER TABLE users ADD theirs tsvector GENERATED ALWAYS AS (to_tsvector('simple', bio)) STORED")

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code) == ("note", "column.extra")
    assert finding.message.endswith(
        "a write fails where to_tsvector('simple'::regconfig, bio) reads more than 1 MB of different words."
    )
    assert "left(content, 50000)" in finding.cure


def test_a_text_search_of_a_part_is_total():
    assert is_total("to_tsvector('english'::regconfig, \"left\"(COALESCE(bio, ''::text), 50000))")
    assert not is_total("to_tsvector('english'::regconfig, \"left\"(bio, 5000000))")
    assert not is_total("to_tsvector('english'::regconfig, bio)")


@pytest.mark.parametrize(
    ("default", "distinct"),
    [
        ("nextval('users_n_seq'::regclass)", True),
        ("gen_random_uuid()", True),
        ("(gen_random_uuid())::text", True),
        ("random()", True),
        ("md5((random())::text)", True),
        ("('u_'::text || (gen_random_uuid())::text)", True),
        ("replace((gen_random_uuid())::text, '-'::text, ''::text)", True),
        ('"left"((gen_random_uuid())::text, 1)', False),
        ("(random() * (10)::double precision)", False),
        ("((nextval('users_n_seq'::regclass) % (2)::bigint))", False),
        ('"substring"(md5((random())::text), 1, 2)', False),
        ("(random())::integer", False),
        ("now()", False),
    ],
)
def test_defaults_that_differ_in_each_row_are_recognised(default, distinct):
    assert is_distinct(default) is distinct


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("left(gen_random_uuid()::text, 1)", ("note", "was not tried: an INSERT fails where")),
        ("clock_timestamp()::text", ("note", "was not tried: an INSERT fails where")),
        ("lower('A')", ("error", "refuses the second row that we INSERT.")),
        ("'a'", ("error", "refuses the second row that we INSERT.")),
        ("gen_random_uuid()::text", None),
    ],
)
def test_a_unique_default_is_reported_unless_it_differs_in_each_row(default, expected):
    run(f"ALTER TABLE users ADD theirs text DEFAULT {default}, ADD UNIQUE (theirs)")

    said = [(one.severity, one.message) for one in verify(connection).findings]

    assert [severity for severity, _ in said] == ([expected[0]] if expected else [])
    assert all(expected[1] in message for _, message in said)
