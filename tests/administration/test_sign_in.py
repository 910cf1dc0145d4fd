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

pytestmark = pytest.mark.django_db
PASSWORD = "a-long-password-1"
INDEX, SIGN_IN, VERIFY, ENROL, CODES = (
    f"admin:{name}" for name in ("index", "login", "second_factor", "second_factor_new", "second_factor_codes")
)


@pytest.fixture
def boss(settings):
    settings.SECOND_FACTOR = True
    return User.objects.create_superuser("boss@example.com", PASSWORD)


def sign_in(client, user, **more):
    return client.post(
        f"{reverse(SIGN_IN)}?next={reverse(INDEX)}", {"username": user.email, "password": PASSWORD, **more}, follow=True
    )


def code_of(device, later=0):
    """The code of a device, `later` steps of 30 s from now."""
    return f"{totp(device.bin_key, t0=-30 * later):06}"


def without_throttling():
    """Skip the wait after wrong codes, during which a device accepts none: one second, then two, four, …"""
    for model in (TOTPDevice, StaticDevice):
        model.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)


def shown(client):
    """A device with the secret that the page shows."""
    secret = re.search(r'<span class="secret">([A-Z2-7 ]+)</span>', client.get(reverse(ENROL)).content.decode())[1]
    return TOTPDevice(key=b32decode(secret.replace(" ", "")).hex())


def enrolled(client, user):
    page = client.post(reverse(ENROL), {"code": code_of(shown(client))})
    device = TOTPDevice.objects.filter(user=user).latest("pk")
    assert page.headers["Location"] == reverse(CODES)
    page = client.post(reverse(CODES))
    return device, re.findall(r"<code>(\w+)</code>", page.content.decode())


def test_staff_set_up_a_second_factor_before_they_see_anything(client, boss):
    page = sign_in(client, boss)

    assert page.redirect_chain[-1][0].startswith(reverse(ENROL))
    assert "<svg" in page.content.decode()
    assert client.get(reverse("admin:accounts_user_changelist")).status_code == 302
    client.post(reverse("admin:second_factor_leave"))
    assert client.get(reverse(ENROL)).headers["Location"].startswith(reverse(SIGN_IN))
    sign_in(client, boss)
    wrong = client.post(reverse(ENROL), {"code": "000000"})
    assert "This code is wrong" in wrong.content.decode()
    assert TOTPDevice.objects.count() == 0  # Neither the page nor a wrong code stores a device.
    device, codes = enrolled(client, boss)
    assert (len(codes), TOTPDevice.objects.get().confirmed) == (10, True)
    assert client.get(reverse(INDEX)).status_code == 200
    assert device.key not in client.get(reverse("admin:otp_totp_totpdevice_change", args=[device.pk])).content.decode()


def test_a_passkey_is_offered_only_at_a_host_name(client, boss):
    sign_in(client, boss)

    pages = [client.get(reverse(ENROL), headers={"host": host}).content.decode() for host in ("localhost", "127.0.0.1:8000")]

    offered = ["passkey-register-button" in page for page in pages]
    explained = ["this page was opened at an IP address" in page for page in pages]
    assert (offered, explained) == ([True, False], [False, True])


