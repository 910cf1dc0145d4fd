"""Real faults on real servers: each ends with one sentence and its exit code, and loses nothing."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests import prisma
from tests.conftest import manage, recorded_migrations, start_manage
from tests.servers import DEBIANS, DebianServer, PgBouncer, certificate, wait_until

needs_debian = pytest.mark.skipif(not DEBIANS.exists(), reason="Debian's postgresql-15 is not installed")
needs_pgbouncer = pytest.mark.skipif(
    not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"), reason="pgbouncer is not installed"
)
HOST = "db.fly2any.example"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """Debian's server, which accepts TCP only with TLS, with certificates of its own authority and of another."""
    folder = tmp_path_factory.mktemp("tls")
    authority, made, key = certificate(folder, "right", HOST)
    other, *_ = certificate(folder, "wrong", HOST)
    server = DebianServer(folder, {"ssl": "on"})
    server.server.settings |= {"ssl_cert_file": server.give(made), "ssl_key_file": server.give(key)}
    server.hba("hostssl all all 127.0.0.1/32 trust")
    server.start().create_database()
    server.authority, server.other = authority, other
    yield server
    server.remove()


def at(server, parameters, host=HOST):
    return f"postgresql://postgres@{host}:{server.port}/fly2any?hostaddr=127.0.0.1{parameters}"


def refused(result):
    assert (result.returncode, result.stdout) == (2, "")
    (sentence,) = result.stderr.splitlines()
    return sentence


@pytest.mark.slow
@needs_debian
@pytest.mark.parametrize("parameters", ["", "&sslmode=require", "&sslmode=verify-full&sslrootcert={authority}"])
def test_over_tls_it_migrates_and_says_how(encrypted, parameters):
    url = at(encrypted, parameters.format(authority=encrypted.authority))

    assert manage("migrate", url=url).returncode == 0
    status = manage("dbstatus", url=url)

    assert status.returncode == 0
    assert "  TLS          TLSv1.3 " in status.stdout


@needs_debian
@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            "&sslmode=verify-full&sslrootcert={other}",
            "The server's certificate is not the one expected at 127.0.0.1, port {port}: correct sslrootcert and the host name in"
            " POSTGRES_URL, and do not connect to a server without the right certificate.",
        ),
        (
            "&sslmode=disable",
            "The server accepts this user from this machine only over TLS, or not at all: add ?sslmode=require to POSTGRES_URL,"
            " or a line to the server's pg_hba.conf.",
        ),
    ],
)
@pytest.mark.parametrize("command", ["migrate", "dbadopt"])
def test_a_wrong_certificate_and_no_encryption_are_refused(encrypted, parameters, sentence, command):
    result = manage(command, url=at(encrypted, parameters.format(other=encrypted.other)))

    assert refused(result) == sentence.format(port=encrypted.port)


@needs_debian
def test_a_certificate_of_another_host_is_refused(encrypted):
    url = at(encrypted, f"&sslmode=verify-full&sslrootcert={encrypted.authority}", host="other.example")

    assert refused(manage("migrate", url=url)).startswith("The server's certificate is not the one expected at 127.0.0.1, port")


@pytest.mark.slow
def test_a_remote_server_without_tls_is_refused_unless_allowed(own_server):
    server = own_server()
    url = f"postgresql://postgres@{HOST}:{server.port}/fly2any?hostaddr=127.0.0.1"

    assert refused(manage("migrate", url=url)) == (
        "The connection must be encrypted, but the server does not support TLS: turn on ssl on the server,"
        " or write sslmode=disable in POSTGRES_URL if the network is private."
    )
    assert manage("migrate", url=f"{url}&sslmode=disable").returncode == 0
    assert "server.tls" in manage("dbstatus", url=f"{url}&sslmode=disable").stdout


@pytest.fixture
def pooled(own_server, tmp_path):
    """A function that puts PgBouncer in front of a server."""
    server = own_server()
    poolers = []

    def start(mode):
        home = tmp_path / mode
        home.mkdir()
        poolers.append(PgBouncer(home, server.port, mode))
        return server, poolers[-1]

    yield start
    for pooler in poolers:
        pooler.remove()


REASON = (
    "POSTGRES_URL goes through a transaction pooler: set POSTGRES_URL_NON_POOLING or DIRECT_URL to the database's direct URL"
    " (the server's own host and port); this needs a session of its own, which such a pooler does not keep."
)


@pytest.mark.slow
@needs_pgbouncer
def test_a_transaction_pooler_is_detected_and_refused(pooled):
    server, pooler = pooled("transaction")

    for command in ("migrate", "dbadopt"):
        assert refused(manage(command, url=pooler.url())) == REASON
    assert refused(manage("migrate", url=pooler.url("?pgbouncer=true"))) == REASON.replace(
        "a transaction", "PgBouncer's transaction"
    )
    assert server.execute("SELECT to_regclass('django_migrations')") == [(None,)]


@pytest.mark.slow
@needs_pgbouncer
@pytest.mark.parametrize("variable", ["POSTGRES_URL_NON_POOLING", "DIRECT_URL"])
def test_with_a_direct_url_it_migrates_past_the_pooler_and_works_through_it(pooled, variable):
    server, pooler = pooled("transaction")

    result = manage("migrate", url=pooler.url("?pgbouncer=true"), **{variable: server.url()})

    assert (result.returncode, result.stderr) == (0, "")
    assert manage("dbstatus", "--write-check", url=pooler.url("?pgbouncer=true")).returncode == 0
    assert manage("dbseed", "--production", "--users", "20", url=pooler.url("?pgbouncer=true")).returncode == 0
    assert server.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


