"""Each fault on a real server, as a user sees it: one sentence, exit code 2, no traceback, no password."""

import socket
import threading

import pytest
from django.db import connection

from tests.conftest import manage, start_server
from tests.servers import free_port

PASSWORD = "hunter2-Zx9"


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A server that asks for passwords, without TLS, with a role that may do nothing."""
    server = start_server(tmp_path_factory.mktemp("server"), max_connections="20")
    server.hba(
        "host all rejected 127.0.0.1/32 reject",
        "host all all 127.0.0.1/32 scram-sha-256",
    )
    server.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
    server.execute(f"CREATE ROLE sleeper NOLOGIN PASSWORD '{PASSWORD}'")
    server.execute(f"CREATE ROLE rejected LOGIN PASSWORD '{PASSWORD}'")
    server.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    server.execute("ALTER ROLE reader SET default_transaction_read_only TO on")
    server.execute("GRANT CREATE ON SCHEMA public TO reader")
    yield server
    server.remove()


def refused(url, *command):
    result = manage(*(command or ("migrate",)), url=url)
    assert result.returncode == 2
    assert result.stdout.replace("\n", "") in ("",) or "Operations to perform" in result.stdout
    assert "Traceback" not in result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    (sentence,) = result.stderr.splitlines()
    return sentence


def test_a_wrong_password(strict):
    assert refused(strict.url("app", "wrong")) == (
        'The server refused the password of the user "app": correct the user and password in POSTGRES_URL.'
    )


def test_a_missing_password(strict):
    assert refused(strict.url("app")) == (
        "The server requires a password, but POSTGRES_URL has none: write it as postgresql://user:password@host/database."
    )


def test_a_missing_database(strict):
    assert refused(strict.url("app", PASSWORD, database="nowhere")) == (
        'The server has no database "nowhere": create it (createdb nowhere), or correct the name in POSTGRES_URL.'
    )


def test_a_role_that_may_not_log_in(strict):
    assert refused(strict.url("sleeper", PASSWORD)) == (
        'The role "sleeper" may not log in: grant it LOGIN, or use another user in POSTGRES_URL.'
    )


def test_a_server_without_tls_where_tls_is_asked_for(strict):
    assert refused(strict.url("app", PASSWORD, parameters="?sslmode=require")) == (
        "The connection must be encrypted, but the server does not support TLS:"
        " turn on ssl on the server, or write sslmode=disable in POSTGRES_URL if the network is private."
    )


def test_a_user_whom_pg_hba_rejects(strict):
    assert refused(strict.url("rejected", PASSWORD)) == (
        "The server accepts this user from this machine only over TLS, or not at all:"
        " add ?sslmode=require to POSTGRES_URL, or a line to the server's pg_hba.conf."
    )


def test_a_role_that_may_not_create_tables(strict):
    assert refused(strict.url("app", PASSWORD)) == (
        "The role may not do this (permission denied for schema public): connect as the owner of the tables,"
        " or grant it the privilege (for migrations, CREATE on the schema)."
    )


def test_a_read_only_session(strict):
    assert refused(strict.url("reader", PASSWORD)) == (
        "The database is read-only (a standby, or default_transaction_read_only is on): set POSTGRES_URL to the primary, or turn the setting off."
    )


def test_a_server_that_is_not_running():
    port = free_port()

    assert refused(f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/fly2any") == (
        f"Nothing listens at 127.0.0.1, port {port}: start the server, or correct the host and port in POSTGRES_URL."
    )


def test_a_host_that_does_not_exist():
    assert refused(f"postgresql://app:{PASSWORD}@nowhere.invalid/fly2any") == (
        "The host nowhere.invalid is unknown: correct its name in POSTGRES_URL, or check DNS."
    )


@pytest.mark.slow
def test_a_host_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        assert refused(f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/fly2any?connect_timeout=2") == (
            f"The server at 127.0.0.1, port {port} did not answer in time:"
            " check that it is running and that no firewall blocks this machine's address."
        )


def test_a_server_that_is_too_old():
    """No package has so old a server; this peer sends just enough for libpq to assume PostgreSQL 13."""
    oldest, *_ = connection.features.minimum_database_version  # Django's.
    with socket.create_server(("127.0.0.1", 0)) as old:
        threading.Thread(target=speak_as_postgresql_13, args=[old], daemon=True).start()

        assert refused(
            f"postgresql://app:{PASSWORD}@127.0.0.1:{old.getsockname()[1]}/fly2any?sslmode=disable&gssencmode=disable"
        ) == (f"PostgreSQL {oldest} or later is required, but this server is 13.14: upgrade it.")


def speak_as_postgresql_13(listener):
    def message(kind, body):
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    settings = {"server_version": "13.14", "client_encoding": "UTF8", "TimeZone": "UTC", "standard_conforming_strings": "on"}
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            peer.recv(4096)
            parameters = b"".join(message(b"S", f"{name}\0{value}\0".encode()) for name, value in settings.items())
            peer.sendall(message(b"R", bytes(4)) + parameters + message(b"K", bytes(8)) + message(b"Z", b"I"))
            peer.recv(4096)


def test_too_many_connections(own_server):
    server = own_server(max_connections="4", superuser_reserved_connections="1", max_wal_senders="0")
    server.execute("CREATE ROLE app LOGIN")
    server.execute("ALTER ROLE app CONNECTION LIMIT 0")

    assert refused(server.url("app")) == (
        "The server has no connection slots left, or none for this role or database: end idle sessions, raise max_connections or the CONNECTION LIMIT of the role or database, or use a connection pooler."
    )


@pytest.mark.parametrize(
    "command", [("migrate",), ("dbstatus",), ("dbstatus", "--format", "json"), ("dbseed", "--production"), ("dbcontract",)]
)
def test_every_command_prints_the_same_sentence(command):
    port = free_port()

    assert refused(f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/fly2any", *command).startswith("Nothing listens at 127.0.0.1")


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (
            "SECRET_KEY",
            "SECRET_KEY is not set, and with POSTGRES_URL this is production: set it, for example to the output of `openssl rand -base64 48`.",
        ),
        (
            "ALLOWED_HOSTS",
            "ALLOWED_HOSTS is not set, and with POSTGRES_URL this is production: set it, for example to admin.example.com.",
        ),
    ],
)
def test_production_without_its_settings(missing, sentence):
    result = manage("migrate", url="postgresql://app@127.0.0.1/fly2any", **{missing: ""})

    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{sentence}\n")


@pytest.mark.slow
def test_a_role_that_may_not_create_the_extension_continues_once_it_exists(database):
    with database.role("GRANT CREATE ON SCHEMA public TO {role}") as url:
        sentence = refused(url)
        database.execute("CREATE EXTENSION pg_trgm")
        again = manage("migrate", url=url)
        verified = manage("dbstatus", url=url)

    assert sentence == (
        'The role may not create the extension pg_trgm: ask an administrator of the server to run CREATE EXTENSION "pg_trgm" in this'
        " database, and run the command again."
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert verified.returncode == 0
