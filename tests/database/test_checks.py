"""What `manage.py check --database default` reports."""

import pytest
from django.core.checks import run_checks
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from tests.conftest import django, manage
from tests.database.test_dbstatus import run


def checked(alias="default"):
    return [(one.id, one.level, one.obj, one.msg, one.hint) for one in run_checks(tags=["database"], databases=[alias])]


@pytest.mark.django_db
def test_a_healthy_database_has_no_message_and_each_problem_has_its_own():
    assert checked() == []

    run('DROP INDEX "price_alerts_active_idx"')
    run("ALTER TABLE users ADD seen int DEFAULT 0; CREATE INDEX a ON users (seen)")
    last = MigrationRecorder(connection).migration_qs.filter(app="administration").latest("name")
    last.delete()
    cure = 'CREATE INDEX CONCURRENTLY "price_alerts_active_idx" ON "price_alerts" USING btree ("active");'
    missing = "index.missing: Index price_alerts_active_idx of price_alerts is missing."
    pending = f"Migrations are pending: {last.app}.{last.name}."

    assert checked() == [
        ("fly2any.E001", 40, "price_alerts.price_alerts_active_idx", missing, cure),
        ("fly2any.E002", 40, "default", pending, "Run `manage.py migrate`."),
    ]

    run("DROP EXTENSION pg_trgm CASCADE")
    gone = "The extension pg_trgm is not installed in this database."
    assert checked()[-1] == ("fly2any.E003", 40, "default", gone, "CREATE EXTENSION pg_trgm;")


def test_a_prisma_database_is_referred_to_dbadopt_and_an_empty_one_to_migrate(exact, database):
    with django(exact) as opened:
        assert [one[0] for one in checked(opened.alias)] == ["fly2any.E001", "fly2any.E004"]
        assert checked(opened.alias)[1][3] == "Prisma created the tables, and they have not been adopted."


def test_the_command_asks_only_where_a_database_is_named_and_migrate_never(database):
    named = manage("check", "--database", "default", url=database.url)
    without = manage("check", url=database.url)

    assert (named.returncode, without.returncode) == (1, 0)
    assert "default: (fly2any.E002) Migrations are pending: contenttypes.0001_initial, " in named.stderr
    assert manage("migrate", "contenttypes", url=database.url).returncode == 0


@pytest.mark.parametrize(("place", "ids"), [("", ["fly2any.W002"]), ("/var/backups/fly2any", [])])
def test_a_deployment_without_backups_gets_a_warning(settings, place, ids):
    settings.BACKUPS = {**settings.BACKUPS, "location": place}

    assert [one.id for one in run_checks(tags=["backups"], include_deployment_checks=True)] == ids
    assert run_checks(tags=["backups"]) == []