@pytest.mark.slow
@needs_pgbouncer
def test_a_session_pooler_keeps_the_session_and_is_accepted(pooled):
    server, pooler = pooled("session")

    assert manage("migrate", url=pooler.url()).returncode == 0
    assert server.execute("SELECT count(*) FROM django_migrations") == [(recorded_migrations(),)]
    labels = [" TLS          off to the pooler; the pooler's link to the server: off\n", "  TLS          off\n"]
    shown = [manage("dbstatus", url=url).stdout for url in (pooler.url(), server.url())]
    assert [label in text for label, text in zip(labels, shown, strict=True)] == [True, True]


@pytest.mark.slow
def test_a_direct_url_that_fails_is_named(own_server):
    server = own_server()

    result = manage("migrate", url=server.url(), DIRECT_URL="postgresql://u:hunter2@127.0.0.1:1/d")

    assert (
        refused(result) == "Nothing listens at 127.0.0.1, port 1: start the server, or correct the host and port in DIRECT_URL."
    )


def test_a_direct_url_through_a_pooler_is_refused(own_server):
    server = own_server()

    result = manage("migrate", url=server.url(), DIRECT_URL="postgresql://u@ep-a-1-pooler.eu.aws.neon.tech/d")

    assert refused(result) == (
        "DIRECT_URL goes through Neon's transaction pooler: set POSTGRES_URL_NON_POOLING or DIRECT_URL to the database's direct URL"
        " (the same without -pooler in the host); this needs a session of its own, which such a pooler does not keep."
    )


@pytest.mark.slow
def test_a_standby_is_neither_migrated_nor_adopted(own_server, tmp_path_factory):
    server = own_server(wal_level="replica", max_wal_senders="4")
    server.execute(prisma.exact())
    standby = server.standby(tmp_path_factory.mktemp("standby"))  # Short, because its socket is in it.
    sentence = "The database is read-only (a standby, or default_transaction_read_only is on): set POSTGRES_URL to the primary, or turn the setting off."
    try:
        assert refused(manage("dbadopt", "--yes", url=standby.url())) == sentence
        assert manage("dbadopt", url=standby.url()).returncode == 0
        server.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        wait_until_gone(standby)
        result = manage("migrate", url=standby.url())
        assert (result.returncode, result.stderr) == (2, f"{sentence}\n")
    finally:
        standby.remove()


def wait_until_gone(standby):
    while standby.execute("SELECT to_regclass('users')") != [(None,)]:
        time.sleep(0.05)


def mounted(folder):
    """A small separate disk at `folder`, if this machine allows mounting one."""
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_full_disk_during_an_adoption_is_one_sentence_and_the_next_run_resumes(own_server, tmp_path_factory):
    """On a disk of 24 MB; where none may be mounted, the server's limit for the files of a sort is what is reached."""
    server = own_server(maintenance_work_mem="1MB", max_parallel_maintenance_workers="0")
    server.execute(prisma.exact())
    disk = tmp_path_factory.mktemp("disk")
    small = mounted(disk)
    try:
        if small:
            owner = (server.home / "data").stat()
            os.chown(disk, owner.st_uid, owner.st_gid)
            server.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            for index in ("price_history_timestamp_idx",):
                server.execute(f'ALTER INDEX "{index}" SET TABLESPACE small')
        server.execute(prisma.fill("price_history", 400_000))
        before = server.execute("SELECT count(*), sum(hashtext(id)) FROM price_history")
        if small:
            free = os.statvfs(disk)
            (disk / "ballast").write_bytes(bytes(max(free.f_bavail * free.f_bsize - (1 << 20), 0)))
        else:
            server.execute("ALTER SYSTEM SET temp_file_limit = '1MB'")
            server.execute("SELECT pg_reload_conf()")

        result = manage("dbadopt", "--yes", url=server.url())

        assert result.returncode == 2
        (sentence,) = result.stderr.splitlines()
        if small:
            assert sentence.startswith("The server's disk is full (could not extend file ")
        else:
            assert "temporary file size exceeds" in sentence
        assert server.execute("SELECT count(*), sum(hashtext(id)) FROM price_history") == before
        assert server.execute("SELECT to_regclass('django_migrations')") == [(None,)]
        if small:
            (disk / "ballast").unlink()
            server.execute('ALTER INDEX "price_history_timestamp_idx" SET TABLESPACE pg_default')
        else:
            server.execute("ALTER SYSTEM RESET temp_file_limit")
            server.execute("SELECT pg_reload_conf()")
        assert manage("dbadopt", "--yes", url=server.url()).returncode == 0
        assert manage("dbstatus", url=server.url()).returncode == 0
        assert server.execute("SELECT count(*), sum(hashtext(id)) FROM price_history") == before
    finally:
        server.stop()
        if small:
            subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_an_adoption_resumes_after_a_lost_connection(database):
    database.execute(prisma.exact() + "".join(prisma.fill(table, 50) for table in prisma.PHASE7))
    with database.connect() as client:
        client.execute("BEGIN; SELECT FROM price_alerts")
        process = start_manage("dbadopt", "--yes", url=database.url)
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        (pid,) = wait_until(database, waiting)
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (
        2,
        "The server ended the connection: it was shut down or restarted, or the session was terminated."
        " Uncommitted changes are rolled back. If the answer to a COMMIT was lost, its changes may be stored: check before you try again.\n",
    )
    assert manage("dbadopt", "--yes", url=database.url).returncode == 0
    assert manage("dbstatus", url=database.url).returncode == 0


def test_the_ci_installs_what_these_tests_need():
    script = (Path(__file__).resolve().parents[2] / ".ci" / "run").read_text()

    assert all(package in script for package in ("postgresql-15", "pgbouncer", "openssl"))
