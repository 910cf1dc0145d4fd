from asgiref.sync import sync_to_async
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.validators import validate_email
from django.db import models
from django.db.models.functions import Upper

from fly2any.administration.permissions import PERMISSIONS
from fly2any.database.facts import OnErasure, Placement, Retention
from fly2any.postgres.deletion import DB_CASCADE
from fly2any.postgres.expressions import CurrentTimestamp, Folded, Words, random_text_id
from fly2any.postgres.fields import DateTimeField, TextIdField
from fly2any.postgres.indexes import Index

from . import passwords
from .choices import CabinClass, Currency, Gender, Language, Theme
from .querysets import AccountQuerySet, SessionQuerySet, UserManager, UserPreferencesQuerySet

NAMED_BY = ("name", "first_name", "last_name", "email")


class User(AbstractBaseUser, PermissionsMixin):
    """A person: a user of the site, and, where `is_staff`, of the admin."""

    named_by = NAMED_BY  # The columns that the admin's search for people reads, with one index over all of them.

    id = TextIdField()
    name = models.TextField(null=True, blank=True)
    email = models.TextField("e-mail", unique=True, validators=[validate_email])
    email_verified = DateTimeField("e-mail verified", db_column="emailVerified", null=True, blank=True)
    image = models.TextField(null=True, blank=True)
    # bcrypt as the site writes it; NULL for people who only sign in by OAuth.
    password = models.TextField(null=True, blank=True)  # type: ignore[assignment]
    first_name = models.TextField(db_column="firstName", null=True, blank=True)
    last_name = models.TextField(db_column="lastName", null=True, blank=True)
    phone = models.TextField(null=True, blank=True)
    date_of_birth = DateTimeField(db_column="dateOfBirth", null=True, blank=True)
    gender = models.TextField(null=True, blank=True, choices=Gender)
    country = models.TextField(null=True, blank=True)
    timezone = models.TextField("time zone", null=True, blank=True)
    bio = models.TextField(null=True, blank=True)
    avatar_url = models.TextField("avatar URL", db_column="avatarUrl", null=True, blank=True)
    profile_completed = models.BooleanField(db_column="profileCompleted", default=False, db_default=False)
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)
    updated_at = DateTimeField(db_column="updatedAt", auto_now=True)
    last_login = DateTimeField("last sign-in", db_column="lastLoginAt", null=True, blank=True)
    is_staff = models.BooleanField("staff", db_column="isStaff", default=False, db_default=False)
    is_superuser = models.BooleanField("superuser", db_column="isSuperuser", default=False, db_default=False)
    is_active = models.BooleanField("active", db_column="isActive", default=True, db_default=True)

    secret_fields = ("password",)
    address_fields = ("email",)
    long_texts = ("bio",)
    placement = Placement.REFERENCE

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = []

    class Meta:
        db_table = "users"
        default_permissions = PERMISSIONS
        indexes = [
            # The admin's list, newest first, and its ranges of time.
            Index(fields=["created_at"], name="users_createdAt_idx"),
            # The admin's list of the staff, which are few among millions.
            Index(fields=["created_at"], name="users_staff_idx", condition=models.Q(is_staff=True)),
            # The admin's search for an address in upper or lower case; Django's iexact compares in upper case.
            GinIndex(OpClass(Upper("email"), name="gin_trgm_ops"), name="users_email_trgm_idx"),
            # The admin's search for people by parts of their names and addresses.
            GinIndex(OpClass(Folded(Words(*NAMED_BY)), name="gin_trgm_ops"), name="users_words_trgm_idx"),
        ]

    def __str__(self):
        return self.email or self.pk  # The column may be nullable in another schema, which `dbstatus` reports.

    def get_full_name(self):
        """Return the name of the person: the profile's, otherwise first and last name, otherwise the e-mail address."""
        return self.name or " ".join(filter(None, [self.first_name, self.last_name])) or str(self)

    def get_short_name(self):
        """Return the first name, otherwise get_full_name()."""
        return self.first_name or self.get_full_name()

    def set_password(self, raw_password):
        """Set the password, or NULL, as the site writes it, if `raw_password` is None."""
        self.password = None if raw_password is None else passwords.make_hash(raw_password)
        self._password = raw_password

    def check_password(self, raw_password):
        return raw_password is not None and passwords.verify(raw_password, self.password)

    async def acheck_password(self, raw_password):
        return await sync_to_async(self.check_password)(raw_password)

    def set_unusable_password(self):
        self.set_password(None)

    def has_usable_password(self):
        return passwords.is_hash(self.password)


