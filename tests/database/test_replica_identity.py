"""Cures of a key or an index by which a publication identifies rows: no write fails before, during or after them."""

import pytest
from django.db import connection

from fly2any.database.schema.unmanaged_findings import AGREE
from tests.database.test_moved_tables import drift
from tests.database.test_writes import run

DROP = 'ALTER TABLE user_preferences DROP CONSTRAINT "user_preferences_userId_key"'
PUBLISHED = "ALTER TABLE user_preferences REPLICA IDENTITY USING INDEX {}; CREATE PUBLICATION theirs FOR TABLE user_preferences"
OWN = '"user_preferences_userId_key"'


def identity():
    with connection.cursor() as cursor:
        cursor.execute("SELECT COALESCE((SELECT indexrelid::regclass::text FROM pg_index WHERE indisreplident), relreplident::text)"
                       " FROM pg_class WHERE relname = 'user_preferences'")  # fmt: skip
        return cursor.fetchone()[0]


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("damage", "code", "kept"),
    [
        (f'{DROP}, ADD CONSTRAINT "user_preferences_userId_key" UNIQUE ("userId", id); {PUBLISHED.format(OWN)}', "unique.weaker", OWN),
        (f'{DROP}, ADD CONSTRAINT "user_preferences_userId_key" UNIQUE ("userId") INCLUDE (currency); {PUBLISHED.format(OWN)}', "unique.different", OWN),
        (f'{DROP}; CREATE UNIQUE INDEX "user_preferences_userId_key" ON user_preferences ("userId") INCLUDE (currency); {PUBLISHED.format(OWN)}', "unique.missing", OWN),
        (f'CREATE UNIQUE INDEX theirs ON user_preferences (currency); {PUBLISHED.format("theirs")}', "unique.extra", "d"),
    ],
)  # fmt: skip
def test_writes_to_a_published_table_work_while_its_identity_is_replaced(damage, code, kept):
    run(damage)

    (finding,) = (one for one in drift() if one.code == code)

    statements = finding.cure.removeprefix(AGREE).replace(" CONCURRENTLY", "").splitlines()
    for statement in statements:
        if not statement.startswith("--"):
            run(statement, "UPDATE user_preferences SET currency = 'EUR'", "DELETE FROM user_preferences")
    assert identity() == kept
    assert drift() == ()


@pytest.mark.django_db
def test_the_identity_is_not_given_to_an_index_that_cannot_have_it():
    run("DROP INDEX users_staff_idx; CREATE UNIQUE INDEX users_staff_idx ON users (id)")
    run("ALTER TABLE users REPLICA IDENTITY USING INDEX users_staff_idx")

    (finding,) = drift()

    assert 'ALTER TABLE "users" REPLICA IDENTITY DEFAULT;' in finding.cure.splitlines()
    run(finding.cure.replace(" CONCURRENTLY", ""))
    assert drift() == ()
