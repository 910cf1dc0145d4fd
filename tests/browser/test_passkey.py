"""A passkey as the second factor, in a real Chromium with an authenticator of its own."""

import pytest
from django.urls import reverse
from django_otp_webauthn.models import WebAuthnCredential

from accounts.models import User
from tests.browser.conftest import follow

pytestmark = pytest.mark.django_db(transaction=True)
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def sign_in(page, server):
    page.goto(f"{server.url}{reverse('admin:app_list', args=['travel'])}")
    page.fill("#id_username", "staff@demo.fly2any.example")
    page.fill("#id_password", "a-long-password-1")
    follow(page, "[type=submit]")


def key(page):
    """The key of the session."""
    return next(cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "sessionid")


@pytest.mark.slow
def test_staff_make_a_passkey_and_sign_in_with_it(browser, live_server, settings):
    settings.SECOND_FACTOR = True
    User.objects.create_superuser("staff@demo.fly2any.example", "a-long-password-1")
    page = browser.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    authenticator = devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})["authenticatorId"]

    sign_in(page, live_server)
    before = key(page)
    follow(page, "text=Create a passkey")
    assert key(page) != before
    assert page.url == live_server.url + reverse("admin:second_factor_codes")
    follow(page, "text=Show ten recovery codes")
    assert page.locator(".codes li").count() == 10
    follow(page, "text=Go to the admin")
    assert page.url == live_server.url + reverse("admin:index")

    follow(page, "text=Sign out")
    sign_in(page, live_server)
    assert page.url.startswith(live_server.url + reverse("admin:second_factor"))
    before = key(page)
    follow(page, "text=Use a passkey")
    assert key(page) != before
    assert page.url == live_server.url + reverse("admin:app_list", args=["travel"])
    assert complaints == []

    # Without the passkey, sign-in fails.
    follow(page, "text=Sign out")
    devtools.send("WebAuthn.clearCredentials", {"authenticatorId": authenticator})
    sign_in(page, live_server)
    page.click("text=Use a passkey")
    page.wait_for_selector("#passkey-verification-status-message.visible >> text=canceled or not allowed")
    page.goto(f"{live_server.url}{reverse('admin:index')}")
    assert page.url.startswith(live_server.url + reverse("admin:second_factor"))
    assert WebAuthnCredential.objects.count() == 1
