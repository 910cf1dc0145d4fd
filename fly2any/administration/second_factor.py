"""The second factor of the staff: a passkey or a code from an app (TOTP), and recovery codes for when both are lost.

`AdminSite.has_permission` (site.py) demands it for every page but those of this module. The ceremonies of a passkey are in
`passkeys`, under `admin/second-factor/passkey/`.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import segno
from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_lockout_response
from django import forms
from django.contrib.auth import logout as sign_out
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.crypto import salted_hmac
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.generic import View
from django_otp import devices_for_user, login, match_token
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp_webauthn.models import WebAuthnCredential

from .backends import in_turn, signing_out, take_turn
from .client_address import CODE
from .passkeys import Helper, lock_devices

RECOVERY_CODES = 10


def is_name(request) -> bool:
    """Return whether the request's host is a name: a passkey cannot belong to an IP address."""
    try:
        ip_address(Helper(request).get_relying_party_domain())
    except ValueError:
        return True
    return False


class CodeForm(forms.Form):
    code = forms.CharField(
        label="Code",
        max_length=16,
        widget=forms.TextInput({"autocomplete": "one-time-code", "autofocus": True, "spellcheck": "false"}),
    )


def has_factor(user) -> bool:
    """Return whether `user` has a device that was confirmed."""
    return any(devices_for_user(user))


@method_decorator(never_cache, name="dispatch")
class StaffPage(View):
    """A page for staff who have signed in with a password, but perhaps not shown a second factor."""

    site: Any = None  # The AdminSite.

    def dispatch(self, request, *args, **kwargs):
        if not (request.user.is_active and request.user.is_staff):
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        return super().dispatch(request, *args, **kwargs)

    def page(self, request, template, **context):
        return TemplateResponse(request, template, {**self.site.each_context(request), **context})

    def redirect_to_next(self, request):
        """Redirect to the page that the user requested, within the admin."""
        wanted = request.GET.get("next", "")
        safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
        return HttpResponseRedirect(wanted if safe else reverse("admin:index"))


class Leave(StaffPage):
    """Sign out a user who has not shown a second factor: the admin's sign-out page requires a second factor."""

    @method_decorator(signing_out)
    def post(self, request):
        sign_out(request)
        return HttpResponseRedirect(reverse("admin:login"))


class Verify(StaffPage):
    """Ask for a code, once per session."""

    def get(self, request, form=None):
        if request.user.is_verified():
            return self.redirect_to_next(request)
        if not has_factor(request.user):
            return HttpResponseRedirect(reverse("admin:second_factor_new"))
        context = {
            "form": form or CodeForm(),
            "passkey": WebAuthnCredential.objects.filter(user=request.user, confirmed=True).exists(),
        }
        return self.page(request, "admin/second_factor.html", title="Second factor", **context)

    @method_decorator(in_turn)
    def post(self, request):
        # Counted separately from passwords, because a correct password would reset the count.
        guessed = {"username": f"{request.user.get_username()}{CODE}", "email": request.user.get_username()}
        take_turn(request, guessed["username"])
        if not AxesProxyHandler.is_allowed(request, guessed):
            return get_lockout_response(request, credentials=guessed)
        form = CodeForm(request.POST)
        if form.is_valid():
            if device := match_token(request.user, form.cleaned_data["code"].replace(" ", "").lower()):
                login(request, device)
                request.session.cycle_key()
                return self.redirect_to_next(request)
            user_login_failed.send(sender=__name__, credentials=guessed, request=request)
            form.add_error(
                "code",
                "This code is wrong, was already used, or came too soon after a wrong one. Wait for the next code."
                " If that fails too, compare the clocks of the device and of this server: codes are accepted only if they differ by no more than half a minute.",
            )
        return self.get(request, form)


class Enrol(StaffPage):
    """Create a device: a passkey, or a secret shown as a QR code, stored with its first valid code; then the recovery codes."""

    def dispatch(self, request, *args, **kwargs):
        if request.user.is_authenticated and has_factor(request.user) and not request.user.is_verified():
            return HttpResponseRedirect(reverse("admin:second_factor"))  # Adding a second device requires the first one.
        return super().dispatch(request, *args, **kwargs)

    def new_device(self, request):
        """Return a device that is not stored yet. Its key follows from the session's, so that no other session has seen it."""
        key = salted_hmac(f"{__name__}.Enrol", request.session.session_key).hexdigest()
        return TOTPDevice(user=request.user, name="App", key=key)

    def get(self, request, form=None):
        device = self.new_device(request)
        picture = segno.make(device.config_url, micro=False).svg_inline(scale=4, border=2, light="#fff")
        secret = " ".join(device.config_url.partition("secret=")[2].partition("&")[0][i : i + 4] for i in range(0, 32, 4))
        context = {"picture": mark_safe(picture), "secret": secret, "form": form or CodeForm(), "by_name": is_name(request)}  # noqa: S308  segno's own SVG.
        return self.page(request, "admin/second_factor_new.html", title="Set up a second factor", **context)

    def post(self, request):
        form = CodeForm(request.POST)
        device = self.new_device(request)
        codes = HttpResponseRedirect(reverse("admin:second_factor_codes"))
        with transaction.atomic():
            lock_devices(request.user)
            if TOTPDevice.objects.filter(user=request.user, key=device.key).exists():  # The form was sent twice.
                return codes
            if has_factor(request.user) and not request.user.is_verified():  # Another session was first.
                return HttpResponseRedirect(reverse("admin:second_factor"))
            if not (verified := form.is_valid() and device.verify_token(form.cleaned_data["code"].replace(" ", ""))):
                transaction.set_rollback(True)  # A wrong code is counted on the device, which stores it.
        if not verified:
            form.add_error("code", "This code is wrong. Enter the code that the app shows now.")
            return self.get(request, form)
        login(request, device)
        request.session.cycle_key()
        return codes


class RecoveryCodes(StaffPage):
    """Replace the recovery codes by new ones, each valid once, and show them this time only."""

    def dispatch(self, request, *args, **kwargs):
        if request.user.is_authenticated and not request.user.is_verified():
            return HttpResponseRedirect(reverse("admin:second_factor"))
        return super().dispatch(request, *args, **kwargs)

    def get(self, request):
        left = StaticToken.objects.filter(device__user=request.user).count()
        return self.page(request, "admin/second_factor_codes.html", title="Recovery codes", left=left)

    def post(self, request):
        codes = [StaticToken.random_token() for _ in range(RECOVERY_CODES)]
        with transaction.atomic():
            StaticDevice.objects.filter(user=request.user).delete()
            recovery = StaticDevice.objects.create(user=request.user, name="Recovery codes")
            StaticToken.objects.bulk_create(StaticToken(device=recovery, token=code) for code in codes)
        return self.page(request, "admin/second_factor_codes.html", title="Recovery codes", codes=codes)
