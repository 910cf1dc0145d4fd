"""A server that disappears silently: no client waits longer than the server's own limits."""

import contextlib
import os
import socket
import time
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction

from fly2any import monitoring
from fly2any.administration import deadlines
from fly2any.database import sql
from fly2any.database.management.commands import dbhealth, dbstatus
from fly2any.database.migration import run
from fly2any.database.migration.advisory_locks import MAINTENANCE_LOCK, advisory_lock
from fly2any.database.person.transactions import writing
from fly2any.database.progress import Progress
from fly2any.postgres import response_timeout
from fly2any.postgres.response_timeout import at_most
from fly2any.postgres.url import parse
from tests.servers import Relay

SLEEP = "SELECT pg_sleep(%s)"


@pytest.fixture
def relay(own_server, django_db_setup, django_db_blocker):
    """A relay that a connection of Django's, `relayed`, goes through."""
    relay = Relay(own_server().port)
    connections.databases["relayed"] = {
        **connection.settings_dict, "NAME": "fly2any", "HOST": "127.0.0.1", "PORT": str(relay.port), "USER": "postgres",
        "POOL": None, "DIRECT": None, "EMBEDDED": None,
    }  # fmt: skip
    with django_db_blocker.unblock():
        yield relay
        connections["relayed"].close()
    del connections["relayed"], connections.databases["relayed"]
    relay.remove()


def ask(statement="SELECT 1", *parameters):
    with connections["relayed"].cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()


@pytest.mark.parametrize("lost", ["a statement", "the commit"])
def test_a_missing_response_is_an_error_and_closes_the_connection(relay, lost):
    def work():
        with at_most(0.5), transaction.atomic(using="relayed"):
            ask()
            relay.forget()
            if lost == "a statement":
                ask()

    begun = time.monotonic()
    with pytest.raises(OperationalError):
        work()
    took = time.monotonic() - begun

    connections["relayed"].close_if_unusable_or_obsolete()
    assert (ask(), took < 3) == ((1,), True)


def test_an_answer_that_comes_in_time_is_waited_for_and_outside_there_is_no_limit(relay):
    with at_most(2):
        ask(SLEEP, 0.3)
        with at_most(0.1), pytest.raises(OperationalError):
            ask(SLEEP, 0.5)
        connections["relayed"].close()
        ask(SLEEP, 0.3)
    ask(SLEEP, 0.3)


def lost_once(relay):
    """Return a query whose first response is lost."""
    relays = [relay]

    def question(*_):
        ask()
        while relays:
            relays.pop().forget()
        return ask()

    return question


def test_readiness_is_queried_again_when_an_answer_is_lost(relay, monkeypatch):
    monkeypatch.setattr(monitoring, "ANSWER_PATIENCE", 0.5)
    question = monitoring.SharedQuery(lost_once(relay))
    with pytest.raises(OperationalError):
        question.answer()
    with pytest.raises(OperationalError):
        question.asked.result(10)

    assert question.answer() == (1,)


def test_a_page_whose_answer_is_lost_ends_and_the_next_one_works(relay, monkeypatch):
    monkeypatch.setattr(deadlines, "STATEMENT", 100)
    monkeypatch.setattr(deadlines, "GRACE", 0.2)
    page = deadlines.limited(lost_once(relay))

    begun = time.monotonic()
    with pytest.raises(OperationalError):
        page(None)
    took = time.monotonic() - begun
    connections["relayed"].close_if_unusable_or_obsolete()

    assert (page(None), took < 3) == ((1,), True)


def option(connection, name):
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as own:
        return own.getsockopt(socket.IPPROTO_TCP, name)


def test_both_sides_close_a_connection_whose_host_is_gone(own_server, django_db_setup, django_db_blocker):
    server = own_server()
    place = parse(f"postgresql://postgres@127.0.0.1:{server.port}/fly2any?sslmode=disable")
    connections.databases["far"] = {**connection.settings_dict, "DIRECT": None, "EMBEDDED": None, **place, "POOL": None}
    try:
        with django_db_blocker.unblock():
            far = connections["far"]
            far.ensure_connection()
            ours = [option(far, name) for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)]
            question = "SELECT ARRAY[current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_count')]"
            before = sql.ask(far, question)
            with advisory_lock(far, MAINTENANCE_LOCK, patience=0, say=print):
                theirs = sql.ask(far, question)
            after = sql.ask(far, question)
            with writing(far):
                erasing = sql.ask(far, question)
    finally:
        connections["far"].close()
        del connections["far"], connections.databases["far"]

    assert ours == [30, 10, 6]
    assert (theirs, erasing, before == after != theirs) == (["30", "6"], ["30", "6"], True)


def test_a_migration_whose_client_is_gone_keeps_the_site_out_no_longer_than_a_transaction_may_be_idle(relay, monkeypatch):
    monkeypatch.setattr(run, "LONGEST_IDLE", "1s")
    server = connections["relayed"].copy()
    server.settings_dict = {**server.settings_dict, "PORT": str(relay.to)}
    sql.execute(
        server, "CREATE TABLE users (id text); ALTER DATABASE fly2any SET idle_in_transaction_session_timeout = '10min'"
    )

    def migrate():
        with (
            at_most(0.5),
            run.migrating("relayed", patience=1, progress=Progress()),
            transaction.atomic(using="relayed"),
        ):
            sql.execute(connections["relayed"], "LOCK TABLE users")
            relay.forget()
            ask()

    with pytest.raises(OperationalError):
        migrate()
    with contextlib.closing(server), server.cursor() as site:
        site.execute("SET lock_timeout = '10s'")
        site.execute("SELECT count(*) FROM users")
        assert site.fetchone() == (0,)


@pytest.mark.parametrize("module", [dbstatus, dbhealth])
def test_commands_that_monitors_run_limit_every_wait(module, monkeypatch, db):
    limits = []
    monkeypatch.setattr(module, "read_newest", lambda connection: limits.append(response_timeout._here.get()))
    with contextlib.suppress(SystemExit):
        call_command(module.Command(), stdout=StringIO())

    assert (limits, response_timeout._here.get()) == ([90], None)
