"""Commands on a worker, and on the coordinator while a worker is stopped: one sentence, no traceback, and no wait without a limit."""

import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace

from tests.citus.test_migrate import run
from tests.conftest import manage

WRITING = (
    ["migrate"],
    ["dbmaintain", "weekly"],
    ["dbseed", "--users", "5", "--yes", "--production"],
    ["dbreset", "--yes", "--without-backup"],
    ["dbbackup"],
    ["flush", "--yes", "--without-backup"],
)
SIGN_IN = """
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
user = get_user_model().objects.create_superuser("root@example.com", "a-long-password-1")
client = Client(HTTP_HOST="localhost")
client.force_login(user, backend="fly2any.administration.backends.PasswordBackend")
print(client.cookies[settings.SESSION_COOKIE_NAME].value)
"""
# Pages of tables that each node has whole are shown.
PAGES = """
from django.conf import settings
from django.test import Client
settings.SECOND_FACTOR = False
client = Client(HTTP_HOST="localhost", raise_request_exception=False)
client.cookies[settings.SESSION_COOKIE_NAME] = "{session}"
print(*(client.get(page, secure=True).status_code for page in ("/admin/", "/admin/travel/pricehistory/", "/admin/accounts/user/")))
"""


def workers(coordinator):
    found = coordinator.execute("SELECT nodename, nodeport::text FROM pg_dist_node WHERE groupid > 0 ORDER BY nodeid")
    return [replace(coordinator, host=host, port=port) for host, port in found]


@contextmanager
def stopped(node):
    """Stop a server on this machine."""
    [(folder,)], [(programs,)] = (
        node.execute("SHOW data_directory"),
        node.execute("SELECT setting FROM pg_config WHERE name = 'BINDIR'"),
    )

    def control(*words):
        subprocess.run(
            [f"{programs}/pg_ctl", "-D", folder, "-w", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            user=os.stat(folder).st_uid,
        )

    control("-m", "fast", "stop")
    try:
        yield
    finally:
        control("-l", f"{folder}/log", "start")


def test_commands_that_write_refuse_on_a_worker(distributed, tmp_path):
    worker = workers(distributed)[0]

    for words in WRITING:
        refused = manage(*words, url=worker.url, BACKUP_LOCATION=str(tmp_path))
        assert (refused.returncode, refused.stderr) == (
            2,
            "This server is a worker of Citus: set POSTGRES_URL to the coordinator, and run the command again.\n",
        ), words
    status = manage("dbstatus", url=worker.url)
    assert "Engine       Citus 13.2, a worker: the coordinator has the tables\n" in status.stdout
    assert "distribution.worker" in status.stdout


def test_a_stopped_worker_is_named_and_nothing_waits_for_it(distributed, tmp_path):
    run(distributed, "dbseed", "--users", "5", "--yes", "--production")
    session = run(distributed, "shell", "-v0", "-c", SIGN_IN).strip()
    worker = workers(distributed)[1]
    place = {"url": distributed.url, "BACKUP_LOCATION": str(tmp_path / "b"), "timeout": 120}

    with stopped(worker):
        status = manage("dbstatus", **place)
        health = manage("dbhealth", **place)
        pages = manage("shell", "-v0", "-c", PAGES.format(session=session), **place)
        distribute = manage("dbdistribute", **place)
        backup = manage("dbbackup", **place)
        maintain = manage("dbmaintain", "weekly", "--trust-clock", RETENTION="price_history=1", **place)
    after = manage("dbstatus", **place)

    name = f"{worker.host}:{worker.port}"
    sentence = (
        f"The node {name} of Citus does not answer: start it, or repair its network (`manage.py dbstatus` shows the nodes).\n"
    )
    assert (status.returncode, f"ERROR   distribution.node at {name}\n" in status.stdout, status.stderr) == (4, True, "")
    assert (health.returncode, health.stderr) == (4, "")
    assert pages.stdout.endswith("503 503 200\n")
    assert (distribute.returncode, distribute.stderr.partition(" (")[0]) == (2, f"The node {name} does not answer")
    assert (backup.returncode, backup.stderr, [*(tmp_path / "b").glob("*.json")]) == (2, sentence, [])
    assert (maintain.returncode, "Traceback" in maintain.stderr) == (4, False)
    assert "distribution." not in after.stdout
