"""The last administrator who can sign in keeps that role, the account and the password."""

import threading

import pytest
from django.db import connection, connections
from django.test import Client

from accounts.models import User
from accounts.passwords import NOBODYS_HASH
from fly2any.administration.staff import appoint, dismiss
from fly2any.database.errors import Refusal
from tests.administration.conftest import address
from tests.administration.html_form import controls

pytestmark = pytest.mark.django_db
EMAIL = "ana@example.com"
LAST = (
    f"{EMAIL} is the last administrator who can sign in: appoint another one first,"
    " with `manage.py dbstaff EMAIL --role administrator`."
)
NONE_LEFT = (
    "This would leave no administrator who can sign in: make another person an administrator first"
    " (tick “Active”, “Staff” and “Superuser”, and set a password)."
)


def administrator(email=EMAIL, password=NOBODYS_HASH, **more):
    return User.objects.create(email=email, password=password, is_staff=True, is_superuser=True, **more)


def cannot_sign_in():
    """Add administrators who cannot sign in: deactivated, without a password, or with one that the admin cannot verify."""
    administrator("inactive@example.com", is_active=False)
    for name, password in {"oauth": None, "empty": "", "other": "pbkdf2_sha256$1$salt$hash"}.items():
        administrator(f"{name}@example.com", password)


@pytest.mark.parametrize("change", [lambda: dismiss(connection, EMAIL), lambda: appoint(connection, EMAIL, "support")])
def test_dbstaff_keeps_the_last_administrator(change):
    administrator()
    cannot_sign_in()

    with pytest.raises(Refusal) as error:
        change()

    assert str(error.value) == LAST
    assert User.objects.filter(email=EMAIL, is_staff=True, is_superuser=True).exists()
    appoint(connection, "oauth@example.com", "administrator")  # This sets a password.
    change()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("change", ["password", "is_active", "is_staff", "is_superuser", "delete", "deactivate"])
def test_no_page_removes_the_last_administrator(member, change):
    """What a page would do to the last one, signed in by another who has lost the password meanwhile."""
    client = member()
    last = administrator()
    cannot_sign_in()
    pages = {
        "password": address(User, "changelist") + f"{last.pk}/password/",
        "deactivate": address(User, "overview", last.pk) + "deactivate/",
        "delete": address(User, "delete", last.pk),
    }
    page = pages.get(change, address(User, "change", last.pk))

    def send():
        data = {"post": "yes", "usable_password": "false", "unset-password": "1", "password1": "", "password2": ""}
        if change not in pages:
            data = controls(client.get(page), "user_form")
            del data[change]
        return client.post(page, data, follow=True).content.decode()

    def is_there():
        one = User.objects.filter(pk=last.pk, is_active=True, is_staff=True, is_superuser=True)
        return one.exclude(password=None).exists()

    refused, kept = send(), is_there()
    administrator("second@example.com")

    assert (NONE_LEFT in refused, kept) == (True, True)
    assert (NONE_LEFT in send(), is_there()) == (False, False)


@pytest.mark.django_db(transaction=True)
def test_two_administrators_cannot_remove_each_other_at_once():
    emails = (EMAIL, "bob@example.com")
    for email in emails:
        appoint(connection, email, "administrator")
    begin, outcomes = threading.Barrier(2), []

    def remove(email):
        begin.wait()
        try:
            outcomes.append(dismiss(connections["default"], email))
        except Exception as error:  # A deadlock would be another.
            outcomes.append(type(error).__name__)
        finally:
            connections["default"].close()

    threads = [threading.Thread(target=remove, args=[email]) for email in emails]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) in (["Refusal", EMAIL], ["Refusal", emails[1]])
    assert User.objects.filter(is_superuser=True).count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_administrators_cannot_deactivate_each_other_at_once():
    users = [administrator(email) for email in (EMAIL, "bob@example.com")]
    begin, answers = threading.Barrier(2), []

    def deactivate(staff, other):
        client = Client()
        client.force_login(staff)
        begin.wait()
        answers.append(client.post(address(User, "overview", other.pk) + "deactivate/").status_code)
        connections["default"].close()

    threads = [threading.Thread(target=deactivate, args=pair) for pair in (users, users[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 2
    assert User.objects.filter(is_active=True).count() == 1
