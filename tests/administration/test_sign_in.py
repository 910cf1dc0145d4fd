"""Signing in: guesses are limited, and production requires a second factor."""

import re
from base64 import b32decode
from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp_webauthn.models import WebAuthnAttestation, WebAuthnCredential, WebAuthnUserHandle

from accounts.models import User
from engagement.models import LoginHistory
from tests.administration.conftest import PASSWORD

pytestmark = pytest.mark.django_db
INDEX, SIGN_IN, VERIFY, ENROL, CODES = (
    f"admin:{name}" for name in ("index", "login", "second_factor", "second_factor_new", "second_factor_codes")
)


def sign_in(client, user, **more):
    return client.post(
        f"{reverse(SIGN_IN)}?next={reverse(INDEX)}", {"username": user.email, "password": PASSWORD, **more}, follow=True
    )


def code_of(device, later=0):
    """The code of a device, `later` steps of 30 s from now."""
    return f"{totp(device.bin_key, t0=-30 * later):06}"


def shown(client):
    """A device with the secret that the page shows."""
    secret = re.search(r'<span class="secret">([A-Z2-7 ]+)</span>', client.get(reverse(ENROL)).content.decode())[1]
    return TOTPDevice(key=b32decode(secret.replace(" ", "")).hex())


def test_five_wrong_passwords_lock_the_address_from_that_network_only(client, boss, settings):
    settings.SECOND_FACTOR = False
    for _ in range(5):
        sign_in(client, boss, password="a-wrong-password")

    closed = sign_in(client, boss)
    elsewhere = client.post(reverse(SIGN_IN), {"username": boss.email, "password": PASSWORD}, REMOTE_ADDR="203.0.113.7")

    assert (closed.status_code, "Too many attempts" in closed.content.decode()) == (429, True)
    assert elsewhere.status_code == 302
    # Attempts during a lockout are not recorded, so they cannot fill the history; axes records the failure that causes it.
    assert LoginHistory.objects.filter(success=False).count() == 4
    attempt = AccessAttempt.objects.get()
    # The page to return to may be a search for a person.
    assert (attempt.failures_since_start, "next=***" in attempt.get_data, reverse(INDEX) in attempt.get_data) == (
        5,
        True,
        False,
    )


def test_the_sites_plain_delete_removes_staff_with_their_devices(client, boss):
    from django.db import connection

    TOTPDevice.objects.create(user=boss)
    key = WebAuthnCredential.objects.create(user=boss)
    WebAuthnAttestation.objects.create(credential=key, fmt="none")
    WebAuthnUserHandle.objects.create(user=boss)
    StaticToken.objects.create(device=StaticDevice.objects.create(user=boss), token="t")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM users WHERE id = %s", [boss.pk])

    left = [model.objects.count() for model in (TOTPDevice, StaticToken, WebAuthnAttestation, WebAuthnUserHandle)]
    assert left == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "odd",
    [
        {"content_type": "multipart/form-data; boundary=B; charset=utf-7", "QUERY_STRING": "a=%2B2AA-"},
        {"content_type": "application/x-www-form-urlencoded; charset=unicode_escape", "QUERY_STRING": "a=%5Cud800"},
        {"HTTP_USER_AGENT": "Mozilla\0"},
        {"HTTP_ACCEPT": "\0"},
    ],
)
def test_a_request_that_no_browser_sends_is_refused_before_it_counts_as_a_guess(client, boss, odd):
    answer = client.generic("POST", reverse(SIGN_IN), b"--B--\r\n", **odd)

    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/plain")


def test_an_overlong_address_is_reported(client, boss):
    page = client.post(reverse(SIGN_IN), {"username": f"{'a' * 250}@example.com", "password": "p"})

    assert (page.status_code, "at most 240 characters" in page.content.decode()) == (200, True)


def test_the_right_password_of_a_traveller_counts_as_a_failure(client, boss):
    ana = User.objects.create_user("ana@example.com", PASSWORD)

    answers = [sign_in(client, ana).status_code for _ in range(6)]

    assert (answers, LoginHistory.objects.filter(user=ana, success=True).count()) == ([200, 200, 200, 200, 429, 429], 0)


def test_guesses_from_one_ipv6_network_are_counted_together(client, boss):
    answers = [
        client.post(reverse(SIGN_IN), {"username": boss.email, "password": "wrong"}, REMOTE_ADDR=f"2001:db8::{n}").status_code
        for n in range(1, 7)
    ]
    elsewhere = client.post(reverse(SIGN_IN), {"username": boss.email, "password": PASSWORD}, REMOTE_ADDR="2001:db8:0:1::1")

    assert (answers, elsewhere.status_code) == ([200, 200, 200, 200, 429, 429], 302)


