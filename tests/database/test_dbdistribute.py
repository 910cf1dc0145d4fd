"""dbdistribute where a database cannot be distributed; tests/citus has the rest."""

from dataclasses import replace

import pytest

from fly2any.database.distribution.cluster import Cluster, Node
from tests.conftest import manage

COORDINATOR = Node(1, 0, "c:5432", True, False, "logical")
WORKER = Node(2, 1, "w:5432", True, True, "logical", "pgoutput, citus")
FIT = Cluster("13.2", 0, (COORDINATOR, WORKER))


@pytest.mark.parametrize("arguments", [[], ["--yes"], ["--undo"], ["--undo", "--yes"]])
def test_a_database_without_citus_is_refused(migrated, arguments):
    refused = manage("dbdistribute", *arguments, url=migrated.url)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "This database has no Citus: install it on this server and on each worker, then run CREATE EXTENSION citus"
        " (docs/how-to/distribute.md).\n"
    )


def test_a_pooler_is_refused(migrated):
    refused = manage("dbdistribute", url=f"{migrated.url}&pgbouncer=true")

    assert refused.returncode == 2
    assert refused.stderr.startswith("POSTGRES_URL goes through PgBouncer's transaction pooler: set POSTGRES_URL_NON_POOLING")


def test_a_cluster_that_fits_is_accepted():
    assert FIT.unfit() == ""
    assert FIT.workers == (WORKER,)


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        (replace(FIT, version="12.1"), "Citus 12.1 is too old: upgrade it to 13.2 or later on each node."),
        (replace(FIT, group=2), "This server is a worker: connect to the coordinator, and run the command again."),
        (
            replace(FIT, nodes=(WORKER,)),
            "The coordinator is not registered, which foreign keys to reference tables need: run SELECT citus_set_coordinator_host('HOST', PORT);",
        ),
        (
            replace(FIT, nodes=(COORDINATOR,)),
            "No worker is registered: run SELECT citus_add_node('HOST', PORT); on the coordinator for each one.",
        ),
        (
            replace(FIT, nodes=(COORDINATOR, replace(WORKER, active=False))),
            "The node w:5432 is disabled: repair or remove it, and run the command again.",
        ),
        (
            replace(FIT, nodes=(COORDINATOR, replace(WORKER, error="connection refused"))),
            "The node w:5432 does not answer (connection refused): repair or remove it, and run the command again.",
        ),
        (
            replace(FIT, nodes=(replace(COORDINATOR, wal_level="replica"), WORKER)),
            "wal_level is replica on c:5432: set it to logical on each node, and restart the nodes.",
        ),
        (
            replace(FIT, nodes=(COORDINATOR, replace(WORKER, output_plugins="pgoutput, test_decoding"))),
            "output_plugin_libraries on w:5432 lacks citus: add it on each node, and reload their configuration.",
        ),
    ],
)
def test_a_cluster_that_does_not_fit_is_refused_with_the_cure(cluster, reason):
    assert cluster.unfit() == reason
