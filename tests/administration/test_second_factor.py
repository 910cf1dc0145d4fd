"""The second factor: a device or a passkey, its codes and its recovery codes."""

import re

import pytest
from axes.models import AccessAttempt
from django.test import Client
from django.urls import reverse
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp_webauthn.models import WebAuthnCredential, WebAuthnUserHandle

from accounts.models import User
from engagement.models import LoginHistory
from tests.administration.conftest import PASSWORD
from tests.administration.test_sign_in import CODES, ENROL, INDEX, SIGN_IN, VERIFY, code_of, shown, sign_in

pytestmark = pytest.mark.django_db


def without_throttling():
    """Skip the wait after wrong codes, during which a device accepts none: one second, then two, four, …"""
    for model in (TOTPDevice, StaticDevice):
        model.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)


def enrolled(client, user):
    page = client.post(reverse(ENROL), {"code": code_of(shown(client))})
    device = TOTPDevice.objects.filter(user=user).latest("pk")
    assert page.headers["Location"] == reverse(CODES)
    page = client.post(reverse(CODES))
    return device, re.findall(r"<code>(\w+)</code>", page.content.decode())


@pytest.mark.slow
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


@pytest.mark.slow
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
    # The code of the enrolment, or the one before it: half a minute may have begun since.
    used = client.post(reverse(VERIFY), {"code": code_of(device, later=-1)})
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
    away = client.post(f"{reverse(VERIFY)}?next=https://evil.example/", {"code": codes[0].upper()})
    assert away.headers["Location"] == reverse(INDEX)
    assert StaticToken.objects.count() == 9


def test_a_form_that_is_sent_twice_at_once_stores_one_device(client, boss, monkeypatch):
    monkeypatch.setattr("fly2any.administration.second_factor.has_factor", lambda user: False)  # As both requests saw it.
    sign_in(client, boss)
    device = TOTPDevice.objects.create(user=boss, name="App", key=shown(client).key)

    page = client.post(reverse(ENROL), {"code": code_of(device)})

    assert page.headers["Location"] == reverse(CODES)
    assert list(TOTPDevice.objects.all()) == [device]


def test_of_two_sessions_that_set_up_the_first_device_at_once_one_is_asked_for_the_others(client, boss, monkeypatch):
    sign_in(client, boss)
    code = code_of(shown(client))
    for module in ("second_factor", "passkeys"):  # The other session commits before this one has the lock.
        monkeypatch.setattr(
            f"fly2any.administration.{module}.lock_devices", lambda user: TOTPDevice.objects.create(user=user, name="Other")
        )

    passkey = client.post(reverse("otp_webauthn:credential-registration-complete"), {}, content_type="application/json")

    assert (passkey.status_code, "verify your identity first" in passkey.content.decode()) == (403, True)
    TOTPDevice.objects.all().delete()
    page = client.post(reverse(ENROL), {"code": code})
    assert page.headers["Location"] == reverse(VERIFY)
    assert [*TOTPDevice.objects.values_list("name", flat=True)] == ["Other"]


def test_the_page_counts_the_recovery_codes_that_it_replaces(client, boss):
    sign_in(client, boss)
    enrolled(client, boss)
    said = []
    for left in (10, 1):
        StaticToken.objects.filter(pk__in=StaticToken.objects.order_by("pk")[left:].values("pk")).delete()
        said += re.findall(r"Your \d+ remaining codes?", client.get(reverse(CODES)).content.decode())

    assert said == ["Your 10 remaining codes", "Your 1 remaining code"]


@pytest.mark.slow
def test_a_lost_device_is_removed_by_a_superuser_with_its_recovery_codes(client, boss):
    lost = User.objects.create_superuser("lost@example.com", PASSWORD)
    device = TOTPDevice.objects.create(user=lost, name="App")
    StaticDevice.objects.create(user=lost)
    browser = Client()
    browser.force_login(lost)
    sign_in(client, boss)
    enrolled(client, boss)

    removed = client.post(reverse("admin:otp_totp_totpdevice_delete", args=[device.pk]), {"post": "yes"}, follow=True)

    assert "The user was signed out of the admin." in removed.content.decode()
    assert browser.get(reverse("admin:second_factor")).url.startswith(reverse("admin:login"))
    assert client.get(reverse("admin:index")).status_code == 200
    assert not TOTPDevice.objects.filter(user=lost).exists()
    assert not StaticDevice.objects.filter(user=lost).exists()
    assert StaticDevice.objects.filter(user=boss).count() == 1


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_codes_are_masked_in_the_records_of_guesses(client, boss, settings):
    settings.OTP_STATIC_THROTTLE_FACTOR = 60  # Seconds after a wrong code: a slow machine takes longer than the usual one.
    sign_in(client, boss)
    _, codes = enrolled(client, boss)
    client.post(reverse("admin:logout"))
    sign_in(client, boss)

    for code in ("000000", codes[0]):  # The second comes too soon after the first, and stays valid.
        client.post(reverse(VERIFY), {"code": code})

    assert StaticToken.objects.filter(token=codes[0]).exists()
    assert [codes[0] in f"{row.get_data}{row.post_data}" for row in AccessAttempt.objects.all()] == [False]


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
