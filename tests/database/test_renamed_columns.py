"""Columns that a tool renamed, such as firstName to firstname or first_name: no column is added empty beside one with its values."""

import re

import pytest
from django.db import connection

from fly2any.database.verification import verify
from tests.database.mutation import EXPECTED, at, q
from tests.database.test_writes import run

PERSON = """INSERT INTO users (id, email, "firstName", "lastName", "updatedAt") VALUES ('a', 'a@example.com', 'Ana', 'Lima', now())"""
RENAME = 'ALTER TABLE users RENAME "firstName" TO {}; ALTER TABLE users RENAME "lastName" TO {}'
BY_NAME = {
    "lower case": ("firstname", "lastname"),
    "snake_case": ("first_name", "last_name"),
    "one by its definition": ("first_name", "surname"),
}


def described():
    """The place, code, message and reason of each finding about a column, and all cures."""
    findings = verify(connection).findings
    of_columns = [one for one in findings if one.code.startswith("column.")]
    return [(one.where, one.code, one.message, one.loses) for one in of_columns], [one.cure for one in findings]


def names():
    with connection.cursor() as cursor:
        cursor.execute('SELECT "firstName", "lastName" FROM users')
        return cursor.fetchone()


@pytest.mark.django_db
@pytest.mark.parametrize("case", BY_NAME)
def test_columns_of_one_definition_are_told_apart_by_their_names(case):
    run(PERSON, RENAME.format(*BY_NAME[case]))

    found, cures = described()

    assert found == [
        (
            f"users.{ours}", "column.renamed",
            f"Column {ours} of users is missing, and {theirs} has its definition: it was probably renamed; check its values before you rename it back.",
            "it may belong to another program; check its values first",
        )
        for ours, theirs in zip(("firstName", "lastName"), BY_NAME[case], strict=True)
    ]  # fmt: skip
    run(*cures)
    assert names() == ("Ana", "Lima")
    assert verify(connection).findings == ()


@pytest.mark.django_db
def test_a_column_is_not_added_unread_where_another_may_be_it():
    run(PERSON, RENAME.format("vorname", "nachname"), "ALTER TABLE users ADD theirs text")

    found, cures = described()

    assert found == [
        (
            f"users.{name}", "column.missing",
            f"Column {name} of users is missing, unless nachname, theirs or vorname is the same column, renamed: check the values, then rename that column"
            " back; otherwise restore the values from a backup, or add the column empty.",
            "nachname, theirs or vorname may be the same column, renamed",
        )
        for name in ("firstName", "lastName")
    ]  # fmt: skip
    assert cures[:2] == [f'ALTER TABLE "users" ADD COLUMN "{name}" text;' for name in ("firstName", "lastName")]
    [index] = [one for one in verify(connection).findings if one.code == "index.different"]
    assert (index.where, index.loses) == ("users.users_words_trgm_idx", "it needs users.firstName and users.lastName first")


@pytest.mark.django_db
def test_a_renamed_column_of_another_type_is_renamed_before_its_type_is_changed():
    run(PERSON, 'ALTER TABLE users RENAME "firstName" TO first_name; ALTER TABLE users ALTER first_name TYPE varchar(99)')

    found, cures = described()

    assert [(where, code) for where, code, *_ in found] == [
        ("users.firstName", "column.renamed"),
        ("users.firstName", "column.different"),
    ]
    assert " and first_name has its name except for case and underscores: " in found[0][2]
    run(*cures)
    assert names() == ("Ana", "Lima")
    assert verify(connection).findings == ()


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.parametrize("rename", [str.lower, lambda name: re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", name)])
def test_all_columns_that_a_tool_renamed_are_renamed_back(rename):
    columns = [column for column in EXPECTED.columns if column.name != column.name.lower()]
    run(*(f"ALTER TABLE {q(one.table)} RENAME {q(one.name)} TO {q(rename(one.name))}" for one in columns))

    found, cures = described()

    assert {where for where, code, *_ in found if code == "column.renamed"} == {at(one) for one in columns}
    assert {code for _, code, *_ in found} == {"column.renamed"}
    run(*cures)
    assert verify(connection).findings == ()
