"""Staff of the admin and their roles, changed from the command line by anyone who may write to the database.

The pages of the admin use keep_an_administrator() too.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

from fly2any.database.errors import Refusal, leaves_commit_open
from fly2any.database.marked_databases import refuse_during_restore
from fly2any.database.person.people import with_address
from fly2any.database.schema.untrusted_code import refuse_untrusted_code
from fly2any.database.sql import time_limits

from .roles import GROUPS, OPERATIONS, SUPPORT

ADMINISTRATOR = "administrator"
GROUP_OF = {"support": SUPPORT, "operations": OPERATIONS}  # An administrator may do everything and needs no group.
ROLES = (*GROUP_OF, ADMINISTRATOR)

ACCESS = ("is_active", "is_staff", "is_superuser", "updated_at")
PASSWORD = ("password", "updated_at")
PREVENTED = "A trigger or a policy of the database prevents the change: nothing was changed."


@dataclass(frozen=True, slots=True)
class Member:
    """A person who may sign in to the admin, as `read_staff` lists them."""

    email: str
    roles: tuple[str, ...]  # "administrator", or the names of the groups in lower case.
    is_active: bool
    last_login: datetime | None


@dataclass(frozen=True, slots=True)
class Appointment:
    """The result of `appoint`: `password` is a new one, None if the person keeps theirs; `replaces`: it replaces an old one."""

    email: str
    is_new: bool
    password: str | None
    replaces: bool = False


def appoint(connection, email: str, role: str) -> Appointment:
    """Give the person with this e-mail address one of ROLES instead of any other; create the person if there is none.

    A person without a password gets a random one, and so does everyone who is not staff yet: until then others may have set the
    password, by registering the address on the site or on the person's page of the admin.

    Raises Refusal for an invalid address, for one that several people have in different case, if the role's group is missing, and
    if the last administrator who can sign in would lose that role.
    """
    with _committed(connection, email):
        administrators = _lock_administrators(connection)
        user = _find(connection, email)
        if is_new := user is None:
            user = _new(email)
        elif role != ADMINISTRATOR:
            _keep_one(administrators, user)
        had_one, was_staff = user.has_usable_password(), user.is_staff
        user.is_active = user.is_staff = True
        user.is_superuser = role == ADMINISTRATOR
        _save(connection, user)
        password = None if had_one and was_staff else replace_password(connection, user)
        _leave_roles(connection, user)
        user.user_permissions.clear()  # Apart from other groups, the role defines all permissions.
        if role in GROUP_OF:
            user.groups.add(_group(connection, GROUP_OF[role]))
        _require_stored(connection, user, GROUP_OF.get(role))
    return Appointment(user.email, is_new, password, replaces=had_one and password is not None)


def _group(connection, name: str) -> Group:
    found = Group.objects.using(connection.alias).filter(name=name).first()
    if found is None:
        raise Refusal(
            f"There is no group {name}, so nothing was changed: if it was renamed, rename it back; otherwise create it (Groups in the admin)."
        )
    return found


def replace_password(connection, user: Any) -> str:
    """Store a random password for a person who becomes staff, since others may have set the old one, and return it.

    Raises Refusal if the database does not have it afterwards.
    """
    password = secrets.token_urlsafe(12)
    _store(connection, user, password)
    return password


def remove_password(connection, user: Any) -> None:
    """Remove the password of a person who becomes staff, since others may have set it: they cannot sign in until a new one is set.

    Raises Refusal if the database has one afterwards.
    """
    _store(connection, user, None)


def _store(connection, user: Any, password: str | None) -> None:
    user.set_password(password)
    user.save(using=connection.alias, update_fields=PASSWORD)
    people = get_user_model()._default_manager.using(connection.alias)
    if not people.filter(pk=user.pk, password=user.password).exists():
        raise Refusal(PREVENTED)


def dismiss(connection, email: str) -> str:
    """Revoke the person's roles and access to the admin; their account on the site stays. Return the address.

    Raises Refusal if there is no such member of the staff, and for the last administrator who can sign in.
    """
    with _committed(connection, email):
        administrators = _lock_administrators(connection)
        user = _find(connection, email)
        if user is None or not (user.is_staff or user.is_superuser):
            raise Refusal(f"{email} is not staff: `manage.py dbstaff --list` lists the staff.")
        _keep_one(administrators, user)
        user.is_staff = user.is_superuser = False
        _save(connection, user)
        user.groups.clear()
        user.user_permissions.clear()
        _require_stored(connection, user, None)
        if user.groups.exists():
            raise Refusal(PREVENTED)
    return user.email


def read_staff(connection) -> list[Member]:
    """Return the staff, by e-mail address."""
    people = get_user_model()._default_manager.using(connection.alias).filter(is_staff=True)
    with time_limits(connection, lock=settings.LOCK_TIMEOUT, read_only=True):
        return [
            Member(user.email, tuple(_roles(user)), user.is_active, user.last_login)
            for user in people.prefetch_related("groups").order_by("email")
        ]


def _roles(user: Any) -> Iterator[str]:
    if user.is_superuser:
        yield ADMINISTRATOR
    yield from sorted(group.name.lower() for group in user.groups.all())


@contextmanager
def _committed(connection, email: str) -> Iterator[None]:
    """Run the block in a transaction that waits for no lock for long, because it holds those of all administrators.

    Raises Refusal if the answer to its COMMIT is lost, since the change may be stored or not.
    """
    committing = False
    try:
        with time_limits(connection, lock=settings.LOCK_TIMEOUT):
            yield
            committing = True
    except BaseException as error:
        if not committing or not leaves_commit_open(error):
            raise
        raise Refusal(
            f"The connection was lost during the commit, so {email} may or may not have been changed: `manage.py dbstaff --list` shows it."
            " Run the command again; if it then prints no password and the person knows none, run"
            f" `manage.py changepassword {shlex.quote(email)}`."
        ) from error


def _lock_administrators(connection) -> list[str]:
    """Return the ids of the administrators as _locked does, once it is sure that a change runs no code of another role."""
    model = get_user_model()
    links = [model.groups.through, model.user_permissions.through]
    refuse_during_restore(connection)
    columns = [str(one.column) for one in model._meta.local_concrete_fields if one.name in (*ACCESS, *PASSWORD)]
    refuse_untrusted_code(connection, [model._meta.db_table], updates=columns)
    refuse_untrusted_code(connection, [link._meta.db_table for link in links], deletes=True)
    return _locked(connection)


def _locked(connection) -> list[str]:
    """Return the ids of the administrators who can sign in, in order, and lock all: of two changes at once, one waits.

    It comes before the lock of the person: two that lock each other's administrators would be a deadlock.
    """
    people = get_user_model()._default_manager.using(connection.alias).select_for_update(no_key=True).order_by("pk")
    administrators = people.filter(is_staff=True, is_superuser=True, is_active=True).only("pk", "password")
    return [one.pk for one in administrators if one.has_usable_password()]  # The admin has no other way to sign in.


@contextmanager
def keep_an_administrator(connection) -> Iterator[None]:
    """Run the block in a transaction; raise Refusal if it would leave no administrator who can sign in."""
    before = _locked(connection)
    yield
    if before and not _locked(connection):
        raise Refusal(
            "This would leave no administrator who can sign in: make another person an administrator first"
            " (tick “Active”, “Staff” and “Superuser”, and set a password)."
        )


def _find(connection, email: str) -> Any:
    """Return the person with this address, locked, or None; only the case of ASCII letters may be another."""
    model = get_user_model()
    people = with_address(model._default_manager.using(connection.alias).select_for_update().order_by("email"), "email", email)
    exact = [user for user in people if user.email == email]
    if len(people) > 1 and not exact:
        raise Refusal(
            f"Several people have the address {email} in different spellings. Enter the exact spelling of one of them."
        )
    return next(iter(exact or people), None)


def _new(email: str) -> Any:
    model = get_user_model()
    user = model(email=model._default_manager.normalize_email(email))
    try:
        model._meta.get_field("email").clean(user.email, user)
    except ValidationError as error:
        raise Refusal(f"{email!r} is not an e-mail address.") from error
    return user


def _keep_one(administrators: list[str], user: Any) -> None:
    """Raise Refusal if `user` is the only one of the `administrators`."""
    if administrators == [user.pk]:
        raise Refusal(
            f"{user.email} is the last administrator who can sign in: appoint another one first,"
            " with `manage.py dbstaff EMAIL --role administrator`."
        )


def _save(connection, user: Any) -> None:
    """Write the person's access to the admin: the site may change the rest meanwhile, or know it more exactly."""
    user.save(using=connection.alias, update_fields=None if user._state.adding else ACCESS)


