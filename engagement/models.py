from django.conf import settings
from django.db import models
from django.db.models.functions import Left

from fly2any.administration.permissions import PERMISSIONS
from fly2any.database.facts import Placement, Retention
from fly2any.postgres.deletion import DB_CASCADE
from fly2any.postgres.expressions import CurrentTimestamp
from fly2any.postgres.fields import DateTimeField, JSONField, TextIdField
from fly2any.postgres.indexes import Index

from . import user_agents
from .choices import EventType, NotificationType, Priority
from .querysets import (
    LoginHistoryQuerySet,
    NotificationQuerySet,
    PushSubscriptionQuerySet,
    UserActivityQuerySet,
    UserSessionQuerySet,
    WishlistItemQuerySet,
)


class WishlistItem(models.Model):
    """A flight on a user's wishlist. `flight_data`: {id, origin, destination, departureDate, price, currency, airline?, …}."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="wishlist_items"
    )
    flight_data = JSONField(db_column="flightData")
    notes = models.TextField(null=True, blank=True)
    target_price = models.FloatField(db_column="targetPrice", null=True, blank=True)
    notify_on_drop = models.BooleanField(db_column="notifyOnDrop", default=True, db_default=True)
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)
    updated_at = DateTimeField(db_column="updatedAt", auto_now=True)

    long_texts = ("notes",)
    person_field = "user"
    # The site's later schema stores other products too, which have no flight. Where it has the second column, it inserts rows
    # without the first; elsewhere a column that may be NULL is noted.
    nullable_beside = {"flight_data": "productType"}
    placement = Placement.DISTRIBUTED

    objects = WishlistItemQuerySet.as_manager()

    class Meta:
        db_table = "wishlist_items"
        default_permissions = PERMISSIONS
        indexes = [
            # WishlistItemQuerySet.of_user.
            Index(fields=["user", "created_at"], name="wishlist_items_userId_createdAt_idx"),
            # Deleting a user; a prefix of the one above, kept because the guide lists it.
            Index(fields=["user"], name="wishlist_items_userId_idx"),
        ]

    def __str__(self):
        flight = self.flight_data if isinstance(self.flight_data, dict) else {}
        return f"{flight.get('origin', '?')} → {flight.get('destination', '?')}, {flight.get('departureDate', '?')}"


class Notification(models.Model):
    """A message to a user in the site."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="notifications"
    )
    type = models.TextField(choices=NotificationType)
    title = models.TextField()
    message = models.TextField()
    priority = models.TextField(choices=Priority, default=Priority.MEDIUM, db_default="medium")
    read = models.BooleanField(default=False, db_default=False)
    action_url = models.TextField("action URL", db_column="actionUrl", null=True, blank=True)
    metadata = JSONField(null=True, blank=True)
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)
    read_at = DateTimeField(db_column="readAt", null=True, blank=True)

    long_texts = ("message",)
    person_field = "user"
    retention = Retention("read notifications", ("created_at", "read_at"), only="read")
    placement = Placement.DISTRIBUTED

    objects = NotificationQuerySet.as_manager()

    class Meta:
        db_table = "notifications"
        default_permissions = PERMISSIONS
        indexes = [
            # The newest of all, and deletion before a cutoff.
            Index(fields=["created_at"], name="notifications_createdAt_idx"),
            # NotificationQuerySet.unread_of_user, and deleting a user.
            Index(fields=["user", "read"], name="notifications_userId_read_idx"),
            # NotificationQuerySet.of_user.
            Index(fields=["user", "-created_at"], name="notifications_userId_createdAt_idx"),
        ]

    def __str__(self):
        return self.title


