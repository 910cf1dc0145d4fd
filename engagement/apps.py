from django.apps import AppConfig
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_login_failed


class EngagementConfig(AppConfig):
    name = "engagement"
    verbose_name = "Engagement"

    def ready(self):
        user_logged_in.connect(on_sign_in, dispatch_uid="engagement.sign_in")
        user_login_failed.connect(on_failure, dispatch_uid="engagement.failure")


def on_sign_in(sender, user, request=None, **kwargs):
    _record(user, request, success=True)


def on_failure(sender, credentials, request=None, **kwargs):
    """The history references users, so an attempt for an unknown address is not in it."""
    if getattr(request, "axes_locked_out", False):
        return  # Attempts during a lockout are not recorded, so they cannot fill the history.
    email = credentials.get("email") or credentials.get("username") or ""
    if "\0" not in email and (user := get_user_model().objects.by_email(email).first()):
        _record(user, request, success=False)


def _record(user, request, *, success):
    from fly2any.administration.client_address import address_of

    from .actions import record_sign_in

    if request is not None:
        agent = request.headers.get("User-Agent", "")
        record_sign_in(user=user, agent=agent, address=address_of(request), success=success)
