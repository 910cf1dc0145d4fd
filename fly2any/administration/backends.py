from functools import wraps

from axes.backends import AxesStandaloneBackend
from django.db import OperationalError, connection, transaction
from django.http import HttpResponse

from fly2any.database.locks import SIGN_IN_LOCK

from .accesses import network_of
from .deadlines import is_timeout

TURN_SQL = "SELECT pg_catalog.pg_advisory_xact_lock(%s, pg_catalog.hashtext(%s))"


class Crowd(Exception):  # noqa: N818  Nothing is broken: others are at it.
    """So many sign-ins for an address from one place that this one did not get its turn in time."""


class LockoutBackend(AxesStandaloneBackend):
    """Refuse a client that guessed too often; without a request, as in a shell, there is none."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        if request is None:
            return None
        wait_for_turn(request, username)
        return super().authenticate(request, username, password, **kwargs)


def wait_for_turn(request, username) -> None:
    """Wait until no other transaction tries to sign `username` in from the same place; raise Crowd when that takes too long.

    Between the check of the failures and their count others would be tried: many at once, many more than the limit. The lock is
    the transaction's, and so the caller's is to span both.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(TURN_SQL, [SIGN_IN_LOCK, f"{username} {network_of(request)}"])
    except OperationalError as error:
        if is_timeout(error):
            raise Crowd from error
        raise


def in_turn(view):
    """Return `view`, which may wait for its turn, in a transaction; it answers 429 where the turn does not come."""

    @wraps(view)
    def answer(*args, **kwargs):
        try:
            with transaction.atomic():
                return view(*args, **kwargs)
        except Crowd:
            sentence = "Too many sign-ins for this address at once: try again in a moment.\n"
            return HttpResponse(sentence, status=429, content_type="text/plain")

    return answer