class Account(models.Model):
    """A user's account at an OAuth provider (NextAuth)."""

    id = TextIdField()
    user = models.ForeignKey(User, DB_CASCADE, db_column="userId", db_index=False, related_name="accounts")
    type = models.TextField()
    provider = models.TextField()
    provider_account_id = models.TextField("account at the provider", db_column="providerAccountId")
    refresh_token = models.TextField(null=True, blank=True)
    access_token = models.TextField(null=True, blank=True)
    expires_at = models.IntegerField(null=True, blank=True)
    token_type = models.TextField(null=True, blank=True)
    scope = models.TextField(null=True, blank=True)
    id_token = models.TextField("ID token", null=True, blank=True)
    session_state = models.TextField(null=True, blank=True)

    secret_fields = ("refresh_token", "access_token", "id_token", "session_state")
    person_field = "user"

    objects = AccountQuerySet.as_manager()

    class Meta:
        db_table = "accounts"
        default_permissions = PERMISSIONS
        verbose_name = "OAuth account"
        indexes = [
            # AccountQuerySet.of_user, and deleting a user.
            Index(fields=["user"], name="accounts_userId_idx"),
        ]
        constraints = [
            # AccountQuerySet.linked_as: every sign-in by OAuth.
            models.UniqueConstraint(fields=["provider", "provider_account_id"], name="accounts_provider_providerAccountId_key"),
        ]

    def __str__(self):
        return f"{self.provider}: {self.provider_account_id}"


class Session(models.Model):
    """A session of NextAuth's database strategy; the site signs in with JWT, so there are few or none."""

    id = TextIdField()
    # Unique: SessionQuerySet.by_token.
    session_token = models.TextField(db_column="sessionToken", unique=True)
    user = models.ForeignKey(User, DB_CASCADE, db_column="userId", db_index=False, related_name="sessions")
    expires = DateTimeField()

    secret_fields = ("session_token",)
    person_field = "user"
    retention = Retention("expired NextAuth sessions", ("expires",), archived=False, expires=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        db_table = "sessions"
        default_permissions = PERMISSIONS
        verbose_name = "NextAuth session"
        indexes = [
            # SessionQuerySet.of_user, and deleting a user.
            Index(fields=["user"], name="sessions_userId_idx"),
        ]

    def __str__(self):
        return f"Session until {self.expires:%Y-%m-%d %H:%M} UTC"


class VerificationToken(models.Model):
    """A token sent by e-mail. `identifier` is the address, which need not be a user's."""

    identifier = models.TextField()
    token = models.TextField(unique=True)
    expires = DateTimeField()
    # The last column, as in a database that Prisma created (deviation D2).
    id = TextIdField(db_default=random_text_id())

    secret_fields = ("token",)
    on_erasure = OnErasure.REMOVE
    address_fields = ("identifier",)
    retention = Retention("expired tokens", ("expires",), archived=False, expires=True)
    key_beyond_guide = True

    class Meta:
        db_table = "verification_tokens"
        default_permissions = PERMISSIONS
        constraints = [
            models.UniqueConstraint(fields=["identifier", "token"], name="verification_tokens_identifier_token_key"),
        ]

    def __str__(self):
        return f"{self.identifier} until {self.expires:%Y-%m-%d %H:%M} UTC"


class UserPreferences(models.Model):
    """The preferences of a user; without a row, the defaults below apply."""

    id = TextIdField()
    user = models.OneToOneField(User, DB_CASCADE, db_column="userId", related_name="preferences")
    preferred_cabin_class = models.TextField(db_column="preferredCabinClass", null=True, blank=True, choices=CabinClass)
    # NULL and an empty list mean the same.
    preferred_airlines = ArrayField(models.TextField(), db_column="preferredAirlines", null=True, blank=True)
    home_airport = models.TextField(db_column="homeAirport", null=True, blank=True)
    email_notifications = models.BooleanField(
        "e-mail notifications", db_column="emailNotifications", default=True, db_default=True
    )
    price_alert_emails = models.BooleanField("price alert e-mails", db_column="priceAlertEmails", default=True, db_default=True)
    deal_alerts = models.BooleanField(db_column="dealAlerts", default=True, db_default=True)
    newsletter_opt_in = models.BooleanField("newsletter", db_column="newsletterOptIn", default=False, db_default=False)
    currency = models.TextField(choices=Currency, default=Currency.USD, db_default="USD")
    language = models.TextField(choices=Language, default=Language.ENGLISH, db_default="en")
    theme = models.TextField(choices=Theme, default=Theme.LIGHT, db_default="light")
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)
    updated_at = DateTimeField(db_column="updatedAt", auto_now=True)

    person_field = "user"

    nouns = ("set of preferences", "sets of preferences")

    objects = UserPreferencesQuerySet.as_manager()

    class Meta:
        db_table = "user_preferences"
        default_permissions = PERMISSIONS
        verbose_name = "preferences"
        verbose_name_plural = "preferences"

    def __str__(self):
        return f"Preferences of {self.user_id}"
