"""A constraint or an index over an unmanaged generated column is judged as one over the column's expression."""

import pytest
from django.db import Error, connection, transaction

from fly2any.database.schema.unmanaged import AGREE
from fly2any.database.verification import verify
from tests.database.test_writes import run

USER = "INSERT INTO users (id, email, \"updatedAt\") VALUES ('{0}', '{1}', now())"
TITLE = "INSERT INTO notifications (id, \"userId\", type, title, message) VALUES ('n', 'a', 'x', '{0}', '{1}')"
LONG = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 400) AS n)"
ALERT = (
    'INSERT INTO price_alerts (id, "userId", origin, destination, "departDate", "currentPrice", "targetPrice", currency, "updatedAt")'
    " VALUES ('p', 'a', 'LIS', 'JFK', '2030-01-01', 1, 1, '{0}', now())"
)


def fails(statement):
    try:
        with transaction.atomic():
            run(statement)
    except Error:
        return True
    return False


CASES = {
    "lower-case e-mail addresses": (
        "ALTER TABLE users ADD theirs text GENERATED ALWAYS AS (lower(email)) STORED; CREATE UNIQUE INDEX theirs_u ON users (theirs)",
        ("warning", "unique.extra", "users.theirs_u", "refuses rows that the contract allows, such as email = 'a' beside email = 'A'."),
        [(USER.format("b", "b@x"), False), (USER.format("c", "A@x"), True)],
    ),
    "a unique constraint": (
        "ALTER TABLE users ADD theirs text GENERATED ALWAYS AS (lower(email)) STORED CONSTRAINT theirs_u UNIQUE",
        ("warning", "unique.extra", "users.theirs_u", "refuses rows that the contract allows, such as email = 'a' beside email = 'A'."),
        [(USER.format("b", "b@x"), False), (USER.format("c", "A@x"), True)],
    ),
    "a constant": (
        "ALTER TABLE users ADD theirs text GENERATED ALWAYS AS ('x'::text) STORED CONSTRAINT theirs_u UNIQUE",
        ("error", "unique.extra", "users.theirs_u", "refuses the second row that we INSERT."),
        [(USER.format("b", "b@x"), True)],
    ),
    "a check": (
        "ALTER TABLE notifications ADD theirs text GENERATED ALWAYS AS (upper(title)) STORED, ADD CONSTRAINT theirs_c CHECK (length(theirs) < 50)",
        ("warning", "check.extra", "notifications.theirs_c", "refuses rows that the contract allows, such as title = repeat('a', 300)."),
        [(TITLE.format("short", "m"), False), (TITLE.format("t" * 60, "m"), True)],
    ),
    "a check of a virtual column": (
        "ALTER TABLE notifications ADD theirs text GENERATED ALWAYS AS (upper(title)) VIRTUAL, ADD CONSTRAINT theirs_c CHECK (length(theirs) < 50)",
        ("warning", "check.extra", "notifications.theirs_c", "refuses rows that the contract allows, such as title = repeat('a', 300)."),
        [(TITLE.format("short", "m"), False), (TITLE.format("t" * 60, "m"), True)],
    ),
    "an index": (
        "ALTER TABLE notifications ADD theirs text GENERATED ALWAYS AS (upper(message)) STORED; CREATE INDEX theirs_i ON notifications (theirs)",
        ("warning", "index.extra", "notifications.theirs_i", "a write fails where theirs exceeds 2,704 bytes after compression"),
        [(TITLE.format("t", "m"), False), (TITLE.format("t", "m").replace("'m'", LONG), True)],
    ),
    "a foreign key": (
        "CREATE TABLE theirs (code text PRIMARY KEY); INSERT INTO theirs VALUES ('USD');"
        " ALTER TABLE price_alerts ADD theirs text GENERATED ALWAYS AS (upper(currency)) STORED CONSTRAINT theirs_f REFERENCES theirs",
        ("warning", "foreign_key.extra", "price_alerts.theirs_f", "refuses rows that the contract allows."),
        [(ALERT.format("USD"), False), (ALERT.format("EUR"), True)],
    ),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize("case", CASES)
def test_what_is_over_a_generated_column_is_judged_by_its_expression(case):
    made, (severity, code, where, said), writes = CASES[case]
    if "VIRTUAL" in made and connection.pg_version < 180000:
        pytest.skip("PostgreSQL 18 is the first that has virtual generated columns")
    run(USER.format("a", "a@x"), made)

    happened = [fails(statement) for statement, _ in writes]
    findings = [one for one in verify(connection).findings if one.code != "column.extra"]
    for one in findings:
        run(one.cure.removeprefix(AGREE).replace(" CONCURRENTLY", ""))

    assert happened == [refused for _, refused in writes]
    assert [(one.severity, one.code, one.where) for one in findings] == [(severity, code, where)]
    assert said in findings[0].message
    assert [one for one in verify(connection).findings if one.code != "column.extra"] == []


@pytest.mark.django_db
def test_a_unique_digest_of_a_key_of_ours_is_a_note():
    run('ALTER TABLE sessions ADD theirs text GENERATED ALWAYS AS (md5("sessionToken")) STORED CONSTRAINT theirs_u UNIQUE')

    assert [(one.severity, one.code, one.where) for one in verify(connection).findings] == [
        ("note", "unique.extra", "sessions.theirs_u")
    ]


@pytest.mark.django_db
def test_one_statement_cures_a_column_and_creates_the_indexes_over_what_is_generated_from_it():
    run(
        "ALTER TABLE users ALTER phone TYPE varchar(80), ALTER phone SET NOT NULL",
        "ALTER TABLE users ADD theirs text GENERATED ALWAYS AS (lower(phone)) STORED NOT NULL, ADD theirs_k text GENERATED ALWAYS AS (upper(phone)) STORED UNIQUE",
        "CREATE UNIQUE INDEX theirs_i ON users (theirs) INCLUDE (name)",
        "ALTER TABLE users REPLICA IDENTITY USING INDEX theirs_i",
    )
    before = over_theirs()
    finding = next(one for one in verify(connection).findings if one.where == "users.phone")

    run(finding.cure)

    assert over_theirs() == before
    assert (
        finding.loses
        == "it creates users.theirs, users.theirs_k again, without the privileges, comments and statistics: ask the owner first"
    )
    assert [line for line in finding.cure.splitlines() if not line.startswith(("ALTER TABLE", "CREATE UNIQUE INDEX"))] == [
        "DO $$ BEGIN", "END $$;", 'ANALYZE "users" ("phone");',
    ]  # fmt: skip


def over_theirs():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_indexdef(indexrelid), indisreplident FROM pg_index"
            " WHERE indrelid = 'users'::regclass AND pg_get_indexdef(indexrelid) LIKE '%theirs%' ORDER BY 1"
        )
        return cursor.fetchall()
