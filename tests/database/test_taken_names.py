"""Names that pending migrations need, and that other objects have."""

import pytest

from fly2any.database.verification import verify
from tests.conftest import django, manage

TAKEN = {
    "CREATE TYPE price_alerts AS ENUM ('a')": ("price_alerts", "travel.0001_initial", "a type"),
    "CREATE DOMAIN users AS text": ("users", "accounts.0001_initial", "a domain"),
    "CREATE SEQUENCE price_history": ("price_history", "travel.0001_initial", "a sequence"),
    "CREATE TYPE wishlist_items AS (a int)": ("wishlist_items", "engagement.0001_initial", "a type"),
    'CREATE TABLE theirs (id int); CREATE INDEX "users_email_key" ON theirs (id)': (
        "users_email_key",
        "accounts.0001_initial",
        "an index",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("statement", TAKEN)
def test_a_name_that_another_object_has_is_refused_before_the_first_migration(database, statement):
    name, migration, kind = TAKEN[statement]
    database.execute(statement)

    result = manage("migrate", url=database.url)
    with django(database) as connection:
        [found] = [one for one in verify(connection).findings if one.code == "migrations.name_taken"]
    [(owner, tables)] = database.execute(
        "SELECT current_user::text, count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'theirs'"
    )

    sentence = f"{migration} cannot create {name}: {kind} of the role {owner} already has this name"
    rename = f'ALTER {kind.split()[1].upper()} "{name}" RENAME TO "{name}_old";'
    assert (result.returncode, result.stderr, tables) == (
        2,
        f"{sentence}. Ask that role, then rename the object ({rename}) or drop it. Nothing was changed.\n",
        0,
    )
    assert (found.where, found.message) == (name, f"{sentence}. `migrate` refuses to run.")
    database.execute(rename)
    assert manage("migrate", url=database.url).returncode == 0


def test_a_name_of_a_later_migration_is_found_when_it_is_pending(migrated):
    index = '"price_alerts_route_createdAt_idx"'
    migrated.execute(f"DROP INDEX {index}; CREATE SEQUENCE {index}")
    migrated.execute("DELETE FROM django_migrations WHERE app = 'travel' AND name = '0005_alert_route_index'")

    with django(migrated) as connection:
        found = [(one.code, one.where) for one in verify(connection).findings]

    assert found == [("migrations.name_taken", "price_alerts_route_createdAt_idx")]
