from django.contrib.auth.base_user import BaseUserManager
from django.db import models


class UserQuerySet(models.QuerySet):
    def by_email(self, email):
        """The user with exactly this e-mail address."""
        return self.filter(email=email)


class UserManager(BaseUserManager.from_queryset(UserQuerySet)):  # type: ignore[misc]
    def create_user(self, email, password=None, **attributes):
        """Create a user, who can sign in by password if one is given; raise ValueError without an e-mail address."""
        if not email:
            raise ValueError("A user needs an e-mail address.")
        user = self.model(email=self.normalize_email(email), **attributes)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email, password=None, **attributes):
        """Create a user who may do everything in the admin."""
        return self.create_user(email, password, **{**attributes, "is_staff": True, "is_superuser": True})


class AccountQuerySet(models.QuerySet):
    def linked_as(self, *, provider, provider_account_id):
        """The linked account with this ID at an OAuth provider, one at most."""
        return self.filter(provider=provider, provider_account_id=provider_account_id)

    def of_user(self, user_id):
        """The OAuth accounts linked to a user."""
        return self.filter(user_id=user_id)


class SessionQuerySet(models.QuerySet):
    def by_token(self, token):
        """The session with this token, one at most."""
        return self.filter(session_token=token)

    def of_user(self, user_id):
        """The sessions of a user."""
        return self.filter(user_id=user_id)


class UserPreferencesQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The preferences of a user: one row, or none, which means the defaults."""
        return self.filter(user_id=user_id)
