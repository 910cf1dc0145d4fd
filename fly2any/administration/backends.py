"""Sign-ins take turns: a few at a time per process, one at a time per user name and network.

A browser in which staff have signed in before also has slots of its own, so other clients cannot keep it out.
site.py and second_factor.py wrap their views in `in_turn`.
Failures are counted by the network of client_address.py, up to settings.AXES_FAILURE_LIMIT.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
from django.db import DatabaseError, Error, connection, transaction
from django.http import HttpResponse

from fly2any.database.migration.activity import HOLDERS_OF_TWO_KEYS_SQL, read_activity
from fly2any.database.migration.advisory_locks import SIGN_IN_LOCK

from .client_address import network_of

User = get_user_model()
_log = logging.getLogger("fly2any.sign_ins")
TURN_SQL = "SELECT pg_catalog.pg_try_advisory_xact_lock(%s, pg_catalog.hashtext(%s))"
TURN_PATIENCE = 2.0  # Seconds that a sign-in waits for its turn.
PAUSE = 0.05  # Seconds until it tries again.
DEVICE = "__Host-device" if settings.SESSION_COOKIE_SECURE else "device"
DEVICE_SALT = "fly2any.administration.device"
REMEMBERED = 365 * 24 * 3600  # Seconds.


class TooManySignIns(Exception):  # noqa: N818  Not an error: other sign-ins are running.
    """No turn came in time, because other sign-ins are running."""


class SignInSlots:
    """The slots for sign-ins of a process: `number` in total, `each` per client. One sign-in at a time has the turn and computes a hash."""

    def __init__(self, number: int, *, each: int) -> None:
        self.number, self.each = number, each
        self.changing, self.turn, self.taken = Lock(), Lock(), Counter[str]()

    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        """Hold a slot; raise TooManySignIns if none is free for `client`."""
        with self.changing:
            if self.taken.total() >= self.number or self.taken[client] >= self.each:
                raise TooManySignIns
            self.taken[client] += 1
        try:
            yield
        finally:
            with self.changing:
                self.taken.subtract([client])
                self.taken += Counter()  # Drops clients without a slot.

    @contextmanager
    def turn_within(self, seconds: float) -> Iterator[None]:
        """Wait for the turn; raise TooManySignIns if it does not come within `seconds`."""
        if not self.turn.acquire(timeout=seconds):
            raise TooManySignIns
        try:
            yield
        finally:
            self.turn.release()


# Together fewer than the threads of a process, because other pages need some.
by_network = SignInSlots(3, each=2)
by_user = SignInSlots(2, each=1)


@contextmanager
def _slot_for(request) -> Iterator[SignInSlots]:
    """Hold a slot for a request: one of the user's if a user has signed in with this browser and one is free, otherwise one of the network's."""
    with ExitStack() as stack:
        slots = by_network
        if user := request.user.pk or user_of_device(request):
            with suppress(TooManySignIns):
                stack.enter_context(by_user.slot(str(user)))
                slots = by_user
        if slots is by_network:
            stack.enter_context(by_network.slot(str(network_of(request))))
        yield slots


def user_of_device(request) -> str | None:
    """Return the user that this browser's cookie names; None if it is missing, forged or expired, or the user has left or has a new password."""
    try:
        key, mark = signing.loads(request.COOKIES.get(DEVICE, ""), salt=DEVICE_SALT, max_age=REMEMBERED)
    except (signing.BadSignature, ValueError):  # A cookie of earlier versions has the key alone.
        return None
    user = User._default_manager.filter(pk=key, is_active=True, is_staff=True).first()
    return key if user and mark in _marks(user) else None


def _marks(user) -> list[str]:
    """Return the marks of a user's password that a cookie may have: the start of the digest that ends sessions, with the current key and with former ones."""
    return [digest[:16] for digest in (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())]


def remember_device(request, response) -> None:
    """Set a signed cookie that names the user who has just signed in with this browser. It grants no access."""
    response.set_cookie(
        DEVICE, signing.dumps([request.user.pk, _marks(request.user)[0]], salt=DEVICE_SALT), max_age=REMEMBERED,
        secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Strict",
    )  # fmt: skip


