"""Signing in takes turns: few at a time in a process, one at a time for an address and a network."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from threading import BoundedSemaphore, Lock

from axes.backends import AxesStandaloneBackend
from django.db import connection, transaction
from django.http import HttpResponse

from fly2any.database.locks import SIGN_IN_LOCK

from .accesses import network_of

TURN_SQL = "SELECT pg_catalog.pg_try_advisory_xact_lock(%s, pg_catalog.hashtext(%s))"
AT_ONCE = 2  # Sign-ins of a process that have a transaction, and so a server connection of a pooler, while a hash is computed.
PLACES = 5  # Sign-ins of a process that are tried or wait: fewer than its threads, which other pages need.
OF_ONE_NETWORK = 3  # Of these; one client must not keep everybody else from signing in.
PATIENCE = 2.0  # Seconds that a sign-in waits.
PAUSE = 0.05  # Seconds until it tries again.


class Crowd(Exception):  # noqa: N818  Nothing is broken: others are at it.
    """Another sign-in has its turn."""


class Places:
    """The places for sign-ins in a process."""

    def __init__(self) -> None:
        self.changing, self.taken = Lock(), Counter[str | None]()
        self.turns = BoundedSemaphore(AT_ONCE)

    @contextmanager
    def place(self, network: str | None) -> Iterator[None]:
        """Hold one of the places; raise Crowd where none is free for `network`."""
        with self.changing:
            if self.taken.total() >= PLACES or self.taken[network] >= OF_ONE_NETWORK:
                raise Crowd
            self.taken[network] += 1
        try:
            yield
        finally:
            with self.changing:
                self.taken.subtract([network])
                self.taken += Counter()  # Without those that have none.

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Wait for one of the turns, which are fewer; raise Crowd where none comes in `seconds`."""
        if not self.turns.acquire(timeout=seconds):
            raise Crowd
        try:
            yield
        finally:
            self.turns.release()


places = Places()


class LockoutBackend(AxesStandaloneBackend):
    """Refuse a client that guessed too often; without a request, as in a shell, there is none."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        if request is None:
            return None
        take_turn(request, username)
        return super().authenticate(request, username, password, **kwargs)


def take_turn(request, username) -> None:
    """Keep others from signing `username` in from the same place until the transaction ends; raise Crowd where one is at it.

    Between the check of the failures and their count others would be tried: many at once, many more than the limit. The lock is
    the transaction's, and so the caller's is to span both.
    """
    with connection.cursor() as cursor:
        cursor.execute(TURN_SQL, [SIGN_IN_LOCK, f"{username} {network_of(request)}"])
        if not cursor.fetchone()[0]:
            raise Crowd


def in_turn(view):
    """Return `view`, which takes its turn in a transaction; without a turn that ends, and is begun anew.

    Who waits holds no server connection of a pooler: the site needs them. The answer is 429 where no turn comes.
    """

    @wraps(view)
    def answer(request, *args, **kwargs):
        ends = time.monotonic() + PATIENCE
        try:
            with places.place(network_of(request)):
                while (left := ends - time.monotonic()) > 0:
                    with places.turn(left), suppress(Crowd), transaction.atomic():
                        return view(request, *args, **kwargs)
                    time.sleep(PAUSE)
                raise Crowd
        except Crowd:
            sentence = "Too many sign-ins at once: try again in a moment.\n"
            return HttpResponse(sentence, status=429, content_type="text/plain", headers={"Retry-After": "2"})

    return answer
