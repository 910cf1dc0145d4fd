"""The extension that our indexes need, created or held by a role that is not trusted."""

import pytest
from django.db import transaction

from fly2any.database.adoption import assess
from fly2any.database.errors import Refusal
from fly2any.database.extensions import SERVICES, read_untrusted
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Progress
from fly2any.database.sql import execute
from fly2any.database.verification import verify
from tests.conftest import django, manage
from tests.database.other_roles import migrates

MAKES = "CREATE SCHEMA mal AUTHORIZATION {0}; GRANT CREATE ON DATABASE {1} TO {0}; SET ROLE {0}; CREATE EXTENSION pg_trgm SCHEMA mal"
DROPS = "which may be another tenant's and may drop"


def found(database):
    with django(database) as opened:
        findings = [one for one in verify(opened).findings if one.code == "extensions.untrusted"]
    return [(one.severity.value, one.where, one.message, one.cure) for one in findings]


def test_an_extension_of_another_role_is_found_and_no_index_is_built_with_it(database, other_role_of):
    role = other_role_of(database)
    database.execute(MAKES.format(role, database.name))
    message = (
        f"The extension pg_trgm belongs to the role {role}, {DROPS} it, and with it the indexes of the table users that use it."
    )
    cure = (
        'As a superuser: DROP EXTENSION pg_trgm CASCADE; CREATE EXTENSION pg_trgm SCHEMA "public"; CASCADE drops all indexes that use'
        " it: create ours again with the cures that `manage.py dbstatus` then prints. If the role is the site's: GRANT CREATE ON SCHEMA"
        f' "public" TO "{role}" WITH GRANT OPTION; instead.'
    )

    assert found(database) == [("error", "pg_trgm", message, cure)]
    result = manage("migrate", url=database.url)
    assert (result.returncode, result.stderr) == (2, f"{message} {cure}\n")
    assert database.execute("SELECT to_regclass('users')") == [(None,)]
    database.execute('DROP EXTENSION pg_trgm CASCADE; CREATE EXTENSION pg_trgm SCHEMA "public"')
    assert found(database) == []
    with django(database) as connection:
        migrates(connection, None)


def test_an_extension_that_another_role_creates_during_a_run_is_refused(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute("DROP EXTENSION pg_trgm CASCADE")

    with django(migrated) as connection, migrating(connection.alias, patience=1, progress=Progress()) as run:
        migrated.execute(MAKES.format(role, migrated.name))
        with (
            pytest.raises(Refusal, match=f"^The extension pg_trgm belongs to the role {role}, "),
            run.connection.cursor() as cursor,
        ):
            cursor.execute("CREATE INDEX CONCURRENTLY made ON users USING gin (email gin_trgm_ops)")
    assert migrated.execute("SELECT to_regclass('made')") == [(None,)]


@pytest.mark.slow
def test_it_blocks_an_adoption(exact, other_role_of):
    exact.execute(MAKES.format(other_role_of(exact), exact.name))
    with django(exact) as connection:
        assert ("extensions.untrusted", "pg_trgm") in [
            (one.finding.code, one.finding.where) for one in assess(connection).blockers
        ]


def test_a_schema_of_another_role_can_take_the_extension_with_it(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(f"CREATE SCHEMA mal AUTHORIZATION {role}; ALTER EXTENSION pg_trgm SET SCHEMA mal")
    cure = 'ALTER EXTENSION pg_trgm SET SCHEMA "public";'

    message = f"The extension pg_trgm is in the schema mal of the role {role}, {DROPS} the schema, and with it the indexes of the table users that use the extension."
    assert found(migrated) == [("error", "pg_trgm", message, f"As the owner of the extension: {cure}")]
    migrated.execute(cure)
    assert found(migrated) == []


@pytest.mark.parametrize("customers", SERVICES)
def test_the_customers_role_of_a_hosting_service_may_own_it(database, other_role_of, customers):
    role = other_role_of(database)
    database.execute(MAKES.format(role, database.name))
    with django(database) as connection, transaction.atomic():  # Roles belong to the whole server: these are not committed.
        execute(connection, f"CREATE ROLE {customers}; GRANT {customers} TO {role}")
        assert read_untrusted(connection, "public") is not None
        execute(connection, f"CREATE ROLE {SERVICES[customers]} SUPERUSER")
        assert read_untrusted(connection, "public") is None
        transaction.set_rollback(True)