def test_the_next_sign_in_asks_for_a_code_and_takes_each_once(client, boss):
    sign_in(client, boss)
    device, codes = enrolled(client, boss)
    client.post(reverse("admin:logout"))

    page = sign_in(client, boss)
    assert page.redirect_chain[-1][0].startswith(reverse(VERIFY))
    assert client.get(reverse(INDEX)).status_code == 302
    for name in (ENROL, CODES):
        assert client.get(reverse(name)).headers["Location"] == reverse(VERIFY)
    assert client.post(reverse(CODES)).headers["Location"] == reverse(VERIFY)
    begin = client.post(reverse("otp_webauthn:credential-registration-begin"))
    assert (begin.status_code, begin.json()["code"]) == (403, "user_not_verified")
    used = client.post(reverse(VERIFY), {"code": code_of(device)})
    assert "This code is wrong, was already used" in used.content.decode()
    without_throttling()
    new = client.post(
        f"{reverse(VERIFY)}?next={reverse('admin:app_list', args=['travel'])}", {"code": code_of(device, later=1)}
    )
    assert new.headers["Location"] == reverse("admin:app_list", args=["travel"])
    assert client.get(reverse(INDEX)).status_code == 200

    client.post(reverse("admin:logout"))
    sign_in(client, boss)
    without_throttling()
    away = client.post(f"{reverse(VERIFY)}?next=https://evil.example/", {"code": codes[0]})
    assert away.headers["Location"] == reverse(INDEX)
    assert StaticToken.objects.count() == 9


def test_a_form_that_is_sent_twice_at_once_stores_one_device(client, boss, monkeypatch):
    monkeypatch.setattr("fly2any.administration.second_factor.has_factor", lambda user: False)  # As both requests saw it.
    sign_in(client, boss)
    device = TOTPDevice.objects.create(user=boss, name="App", key=shown(client).key)

    page = client.post(reverse(ENROL), {"code": code_of(device)})

    assert page.headers["Location"] == reverse(CODES)
    assert list(TOTPDevice.objects.all()) == [device]


def test_the_page_counts_the_recovery_codes_that_it_replaces(client, boss):
    sign_in(client, boss)
    enrolled(client, boss)
    said = []
    for left in (10, 1):
        StaticToken.objects.filter(pk__in=StaticToken.objects.order_by("pk")[left:].values("pk")).delete()
        said += re.findall(r"Your \d+ remaining codes?", client.get(reverse(CODES)).content.decode())

    assert said == ["Your 10 remaining codes", "Your 1 remaining code"]


def test_a_lost_device_is_removed_by_a_superuser_with_its_recovery_codes(client, boss):
    lost = User.objects.create_superuser("lost@example.com", PASSWORD)
    device = TOTPDevice.objects.create(user=lost, name="App")
    StaticDevice.objects.create(user=lost)
    sign_in(client, boss)
    enrolled(client, boss)

    client.post(reverse("admin:otp_totp_totpdevice_delete", args=[device.pk]), {"post": "yes"})

    assert not TOTPDevice.objects.filter(user=lost).exists()
    assert not StaticDevice.objects.filter(user=lost).exists()
    assert StaticDevice.objects.filter(user=boss).count() == 1


def test_recovery_codes_stay_while_another_device_is_left(client, boss):
    lost = User.objects.create_superuser("lost@example.com", PASSWORD)
    devices = [TOTPDevice.objects.create(user=lost, name="App"), WebAuthnCredential.objects.create(user=lost, name="Key")]
    StaticDevice.objects.create(user=lost)
    sign_in(client, boss)
    enrolled(client, boss)

    left = []
    for device in devices:
        client.post(reverse(f"admin:{device._meta.label_lower.replace('.', '_')}_delete", args=[device.pk]), {"post": "yes"})
        left.append(StaticDevice.objects.filter(user=lost).count())

    assert left == [1, 0]


def test_pages_of_the_second_factor_are_for_staff_who_signed_in(client, boss):
    for name in (VERIFY, ENROL, CODES):
        assert client.get(reverse(name)).headers["Location"].startswith(reverse(SIGN_IN))
    client.force_login(User.objects.create(email="ana@example.com"))
    for name in (VERIFY, ENROL):
        assert client.get(reverse(name)).headers["Location"].startswith(reverse(SIGN_IN))
    assert TOTPDevice.objects.count() == 0


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
    assert AccessAttempt.objects.get().failures_since_start == 5


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

    assert (page.status_code, "at most 254 characters" in page.content.decode()) == (200, True)


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