class LockoutBackend(AxesStandaloneBackend):
    """Refuse a client after too many failures (settings.AXES_FAILURE_LIMIT); without a request, as in a shell, there is no client."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        if request is None:
            return None
        take_turn(request, username)
        return super().authenticate(request, username, password, **kwargs)


class PasswordBackend(ModelBackend):
    """Django's backend, with the result that verify() computed before the transaction of the sign-in began."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        verified = getattr(request, "verified", None)
        if verified is None or (verified.username, verified.password) != (username, password):
            return super().authenticate(request, username, password, **kwargs)
        user = User._default_manager.filter(**{User.USERNAME_FIELD: username}).first()
        if (user.password if user else None) != verified.hash:  # The password was changed meanwhile.
            return super().authenticate(request, username, password, **kwargs)
        return user if verified.is_right and self.user_can_authenticate(user) else None


@dataclass(frozen=True, slots=True)
class Verified:
    """The submitted credentials, whether they are right, and the stored hash they were compared with, None for an unknown user."""

    username: str
    password: str = field(repr=False)
    hash: str | None = field(repr=False)
    is_right: bool


def verify(request, form: type[AuthenticationForm]) -> None:
    """Compute the hash of the submitted password before a transaction occupies a pooler's server connection.

    The lockout is checked here, so that no hash is computed for a locked-out client, and again inside the transaction, whose
    result counts.
    """
    sent = form(request, data=request.POST)
    try:
        username, password = (sent.fields[name].clean(sent[name].data) for name in ("username", "password"))
    except ValidationError:
        return
    if not AxesProxyHandler.is_allowed(request, {"username": username}):
        return
    user = User._default_manager.filter(**{User.USERNAME_FIELD: username}).first()
    is_right = (
        user.check_password(password) if user else bool(User().set_password(password))
    )  # An unknown user takes as long as a known one.
    request.verified = Verified(username, password, user.password if user else None, is_right)


def take_turn(request, username) -> None:
    """Block other sign-ins of `username` from the same network until the transaction ends; raise TooManySignIns if one is running.

    Without it, parallel attempts between the check of the failures and their count could exceed the limit. The lock lasts as long
    as the transaction, which must therefore span both.
    """
    with connection.cursor() as cursor:
        cursor.execute(TURN_SQL, [SIGN_IN_LOCK, f"{username} {network_of(request)}"])
        if not cursor.fetchone()[0]:
            raise TooManySignIns


def _log_holders() -> None:
    """Log the sessions that have held a turn of sign-ins for half of TURN_PATIENCE or longer: any role can take such a lock."""
    with suppress(Error):
        for one in read_activity(connection, HOLDERS_OF_TWO_KEYS_SQL, lock=SIGN_IN_LOCK):
            if one.age is None or one.age.total_seconds() > TURN_PATIENCE / 2:
                _log.warning(
                    "A sign-in did not get its turn within %g s. %s holds a turn, perhaps for another user. If that session is not the admin's, end it: manage.py dbhealth locks --terminate %s --yes",
                    TURN_PATIENCE, one, one.pid,
                )  # fmt: skip


@contextmanager
def as_before(request) -> Iterator[None]:
    """Run the block, which is rolled back if it raises: the request then has its user and a session with its key again.

    Signing in and changing one's own password give the browser a new session.
    """
    user, key = request.user, request.session.session_key
    try:
        yield
    except Exception:
        request.user = user
        if request.session.session_key != key:
            request.session = type(request.session)(key)
        raise


def in_turn(view, *, before=lambda request: None):
    """Return `view`, which takes its turn in a transaction; while it has none, the transaction is rolled back and tried again.

    `before` is called once, in the turn and before the transaction. A waiting sign-in holds no server connection of a pooler,
    because the site needs them. If no turn comes, the response is 429. If the view fails, the request has its user and session again.
    """

    @wraps(view)
    def answer(request, *args, **kwargs):
        try:
            with _slot_for(request) as slots:
                with slots.turn_within(TURN_PATIENCE):
                    before(request)
                ends = time.monotonic() + TURN_PATIENCE
                while (left := ends - time.monotonic()) > 0:
                    with slots.turn_within(left), suppress(TooManySignIns), as_before(request), transaction.atomic():
                        return view(request, *args, **kwargs)
                    time.sleep(PAUSE)
                _log_holders()
                raise TooManySignIns
        except TooManySignIns:
            sentence = "Too many sign-ins at once. Try again in a moment.\n"
            return HttpResponse(sentence, status=429, content_type="text/plain", headers={"Retry-After": "2"})

    return answer


def signing_out(view):
    """Return `view`, which ends a session; even if the database refuses, the browser is signed out."""

    @wraps(view)
    def answer(request, *args, **kwargs):
        try:
            with transaction.atomic():
                return view(request, *args, **kwargs)
        except DatabaseError:
            request.session = type(request.session)()  # Django deletes the cookie of an empty session.
            request.user, request.signed_out = AnonymousUser(), True
            raise

    return answer
