"""Signing in takes turns: few at a time in a process, one at a time for an address and a network.

A browser in which staff have signed in before has turns of its own: others, however many, do not keep it out.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from threading import Lock

from axes.backends import AxesStandaloneBackend
from axes.handlers.proxy import AxesProxyHandler
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.http import HttpResponse

from fly2any.database.migration.lock import SIGN_IN_LOCK

from .accesses import network_of

User = get_user_model()
TURN_SQL = "SELECT pg_catalog.pg_try_advisory_xact_lock(%s, pg_catalog.hashtext(%s))"
PATIENCE = 2.0  # Seconds that a sign-in waits.
PAUSE = 0.05  # Seconds until it tries again.
DEVICE = "__Host-device" if settings.SESSION_COOKIE_SECURE else "device"
DEVICE_SALT = "fly2any.administration.device"
REMEMBERED = 365 * 24 * 3600  # Seconds.


class Crowd(Exception):  # noqa: N818  Nothing is broken: others are at it.
    """Another sign-in has its turn."""


class Places:
    """Places for sign-ins in a process, `number` in all and `each` for one client; one at a time has its turn, and computes a hash."""

    def __init__(self, number: int, *, each: int) -> None:
        self.number, self.each = number, each
        self.changing, self.turn, self.taken = Lock(), Lock(), Counter[str]()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Hold one of the places; raise Crowd where none is free for `client`."""
        with self.changing:
            if self.taken.total() >= self.number or self.taken[client] >= self.each:
                raise Crowd
            self.taken[client] += 1
        try:
            yield
        finally:
            with self.changing:
                self.taken.subtract([client])
                self.taken += Counter()  # Without those that have none.

    @contextmanager
    def turn_within(self, seconds: float) -> Iterator[None]:
        """Wait for the turn; raise Crowd where it does not come in `seconds`."""
        if not self.turn.acquire(timeout=seconds):
            raise Crowd
        try:
            yield
        finally:
            self.turn.release()


# Together fewer than a process has threads: other pages need some.
strangers = Places(3, each=2)  # By network.
known = Places(2, each=1)  # By user.


def place_for(request) -> tuple[Places, str]:
    """Return the places that a request may take one of, and as whom: as a user where one has signed in in this browser."""
    if user := request.user.pk or user_of_device(request):
        return known, str(user)
    return strangers, str(network_of(request))


def user_of_device(request) -> str | None:
    """Return who has signed in in this browser, by its cookie, None where that is missing, forged or old."""
    try:
        return signing.loads(request.COOKIES.get(DEVICE, ""), salt=DEVICE_SALT, max_age=REMEMBERED)
    except signing.BadSignature:
        return None


def remember_device(request, response) -> None:
    """Set a signed cookie that names who has just signed in with this browser. It gives no access."""
    response.set_cookie(
        DEVICE, signing.dumps(request.user.pk, salt=DEVICE_SALT), max_age=REMEMBERED,
        secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Strict",
    )  # fmt: skip


class LockoutBackend(AxesStandaloneBackend):
    """Refuse a client that guessed too often; without a request, as in a shell, there is none."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        if request is None:
            return None
        take_turn(request, username)
        return super().authenticate(request, username, password, **kwargs)


class PasswordBackend(ModelBackend):
    """Django's, which takes what verify() computed before the transaction of the sign-in began."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        verified = getattr(request, "verified", None)
        if verified is None or (verified.username, verified.password) != (username, password):
            return super().authenticate(request, username, password, **kwargs)
        user = User._default_manager.filter(**{User.USERNAME_FIELD: username}).first()
        if (user.password if user else None) != verified.hash:  # It was changed meanwhile.
            return super().authenticate(request, username, password, **kwargs)
        return user if verified.is_right and self.user_can_authenticate(user) else None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a user sent to sign in, whether it is right, and the stored hash that it was compared with, None of nobody."""

    username: str
    password: str = field(repr=False)
    hash: str | None = field(repr=False)
    is_right: bool


def verify(request, form: type[AuthenticationForm]) -> None:
    """Compute the hash of the password that `request` sends, while no transaction keeps a pooler's server connection.

    Whether it may be tried at all is asked here so that a client which is locked out has no hash computed, and again inside
    the transaction, whose answer counts.
    """
    sent = form(request, data=request.POST)
    try:
        username, password = (sent.fields[name].clean(sent[name].data) for name in ("username", "password"))
    except ValidationError:
        return
    if not AxesProxyHandler.is_allowed(request, {"username": username}):
        return
    user = User._default_manager.filter(**{User.USERNAME_FIELD: username}).first()
    is_right = user.check_password(password) if user else bool(User().set_password(password))  # As long for nobody.
    request.verified = Verified(username, password, user.password if user else None, is_right)


def take_turn(request, username) -> None:
    """Keep others from signing `username` in from the same place until the transaction ends; raise Crowd where one is at it.

    Between the check of the failures and their count others would be tried: many at once, many more than the limit. The lock is
    the transaction's, and so the caller's is to span both.
    """
    with connection.cursor() as cursor:
        cursor.execute(TURN_SQL, [SIGN_IN_LOCK, f"{username} {network_of(request)}"])
        if not cursor.fetchone()[0]:
            raise Crowd


def in_turn(view, *, before=lambda request: None):
    """Return `view`, which takes its turn in a transaction; without a turn that ends, and is begun anew.

    `before` is called once, in the turn and before the transaction.

    Who waits holds no server connection of a pooler: the site needs them. The answer is 429 where no turn comes.
    """

    @wraps(view)
    def answer(request, *args, **kwargs):
        try:
            places, client = place_for(request)
            with places.place(client):
                with places.turn_within(PATIENCE):
                    before(request)
                ends = time.monotonic() + PATIENCE
                while (left := ends - time.monotonic()) > 0:
                    with places.turn_within(left), suppress(Crowd), transaction.atomic():
                        return view(request, *args, **kwargs)
                    time.sleep(PAUSE)
                raise Crowd
        except Crowd:
            sentence = "Too many sign-ins at once. Try again in a moment.\n"
            return HttpResponse(sentence, status=429, content_type="text/plain", headers={"Retry-After": "2"})

    return answer


def signing_out(view):
    """Return `view`, which ends a session: where the database refuses that, the browser is signed out all the same."""

    @wraps(view)
    def answer(request, *args, **kwargs):
        try:
            with transaction.atomic():
                return view(request, *args, **kwargs)
        except DatabaseError:
            request.session = type(request.session)()  # An empty one, for which Django deletes the cookie.
            request.user, request.signed_out = AnonymousUser(), True
            raise

    return answer
