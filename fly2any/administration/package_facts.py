"""The facts that `fly2any.database.facts` lists, for the models of Django and of the packages we use."""

from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db.models import Model
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp_webauthn.models import WebAuthnAttestation, WebAuthnCredential, WebAuthnUserHandle

from fly2any.database.facts import OnErasure, Retention

from .client_address import CODE, OLD_PASSWORD

# axes counts wrong codes and wrong old passwords under the user name followed by a suffix.
BY_USERNAME = {"on_erasure": OnErasure.REMOVE, "address_fields": ("username",), "address_suffixes": (CODE, OLD_PASSWORD)}
# Text that the browser sent: a URL in it may contain a search for another person.
SENT = ("user_agent", "http_accept", "path_info")
FACTS: dict[type[Model], dict[str, Any]] = {
    TOTPDevice: {"secret_fields": ("key",)},
    StaticToken: {"secret_fields": ("token",)},
    Session: {
        "secret_fields": ("session_key", "session_data"),
        "retention": Retention("expired admin sessions", ("expire_date",), archived=False, expires=True),
    },
    # Log entries outlive the person. The names of staff and of other people in an entry are not the person's data.
    LogEntry: {
        "on_erasure": OnErasure.CLEAR,
        "fields_of_staff": ("user", "object_repr", "change_message"),
        "ids_of_subject": ("object_id",),
    },
    AccessAttempt: {
        **BY_USERNAME,
        "texts_of_others": (*SENT, "get_data", "post_data"),
        "retention": Retention("failed sign-ins to the admin", ("attempt_time",), with_rows="expiration", archived=False),
    },
    AccessFailureLog: {**BY_USERNAME, "texts_of_others": SENT},
    AccessLog: {**BY_USERNAME, "texts_of_others": SENT},
}
# What the pages call the second factors, in the singular and the plural. Django's migrations do not see these names.
NAMES: dict[type[Model], tuple[str, str]] = {
    TOTPDevice: ("authenticator app", "authenticator apps"),
    StaticDevice: ("set of recovery codes", "sets of recovery codes"),
    StaticToken: ("recovery code", "recovery codes"),
    WebAuthnCredential: ("passkey", "passkeys"),
    WebAuthnAttestation: ("passkey attestation", "passkey attestations"),
    WebAuthnUserHandle: ("user handle of passkeys", "user handles of passkeys"),
}


def declare() -> None:
    """Declare the facts on the models, as ours do themselves, and name the second factors."""
    for model, facts in FACTS.items():
        for name, value in facts.items():
            setattr(model, name, value)
    for model, names in NAMES.items():
        model._meta.verbose_name, model._meta.verbose_name_plural = names
