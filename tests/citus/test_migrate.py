"""Migrations and dbreset on a distributed database."""

from fly2any.database.schema.contract import PHASE7_APPS, load
from tests.citus.test_dbdistribute import PLANNED, placed
from tests.conftest import manage
from tests.servers import recorded


def run(database, *words):
    result = manage(*words, url=database.url)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_each_migration_is_reversed_and_applied_again(distributed):
    run(distributed, "dbseed", "--users", "10", "--yes", "--production")

    for app in reversed(PHASE7_APPS):
        run(distributed, "migrate", app, "0001", "--yes", "--without-backup")
    assert [recorded(distributed, app) for app in PHASE7_APPS] == [["0001_initial"]] * 4
    run(distributed, "migrate")

    assert sum(len(recorded(distributed, app)) for app in PHASE7_APPS) == sum(
        one.partition(".")[0] in PHASE7_APPS for one in load().migrations
    )
    assert placed(distributed) == PLANNED
    assert "0 findings (exit code 0)" in run(distributed, "dbstatus")


def test_a_reset_drops_distributed_tables_and_migrate_creates_plain_ones(distributed):
    run(distributed, "dbseed", "--users", "10", "--yes", "--production")

    run(distributed, "dbreset", "--yes", "--without-backup")
    assert placed(distributed) == {}
    run(distributed, "migrate")
    assert "0 findings (exit code 0)" in run(distributed, "dbstatus")
    run(distributed, "dbdistribute", "--yes")

    assert placed(distributed) == PLANNED
    assert "0 findings (exit code 0)" in run(distributed, "dbstatus")