class PushSubscription(models.Model):
    """A browser in which a user receives push notifications."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="push_subscriptions"
    )
    # Unique: PushSubscriptionQuerySet.at_endpoint.
    endpoint = models.TextField(unique=True)
    p256dh = models.TextField()
    auth = models.TextField()
    user_agent = models.TextField(db_column="userAgent", null=True, blank=True)
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)

    secret_fields = ("endpoint", "p256dh", "auth")
    person_field = "user"

    objects = PushSubscriptionQuerySet.as_manager()

    class Meta:
        db_table = "push_subscriptions"
        default_permissions = PERMISSIONS
        indexes = [
            # PushSubscriptionQuerySet.of_user, and deleting a user.
            Index(fields=["user"], name="push_subscriptions_userId_idx"),
        ]

    def __str__(self):
        return f"Push subscription {self.id}"


class UserActivity(models.Model):
    """An action of a user or a guest. It outlives its user, so `user_id` may refer to no row."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.DO_NOTHING,
        db_column="userId",
        db_constraint=False,
        db_index=False,
        null=True,
        blank=True,
        related_name="activities",
    )
    event_type = models.TextField(db_column="eventType", choices=EventType)
    event_data = JSONField(db_column="eventData", null=True, blank=True)
    ip_address = models.TextField("IP address", db_column="ipAddress", null=True, blank=True)
    user_agent = models.TextField(db_column="userAgent", null=True, blank=True)
    referrer = models.TextField(null=True, blank=True)
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)

    person_field = "user"
    retention = Retention("activities", ("created_at",))
    placement = Placement.DISTRIBUTED

    objects = UserActivityQuerySet.as_manager()

    class Meta:
        db_table = "user_activities"
        default_permissions = PERMISSIONS
        verbose_name = "activity"
        verbose_name_plural = "activities"
        indexes = [
            # The site's figures per kind of event and day.
            Index(fields=["event_type", "created_at"], name="user_activities_eventType_createdAt_idx"),
            # UserActivityQuerySet.of_user.
            Index(fields=["user", "created_at"], name="user_activities_userId_createdAt_idx"),
            # The admin's list, newest first, and its ranges of time.
            Index(fields=["created_at"], name="user_activities_createdAt_idx"),
        ]

    def __str__(self):
        return f"{self.get_event_type_display()} at {self.created_at:%Y-%m-%d %H:%M} UTC"


class UserSession(models.Model):
    """A device on which a user is signed in."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="user_sessions"
    )
    token = models.TextField(unique=True)
    device = models.TextField(null=True, blank=True)
    browser = models.TextField(null=True, blank=True)
    os = models.TextField("operating system", null=True, blank=True)
    location = models.TextField(null=True, blank=True)
    ip_address = models.TextField("IP address", db_column="ipAddress", null=True, blank=True)
    last_active = DateTimeField(db_column="lastActive", db_default=CurrentTimestamp())
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)

    secret_fields = ("token",)
    person_field = "user"
    retention = Retention("devices no longer in use", ("last_active",), archived=False)

    objects = UserSessionQuerySet.as_manager()

    class Meta:
        db_table = "user_sessions"
        default_permissions = PERMISSIONS
        verbose_name = "signed-in device"
        indexes = [
            # Deleting a user; a prefix of the next one, kept because the guide lists it.
            Index(fields=["user"], name="user_sessions_userId_idx"),
            # UserSessionQuerySet.of_user.
            Index(fields=["user", "last_active"], name="user_sessions_userId_lastActive_idx"),
            # The admin's search for an IP address, newest first. An index entry has a size limit; the site's texts have none.
            Index(Left("ip_address", 64), "last_active", name="user_sessions_ipAddress_lastActive_idx"),
        ]

    def __str__(self):
        return ", ".join(user_agents.known(self.device, self.browser, self.os)) or "Unknown device"


class LoginHistory(models.Model):
    """A sign-in, or an attempt at one."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="login_history"
    )
    device = models.TextField(null=True, blank=True)
    browser = models.TextField(null=True, blank=True)
    os = models.TextField("operating system", null=True, blank=True)
    location = models.TextField(null=True, blank=True)
    ip_address = models.TextField("IP address", db_column="ipAddress", null=True, blank=True)
    success = models.BooleanField(default=True, db_default=True)
    timestamp = DateTimeField(db_default=CurrentTimestamp())

    person_field = "user"
    retention = Retention("sign-ins", ("timestamp",))
    placement = Placement.DISTRIBUTED

    objects = LoginHistoryQuerySet.as_manager()

    class Meta:
        db_table = "login_history"
        default_permissions = PERMISSIONS
        verbose_name = "sign-in"
        indexes = [
            # LoginHistoryQuerySet.of_user, and deleting a user.
            Index(fields=["user", "timestamp"], name="login_history_userId_timestamp_idx"),
            # The admin's list, newest first, and its ranges of time.
            Index(fields=["timestamp"], name="login_history_timestamp_idx"),
            # The admin's search for an IP address, newest first. An index entry has a size limit; the site's texts have none.
            Index(Left("ip_address", 64), "timestamp", name="login_history_ipAddress_timestamp_idx"),
        ]

    def __str__(self):
        return f"{'Sign-in' if self.success else 'Failed sign-in'} at {self.timestamp:%Y-%m-%d %H:%M} UTC"
