"""Differences from the contract with which every read and write works as before, and those that only look like them."""

import pytest
from django.db import connection

from fly2any.database.verification import verify
from fly2any.database.write_check import check_writes
from tests.database.test_writes import run


def found():
    return [
        (str(one.severity), one.code, one.where, one.message.rpartition(";")[2].strip()) for one in verify(connection).findings
    ]


SAME = "it works the same."
ACTIVE = "DROP INDEX price_alerts_active_idx; CREATE INDEX price_alerts_active_idx ON price_alerts (active)"
OWNER = 'ALTER TABLE user_preferences DROP CONSTRAINT "user_preferences_userId_key", ADD CONSTRAINT "user_preferences_userId_key" UNIQUE ("userId")'
AT = "price_alerts.price_alerts_active_idx"


@pytest.mark.sampled(8)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TABLE users ALTER phone TYPE varchar", ("note", "column.different", "users.phone", SAME)),
        ("ALTER TABLE users ALTER email TYPE varchar", ("note", "column.different", "users.email", SAME)),
        ("ALTER TABLE users ALTER id TYPE varchar", ("note", "column.different", "users.id", SAME)),
        ('ALTER TABLE sessions ALTER "userId" TYPE varchar', ("note", "column.different", "sessions.userId", SAME)),
        ('ALTER TABLE users ALTER "createdAt" TYPE timestamptz(3)', ("note", "column.different", "users.createdAt", "each time in milliseconds works the same.")),
        ("ALTER TABLE sessions ALTER expires TYPE timestamptz(6)", ("note", "column.different", "sessions.expires", "each time in milliseconds works the same.")),
        ("ALTER TABLE django_admin_log ALTER id TYPE bigint; ALTER TABLE django_admin_log ALTER id RESTART 3000000000",
         ("note", "column.different", "django_admin_log.id", "each value that fits into integer works the same.")),
        ('ALTER TABLE price_alerts ALTER "notificationCount" TYPE bigint',
         ("note", "column.different", "price_alerts.notificationCount", "each value that fits into integer works the same.")),
        ('ALTER TABLE price_alerts ALTER "notificationCount" TYPE bigint, ALTER "notificationCount" SET DEFAULT 0::bigint',
         ("note", "column.different", "price_alerts.notificationCount", "each value that fits into integer works the same.")),
        ("ALTER TABLE auth_group ALTER id TYPE bigint",
         ("note", "column.different", "auth_group.id", "each value that fits into integer works the same.")),
        ("ALTER TABLE auth_permission ALTER name TYPE text",
         ("note", "column.different", "auth_permission.name", "each value that fits into character varying(255) works the same.")),
        ("ALTER TABLE auth_permission ALTER codename TYPE varchar(255)",
         ("note", "column.different", "auth_permission.codename", "each value that fits into character varying(100) works the same.")),
        ("ALTER TABLE django_session ALTER session_key TYPE varchar",
         ("note", "column.different", "django_session.session_key", "each value that fits into character varying(40) works the same.")),
        ("ALTER TABLE django_admin_log ALTER action_flag TYPE integer",
         ("note", "column.different", "django_admin_log.action_flag", "each value that fits into smallint works the same.")),
        ("ALTER TABLE price_alerts ALTER id SET DEFAULT gen_random_uuid()::text",
         ("note", "default.extra", "price_alerts.id", "it is harmless: only an insert without a value uses it.")),
        (f"{ACTIVE} INCLUDE (id)", ("note", "index.different", AT, SAME)),
        (f'{ACTIVE} INCLUDE (id, "createdAt")', ("note", "index.different", AT, SAME)),
        (f"{OWNER} INCLUDE (currency)", ("note", "unique.different", "user_preferences.user_preferences_userId_key",
                                         "a write fails where currency exceeds 2,704 bytes after compression.")),
        (f'{OWNER} INCLUDE ("updatedAt")', ("note", "unique.different", "user_preferences.user_preferences_userId_key", SAME)),
        (OWNER.replace("UNIQUE", "UNIQUE NULLS NOT DISTINCT"), ("note", "unique.different", "user_preferences.user_preferences_userId_key", SAME)),
        ('DROP INDEX "users_createdAt_idx"; CREATE INDEX "users_createdAt_idx" ON users ("createdAt" DESC)',
         ("note", "index.different", "users.users_createdAt_idx", "it is read backwards and serves the same queries.")),
        ('DROP INDEX "users_createdAt_idx"; CREATE INDEX "users_createdAt_idx" ON users ("createdAt", id)', ("note", "index.different", "users.users_createdAt_idx", SAME)),
        (f"{ACTIVE} INCLUDE (origin)", ("note", "index.different", AT, "a write fails where origin exceeds 2,704 bytes after compression.")),
    ],
)  # fmt: skip
def test_what_works_the_same_is_a_note(sql, expected):
    if "NULLS NOT DISTINCT" in sql and connection.pg_version < 150000:
        return
    run(sql)

    assert found() == [expected]
    assert check_writes(connection).error is None


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('ALTER TABLE users DROP CONSTRAINT users_email_key; CREATE UNIQUE INDEX users_email_key ON users (email)',
         [("warning", "unique.different", "users.users_email_key")]),
        ('ALTER TABLE users DROP CONSTRAINT users_email_key, ADD CONSTRAINT users_email_key UNIQUE (email) DEFERRABLE',
         [("error", "unique.different", "users.users_email_key")]),
        ('ALTER TABLE price_alerts ALTER "notificationCount" TYPE smallint', [("error", "column.different", "price_alerts.notificationCount")]),
        ('ALTER TABLE price_alerts ALTER "notificationCount" TYPE bigint, ALTER "notificationCount" SET DEFAULT 1::bigint',
         [("note", "column.different", "price_alerts.notificationCount"), ("error", "default.different", "price_alerts.notificationCount")]),
        ("ALTER TABLE sessions ALTER expires TYPE timestamptz(0)", [("error", "column.different", "sessions.expires")]),
        ("ALTER TABLE auth_permission ALTER codename TYPE varchar(99)", [("error", "column.different", "auth_permission.codename")]),
        ('ALTER TABLE auth_permission ALTER name TYPE text COLLATE "C"', [("error", "column.different", "auth_permission.name")]),
        ("ALTER TABLE users ALTER phone TYPE varchar(40)", [("error", "column.different", "users.phone")]),
        ('ALTER TABLE users ALTER phone TYPE varchar COLLATE "C"', [("error", "column.different", "users.phone")]),
        ("ALTER TABLE users ALTER phone SET DEFAULT '0'", [("warning", "default.extra", "users.phone")]),
        ("ALTER TABLE user_preferences ALTER currency TYPE varchar", [("note", "column.different", "user_preferences.currency")]),
        ("ALTER TABLE user_preferences ALTER currency TYPE varchar, ALTER currency SET DEFAULT 'EUR'",
         [("note", "column.different", "user_preferences.currency"), ("error", "default.different", "user_preferences.currency")]),
        ("DROP INDEX users_staff_idx; CREATE INDEX users_staff_idx ON users (\"createdAt\") INCLUDE (bio) WHERE \"isStaff\"",
         [("error", "index.different", "users.users_staff_idx")]),
        ('DROP INDEX "users_createdAt_idx"; CREATE INDEX "users_createdAt_idx" ON users ("createdAt" DESC NULLS LAST)',
         [("error", "index.different", "users.users_createdAt_idx")]),
        *(
            (f'DROP INDEX "users_createdAt_idx"; CREATE INDEX "users_createdAt_idx" ON users {columns}', [("error", "index.different", "users.users_createdAt_idx")])
            for columns in ('(id, "createdAt")', '("createdAt", bio)', '("createdAt", (1 / length(id)))', '("createdAt" DESC, id)')
        ),
        ("DROP INDEX price_alerts_active_idx; CREATE INDEX price_alerts_active_idx ON price_alerts (active, id) INCLUDE (\"createdAt\")",
         [("error", "index.different", AT)]),
    ],
)  # fmt: skip
def test_what_only_looks_like_it_keeps_its_severity(sql, expected):
    run(sql)

    assert [one[:3] for one in found()] == expected


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("default", "why"),
    [
        ("now()", None),
        ("transaction_timestamp()", None),
        ("statement_timestamp()", "; it is harmless: a row gets the time of the statement, not of the beginning of its transaction."),
        ("clock_timestamp()", "; it is harmless: a row gets the time when it is written, not of the beginning of its transaction."),
        ("CURRENT_TIMESTAMP(3)", "; it is harmless: a row gets a time with 3 digits after the second."),
        ("('now'::text)::timestamp with time zone", "; it is harmless: a row gets the same time."),
        ("CURRENT_TIMESTAMP(0)", "."),
        ("LOCALTIMESTAMP", "."),
        ("(now() + '1 day'::interval)", "."),
    ],
)  # fmt: skip
def test_another_time_of_the_same_insert_is_a_note(default, why):
    run(f'ALTER TABLE price_alerts ALTER "createdAt" SET DEFAULT {default}')

    findings = verify(connection).findings

    assert [(one.severity, one.code, one.message) for one in findings] == (
        [
            (
                "error" if why == "." else "note",
                "default.different",
                f"Column createdAt of price_alerts has the default {default}, not CURRENT_TIMESTAMP{why}",
            )
        ]
        if why
        else []
    )
    for finding in findings:
        run(finding.cure)
    assert found() == []