def _require_stored(connection, user: Any, group: str | None) -> None:
    """Raise Refusal unless the database has what was written: a trigger or a policy may prevent it silently."""
    stored = get_user_model()._default_manager.using(connection.alias).get(pk=user.pk)
    groups = {one.name for one in stored.groups.all()} & {*GROUPS}
    is_same = all(getattr(stored, name) == getattr(user, name) for name in ("is_active", "is_staff", "is_superuser"))
    if not is_same or groups != ({group} if group else set()):
        raise Refusal(PREVENTED)


def _leave_roles(connection, user: Any) -> None:
    """Remove the person from the groups of the roles; raise Refusal if one of their other groups may be such a group, renamed."""
    groups = {group.name: group for group in Group.objects.using(connection.alias).filter(name__in=GROUPS)}
    missing = [name for name in GROUPS if name not in groups]
    others = user.groups.exclude(name__in=GROUPS).order_by("name").values_list("name", flat=True)
    if missing and others:
        raise Refusal(
            f"There is no group {missing[0]}, and {user.email} is in {', '.join(others)}, which may be that group under another name, so"
            f" nothing was changed: rename it back or create {missing[0]} (Groups in the admin), or remove {user.email} from all groups"
            " with --remove first."
        )
    user.groups.remove(*groups.values())
