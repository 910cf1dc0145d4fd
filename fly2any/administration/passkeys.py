"""Passkeys of the staff: django-otp-webauthn's ceremonies (WebAuthn), for staff only, each ending in a session with a new key."""

from contextlib import suppress
from urllib.parse import urlsplit

from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db import DatabaseError, transaction
from django.http import JsonResponse
from django.urls import path
from django.views.i18n import JavaScriptCatalog
from django_otp_webauthn import exceptions, views
from django_otp_webauthn.helpers import WebAuthnHelper

from .refusals import in_one_sentence, is_refusal

app_name = "otp_webauthn"  # The namespace by which the library's templates find these URLs.


class Helper(WebAuthnHelper):
    """Passkeys belong to the host name in the request, which Django has checked against ALLOWED_HOSTS."""

    def get_relying_party_domain(self):
        return urlsplit(f"//{self.request.get_host()}").hostname

    def get_allowed_origins(self):
        return [f"{self.request.scheme}://{self.request.get_host()}"]


def lock_devices(user) -> None:
    """Let no other session set up a device of `user` until this transaction ends."""
    get_user_model()._base_manager.select_for_update(no_key=True).only("pk").get(pk=user.pk)


class ForStaff:
    """Also refuses what the library accepts: people who are not staff, and JSON that Python cannot read.

    A refusal of the database is answered as JSON too, whose sentence the page's script shows.
    """

    def dispatch(self, request, *args, **kwargs):
        try:
            response = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
            if request.session.modified:
                with suppress(UpdateError):  # Django reports it when it saves the session.
                    request.session.save()  # The write that a read-only database refuses.
            return response
        except DatabaseError as error:
            if not is_refusal(error):
                raise
            request.session.modified = False
            return JsonResponse({"detail": in_one_sentence(error), "code": "refused"}, status=503)

    def _parse_request_data(self, request):
        try:
            return super()._parse_request_data(request)  # type: ignore[misc]
        except (ValueError, RecursionError):
            raise exceptions.MalformedRequest from None

    def get_user(self):
        user = super().get_user()  # type: ignore[misc]
        return user if user and user.is_active and user.is_staff else None


class BeginRegistration(ForStaff, views.BeginCredentialRegistrationView):
    pass


class CompleteRegistration(ForStaff, views.CompleteCredentialRegistrationView):
    def post(self, *args, **kwargs):
        with transaction.atomic():
            lock_devices(self.request.user)
            self._check_user_verified(self.request.user)  # Another session may have been first.
            response = super().post(*args, **kwargs)
        self.request.session.cycle_key()
        return response


class BeginAuthentication(ForStaff, views.BeginCredentialAuthenticationView):
    pass


class CompleteAuthentication(ForStaff, views.CompleteCredentialAuthenticationView):
    def complete_auth(self, device):
        user = super().complete_auth(device)
        self.request.session.cycle_key()
        return user


urlpatterns = [
    path("registration/begin/", BeginRegistration.as_view(), name="credential-registration-begin"),
    path("registration/complete/", CompleteRegistration.as_view(), name="credential-registration-complete"),
    path("authentication/begin/", BeginAuthentication.as_view(), name="credential-authentication-begin"),
    path("authentication/complete/", CompleteAuthentication.as_view(), name="credential-authentication-complete"),
    path("jsi18n/", JavaScriptCatalog.as_view(packages=["django_otp_webauthn"]), name="js-i18n-catalog"),
]
