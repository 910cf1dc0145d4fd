"""Properties of expressions that their text shows, and how the planner uses an index's condition."""

from dataclasses import replace

import pytest
from django.db import connection

from fly2any.database.schema import Index
from fly2any.database.schema.drift import compare
from fly2any.database.schema.expressions import counts, distinguishing_column
from fly2any.database.sql import ask
from fly2any.database.verification import verify
from tests.database.mutation import EXPECTED
from tests.database.test_writes import run


@pytest.mark.parametrize(
    ("expression", "column"),
    [
        ("id", "id"),
        ('"a""b"', 'a"b'),
        ("(id || ''::text)", "id"),
        ("(((id)::text || ' (x)'::text) || 'z'::text)", "id"),
        ("('u'::text || reverse(id))", "id"),
        ("(id::character varying)", "id"),
        ("COALESCE(id, ''::text)", "id"),
        ("COALESCE(name, ''::text)", None),
        ("(name || ''::text)", "name"),
        ("(id || name)", None),
        ("(id || name || ''::text)", None),
        ("(id::character varying(3))", None),
        ("lower(id)", None),
        ("(reverse(id) || reverse(name))", None),
        ("('a'::text || lower(id))", None),
        ("theirs", None),
    ],
)
def test_an_injective_expression_is_recognised(expression, column):
    assert distinguishing_column(expression, {"id", "name", 'a"b'}, {"id"}) == column


def test_calls_that_return_no_negative_number_are_recognised():
    expression = (
        "((length(btrim(a, ')'::text)) >= 0) AND (strlength(a) > octet_length((b)::text)) AND (length((a)::bytea) > 0))"
    )

    assert list(counts(expression)) == ["length(btrim(a, ')'::text))", "octet_length((b)::text)"]


def test_a_unique_index_that_equates_different_values_is_not_implied_by_a_key():
    same = Index("users", "theirs", ("id",), ("",), unique=True, uses=("id",))

    def found(index):
        return [
            (one.code, one.where) for one in compare(EXPECTED, replace(EXPECTED, indexes=(*EXPECTED.indexes, index))).findings
        ]

    assert found(same) == []
    assert found(replace(same, exact=False)) == [("unique.extra", "users.theirs")]


@pytest.mark.django_db
def test_an_index_is_different_if_the_planner_does_not_recognise_its_equivalent_predicate():
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX users_staff_idx; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        used = {}
        for condition in ('"isStaff" IS TRUE', '"isStaff" = true'):
            cursor.execute(f'CREATE INDEX users_staff_idx ON users ("createdAt") WHERE {condition}')
            cursor.execute('EXPLAIN (COSTS OFF) SELECT id FROM users WHERE "isStaff" ORDER BY "createdAt"')
            used[condition] = any("users_staff_idx" in line for (line,) in cursor.fetchall())
            codes = [one.code for one in verify(connection).findings]
            assert (used[condition], codes) == ((True, []) if "=" in condition else (False, ["index.different"]))
            cursor.execute("DROP INDEX users_staff_idx")


@pytest.mark.django_db
def test_what_follows_from_the_type_of_a_column_is_not_reported_too():
    run(
        "CREATE EXTENSION IF NOT EXISTS citext",
        "ALTER TABLE users ALTER email TYPE citext",
        'ALTER TABLE users ADD CHECK ("firstName" <> \'\'), ALTER "firstName" TYPE citext',
    )

    findings = [finding for finding in verify(connection).findings if finding.code != "check.extra"]

    assert [finding.message for finding in findings] == [
        "Column email of users is citext, not text.",
        "Column firstName of users is citext, not text.",
    ]
    run(*(finding.cure for finding in findings))
    assert [finding.code for finding in verify(connection).findings] == ["check.extra"]


@pytest.mark.django_db
def test_a_message_shows_where_a_long_definition_begins_to_differ():
    definition = ask(connection, "SELECT pg_get_indexdef('users_words_trgm_idx'::regclass)")
    run("DROP INDEX users_words_trgm_idx", definition.replace("COALESCE(name, ''::text)", "COALESCE(name, '-'::text)"))

    (finding,) = verify(connection).findings

    assert finding.message == (
        "Index users_words_trgm_idx of users is …(' '::text || COALESCE(name, '-'::text)) || ' '::text) || COALESCE(\"firstName\", ''::text))…,"
        " not …(' '::text || COALESCE(name, ''::text)) || ' '::text) || COALESCE(\"firstName\", ''::text)) …."
    )
