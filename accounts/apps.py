from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "Accounts"

    def ready(self):
        from .models import UserPreferences

        # The name of one row in messages. It is set here, not in Meta, so that makemigrations writes no migration for it.
        UserPreferences._meta.verbose_name = UserPreferences.nouns[0]
        user_logged_in.connect(on_sign_in, dispatch_uid="accounts.preferences")


def on_sign_in(sender, user, **kwargs):
    """Create the default preferences at a person's first sign-in, which the guide leaves to the app; staff are people too."""
    from .actions import ensure_preferences

    ensure_preferences(user=user, using=user._state.db)
