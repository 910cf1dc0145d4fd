"""A server that goes without a word: nobody waits for it longer than its own limits would let them."""

import time

import pytest
from django.db import OperationalError, connection, connections, transaction

from fly2any import monitoring
from fly2any.administration import deadlines
from fly2any.postgres.patience import at_most
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
def test_an_answer_that_does_not_come_is_an_error_and_the_connection_is_given_up(relay, lost):
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
    """Return a question whose first answer gets lost."""
    relays = [relay]

    def question(*_):
        ask()
        while relays:
            relays.pop().forget()
        return ask()

    return question


def test_readiness_is_asked_anew_when_an_answer_is_lost(relay, monkeypatch):
    monkeypatch.setattr(monitoring, "PATIENCE", 0.5)
    question = monitoring.Question(lost_once(relay))
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