KEY = "accounts_userId_fkey"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sql", "how", "since"),
    [
        ("ALTER TABLE accounts DISABLE TRIGGER ALL", "has disabled triggers", 14),
        (f'ALTER TABLE accounts ALTER CONSTRAINT "{KEY}" NOT ENFORCED', "is NOT ENFORCED", 18),
    ],
)
def test_a_foreign_key_that_is_not_enforced_says_why(sql, how, since):
    if connection.pg_version < since * 10_000:
        return
    run(sql)

    (finding,) = [one for one in verify(connection).findings if one.code == "foreign_key.weaker"]

    assert finding.message == f"Foreign key {KEY} of accounts {how}: orphans can be stored."


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["", "NOT VALID"])
def test_a_check_in_place_of_not_null_is_not_reported_beside_it(how):
    """It refuses only what the contract refuses: to drop it as well would leave nothing that does."""
    run(f"ALTER TABLE price_alerts ALTER currency DROP NOT NULL, ADD CONSTRAINT kept CHECK (currency IS NOT NULL) {how}")

    assert [(one.code, one.where) for one in verify(connection).findings] == [("column.weaker", "price_alerts.currency")]
    run("ALTER TABLE price_alerts ADD CONSTRAINT narrow CHECK (length(origin) = 3)")
    assert [one.where for one in verify(connection).findings if one.code == "check.extra"] == ["price_alerts.narrow"]