def test_ipv4_addresses_that_a_dual_stack_socket_maps_are_distinguished(client, boss):
    for _ in range(5):
        client.post(reverse(SIGN_IN), {"username": boss.email, "password": "wrong"}, REMOTE_ADDR="::ffff:192.0.2.1")
    elsewhere = client.post(reverse(SIGN_IN), {"username": boss.email, "password": PASSWORD}, REMOTE_ADDR="::ffff:198.51.100.9")

    assert elsewhere.status_code == 302
    assert {row.ip_address for row in LoginHistory.objects.all()} == {"192.0.2.1", "198.51.100.9"}


def test_old_guesses_are_deleted_at_the_next_sign_in(client, boss):
    client.post(reverse(SIGN_IN), {"username": "other@example.com", "password": "wrong"})
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))

    sign_in(client, boss)

    assert AccessAttempt.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_signing_in_reports_a_read_only_database(client, boss):
    waiting = Client()
    waiting.force_login(boss)
    connection.cursor().execute("SET default_transaction_read_only = on")
    try:
        pages = [
            client.post(reverse(SIGN_IN), {"username": boss.email, "password": PASSWORD}),
            client.post(reverse(SIGN_IN), {"username": boss.email, "password": "wrong"}),
            waiting.post(reverse(ENROL), {"code": code_of(shown(waiting))}),
            waiting.post(reverse("admin:second_factor_leave")),
        ]
    finally:
        connection.cursor().execute("SET default_transaction_read_only = off")

    *signing_in, signing_out = [(page.status_code, page.content.decode()) for page in pages]
    assert [(status, "The database is read-only at the moment" in text) for status, text in signing_in] == [(503, True)] * 3
    assert (signing_out[0], "You are signed out in this browser." in signing_out[1]) == (503, True)


OTHERS = "GRANT ALL ON ALL TABLES IN SCHEMA public TO only_some; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO only_some"


@pytest.mark.parametrize(
    ("statement", "sentence", "logged"),
    [
        (
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'Frozen.'; END $$;"
            "CREATE TRIGGER no BEFORE INSERT ON login_history FOR EACH ROW EXECUTE FUNCTION no()",
            "Frozen.",
            "The function no() in the database failed",
        ),
        (
            f"CREATE ROLE only_some; {OTHERS}; REVOKE INSERT ON login_history FROM only_some; SET LOCAL ROLE only_some",
            "The admin&#x27;s database role lacks the privilege to write this.",
            "permission denied for table login_history",
        ),
    ],
)
def test_a_sign_in_that_the_database_refuses_says_why_and_signs_nobody_in(client, boss, statement, sentence, logged, caplog):
    connection.cursor().execute(statement)

    page = client.post(reverse(SIGN_IN), {"username": boss.email, "password": PASSWORD})

    assert (page.status_code, sentence in page.content.decode(), "Log out" in page.content.decode()) == (503, True, False)
    assert client.get(reverse(INDEX)).status_code == 302
    [text] = [record.getMessage() for record in caplog.records if record.name == "fly2any.admin"]
    assert text.startswith("the database refused /admin/login/: ")
    assert logged in text


@pytest.mark.django_db(transaction=True)
def test_a_read_only_database_still_allows_signing_out_in_this_browser(client, boss, settings):
    settings.SECOND_FACTOR = False
    leaving, passkeys = Client(), Client(raise_request_exception=False)
    for one in (client, leaving, passkeys):
        one.force_login(boss)
    connection.cursor().execute("SET default_transaction_read_only = on")
    try:
        pages = [client.post(reverse("admin:logout")), leaving.post(reverse("admin:second_factor_leave"))]
        signed_in = [one.get(reverse(INDEX)).status_code for one in (client, leaving, passkeys)]
        passkey = passkeys.post(reverse("otp_webauthn:credential-registration-begin"))
    finally:
        connection.cursor().execute("SET default_transaction_read_only = off")

    assert [(page.status_code, "You are signed out in this browser" in page.content.decode()) for page in pages] == [
        (503, True)
    ] * 2
    assert (signed_in, passkey.status_code) == ([302, 302, 200], 503)
    sentence = "The database is read-only at the moment: nothing was saved. Try again when it accepts writes."
    assert passkey.json() == {"detail": sentence, "code": "refused"}


def test_five_wrong_old_passwords_close_the_page_that_changes_it(client, boss, settings):
    settings.SECOND_FACTOR = False
    client.force_login(boss)
    new = {"new_password1": "another-long-password-1", "new_password2": "another-long-password-1"}

    statuses = [
        client.post(reverse("admin:password_change"), {"old_password": old, **new}).status_code
        for old in (*(f"wrong {n}" for n in range(5)), PASSWORD)
    ]

    assert statuses == [200] * 4 + [429] * 2
    boss.refresh_from_db()
    assert boss.check_password(PASSWORD)
    [(said,)] = AccessAttempt.objects.values_list("post_data")
    assert {line for line in said.splitlines() if "=" in line} == {
        f"{name}=********************" for name in ("old_password", *new)
    }
