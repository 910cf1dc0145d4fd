"""If only a schema outside the search path has our tables, `dbstatus` names it, and `migrate` creates no second database unasked."""

import pytest

from tests.conftest import manage
from tests.database.test_home import schema_errors


@pytest.fixture
def renamed(migrated):
    migrated.execute("ALTER SCHEMA public RENAME TO old; CREATE SCHEMA public")
    return migrated


def test_the_schema_of_our_tables_is_named_and_migrate_refuses(renamed):
    [error] = schema_errors(renamed.url)
    refused = manage("migrate", url=renamed.url)

    message = "None of our tables is in the schema public, but the schema old, outside the search path, has them."
    cure = (
        f'Add ?schema=old to POSTGRES_URL, or: ALTER DATABASE "{renamed.name}" SET search_path TO "old";'
        " for another installation beside it, add ?schema=public, and `migrate` creates its tables there."
    )
    assert (error["severity"], error["message"], error["cure"]) == ("error", message, cure)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", f"Nothing was changed. {message} {cure}\n")
    assert renamed.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    assert schema_errors(f"{renamed.url}&schema=old") == []


def test_the_path_is_corrected_where_it_is_set(renamed):
    renamed.execute(f'ALTER ROLE CURRENT_USER IN DATABASE "{renamed.name}" SET search_path TO public')

    [error] = schema_errors(renamed.url)
    assert manage("migrate", url=renamed.url).stderr == f"Nothing was changed. {error['message']} {error['cure']}\n"
    renamed.execute(error["cure"].partition("or: ")[2].partition(";")[0])

    assert schema_errors(renamed.url) == []


def test_the_tables_of_another_project_of_django_are_none_of_ours(database):
    database.execute("CREATE SCHEMA blog; CREATE TABLE blog.users (id int); CREATE TABLE blog.django_migrations (id int)")

    assert schema_errors(database.url) == []


@pytest.mark.slow
def test_a_second_installation_is_created_where_the_url_names_its_schema(renamed):
    assert manage("migrate", url=f"{renamed.url}&schema=public").returncode == 0
    assert renamed.execute("SELECT to_regclass('public.users') IS NOT NULL, to_regclass('old.users') IS NOT NULL") == [
        (True, True)
    ]