def test_a_secret_is_shown_only_to_its_session(client, boss):
    thief = type(client)()
    sign_in(thief, boss)
    planted = shown(thief)
    sign_in(client, boss)

    before = client.session.session_key
    device, _ = enrolled(client, boss)

    assert len({device.key, planted.key, shown(client).key}) == 3
    assert list(TOTPDevice.objects.all()) == [device]
    assert client.session.session_key != before
    assert thief.post(reverse(VERIFY), {"code": code_of(planted, later=1)}).status_code == 200


def test_wrong_codes_are_recorded_and_lock_the_address(client, boss):
    sign_in(client, boss)
    _, codes = enrolled(client, boss)
    client.post(reverse("admin:logout"))
    sign_in(client, boss)

    answers = []
    for _ in range(4):
        answers.append(client.post(reverse(VERIFY), {"code": "000000"}).status_code)
        sign_in(client, boss)  # The right password does not reset the count.
    answers.append(client.post(reverse(VERIFY), {"code": "000000"}).status_code)
    without_throttling()
    right = client.post(reverse(VERIFY), {"code": codes[0]})

    assert answers == [200, 200, 200, 200, 429]
    assert (right.status_code, client.get(reverse(INDEX)).status_code) == (429, 302)
    assert LoginHistory.objects.filter(user=boss, success=False).count() == 4


def test_codes_are_masked_in_the_records_of_guesses(client, boss):
    sign_in(client, boss)
    _, codes = enrolled(client, boss)
    client.post(reverse("admin:logout"))
    sign_in(client, boss)

    for code in ("000000", codes[0]):  # The second comes too soon after the first, and stays valid.
        client.post(reverse(VERIFY), {"code": code})

    assert StaticToken.objects.filter(token=codes[0]).exists()
    assert [codes[0] in f"{row.get_data}{row.post_data}" for row in AccessAttempt.objects.all()] == [False]


def test_ipv4_addresses_that_a_dual_stack_socket_maps_are_distinguished(client, boss):
    for _ in range(5):
        client.post(reverse(SIGN_IN), {"username": boss.email, "password": "wrong"}, REMOTE_ADDR="::ffff:192.0.2.1")
    elsewhere = client.post(reverse(SIGN_IN), {"username": boss.email, "password": PASSWORD}, REMOTE_ADDR="::ffff:198.51.100.9")

    assert elsewhere.status_code == 302
    assert {row.ip_address for row in LoginHistory.objects.all()} == {"192.0.2.1", "198.51.100.9"}


@pytest.mark.parametrize(
    "name", ["registration-begin", "registration-complete", "authentication-begin", "authentication-complete"]
)
def test_passkey_ceremonies_are_for_staff_and_refuse_invalid_json(client, boss, name):
    url = reverse(f"otp_webauthn:credential-{name}")
    odd = [client.post(url, body, content_type="application/json").status_code for body in (b"\xff", b"[" * 100_000)]
    client.force_login(User.objects.create(email="ana@example.com"))

    answer = client.post(url, {}, content_type="application/json")

    assert odd == [400, 400]
    assert answer.status_code in (401, 403)
    assert WebAuthnUserHandle.objects.count() == 0


def test_removing_a_device_also_removes_unconfirmed_ones(client, boss):
    lost = User.objects.create_superuser("lost@example.com", PASSWORD)
    device = TOTPDevice.objects.create(user=lost, name="App")
    TOTPDevice.objects.create(user=lost, name="App", confirmed=False)
    sign_in(client, boss)
    enrolled(client, boss)

    client.post(reverse("admin:otp_totp_totpdevice_delete", args=[device.pk]), {"post": "yes"})

    assert list(TOTPDevice.objects.values_list("user", flat=True)) == [boss.pk]


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

    assert [(page.status_code, "The database is read-only at the moment" in page.content.decode()) for page in pages] == [
        (503, True)
    ] * 4


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
    assert "The database is read-only at the moment" in passkey.content.decode()


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
