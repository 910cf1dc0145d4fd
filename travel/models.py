from django.conf import settings
from django.db import models
from django.db.models.functions import Left

from fly2any.administration.formats import plain_amount
from fly2any.administration.permissions import PERMISSIONS
from fly2any.database.facts import Placement, Retention
from fly2any.postgres.deletion import DB_CASCADE
from fly2any.postgres.expressions import CurrentTimestamp
from fly2any.postgres.fields import DateTimeField, JSONField, TextIdField
from fly2any.postgres.indexes import Index

from .choices import CabinClass, Provider, Trigger
from .querysets import (
    PriceAlertQuerySet,
    PriceHistoryQuerySet,
    PriceMonitorLogQuerySet,
    RecentSearchQuerySet,
    SavedSearchQuerySet,
)


class SavedSearch(models.Model):
    """A flight search that a user saved. Dates are text, `YYYY-MM-DD`, sometimes several, comma-separated."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="saved_searches"
    )
    name = models.TextField()
    origin = models.TextField()
    destination = models.TextField()
    depart_date = models.TextField("departure date", db_column="departDate")
    return_date = models.TextField(db_column="returnDate", null=True, blank=True)
    adults = models.IntegerField(default=1, db_default=1)
    children = models.IntegerField(default=0, db_default=0)
    infants = models.IntegerField(default=0, db_default=0)
    cabin_class = models.TextField(db_column="cabinClass", choices=CabinClass, default=CabinClass.ECONOMY, db_default="economy")
    filters = JSONField(null=True, blank=True)
    search_count = models.IntegerField(db_column="searchCount", default=1, db_default=1)
    last_searched = DateTimeField(db_column="lastSearched", db_default=CurrentTimestamp())
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)
    updated_at = DateTimeField(db_column="updatedAt", auto_now=True)

    person_field = "user"
    placement = Placement.DISTRIBUTED

    objects = SavedSearchQuerySet.as_manager()

    class Meta:
        db_table = "saved_searches"
        default_permissions = PERMISSIONS
        verbose_name_plural = "saved searches"
        indexes = [
            # Deleting a user; a prefix of the next one, kept because the guide lists it.
            Index(fields=["user"], name="saved_searches_userId_idx"),
            # SavedSearchQuerySet.of_user.
            Index(fields=["user", "last_searched"], name="saved_searches_userId_lastSearched_idx"),
        ]

    def __str__(self):
        return self.name


class PriceAlert(models.Model):
    """An alert that fires when the price of a route falls to the target."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="price_alerts"
    )
    origin = models.TextField()
    destination = models.TextField()
    depart_date = models.TextField("departure date", db_column="departDate")
    return_date = models.TextField(db_column="returnDate", null=True, blank=True)
    current_price = models.FloatField("last checked price", db_column="currentPrice")
    target_price = models.FloatField(db_column="targetPrice")
    currency = models.TextField(default="USD", db_default="USD")
    active = models.BooleanField(default=True, db_default=True)
    triggered = models.BooleanField("fired", default=False, db_default=False)
    last_checked = DateTimeField(db_column="lastChecked", db_default=CurrentTimestamp())
    triggered_at = DateTimeField("fired at", db_column="triggeredAt", null=True, blank=True)
    last_notified_at = DateTimeField(db_column="lastNotifiedAt", null=True, blank=True)
    notification_count = models.IntegerField(db_column="notificationCount", default=0, db_default=0)
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)
    updated_at = DateTimeField(db_column="updatedAt", auto_now=True)

    person_field = "user"
    marks_schema = True
    placement = Placement.DISTRIBUTED

    objects = PriceAlertQuerySet.as_manager()

    class Meta:
        db_table = "price_alerts"
        default_permissions = PERMISSIONS
        indexes = [
            # The site's count of active alerts.
            Index(fields=["active"], name="price_alerts_active_idx"),
            # PriceAlertQuerySet.active_of_user, and deleting a user.
            Index(fields=["user", "active"], name="price_alerts_userId_active_idx"),
            # The admin's search for the alerts of a route, newest first. An index entry has a size limit; the site's texts have none.
            Index(Left("origin", 8), Left("destination", 8), "created_at", name="price_alerts_route_createdAt_idx"),
            # PriceAlertQuerySet.queue and due.
            Index(
                fields=["last_checked"], name="price_alerts_lastChecked_idx", condition=models.Q(active=True, triggered=False)
            ),
        ]

    def __str__(self):
        return f"{self.origin} → {self.destination}, {self.depart_date}, at {plain_amount(self.target_price, self.currency)}"


class RecentSearch(models.Model):
    """A destination that a user viewed, as the start page shows it."""

    id = TextIdField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, DB_CASCADE, db_column="userId", db_index=False, related_name="recent_searches"
    )
    city = models.TextField()
    country = models.TextField()
    airport_code = models.TextField(db_column="airportCode")
    image_url = models.TextField("image URL", db_column="imageUrl", null=True, blank=True)
    origin = models.TextField(null=True, blank=True)
    price = models.FloatField()
    original_price = models.FloatField(db_column="originalPrice", null=True, blank=True)
    depart_date = models.TextField("departure date", db_column="departDate", null=True, blank=True)
    return_date = models.TextField(db_column="returnDate", null=True, blank=True)
    viewed_at = DateTimeField(db_column="viewedAt", db_default=CurrentTimestamp())

    person_field = "user"
    retention = Retention("recent searches", ("viewed_at",))
    placement = Placement.DISTRIBUTED

    objects = RecentSearchQuerySet.as_manager()

    class Meta:
        db_table = "recent_searches"
        default_permissions = PERMISSIONS
        verbose_name_plural = "recent searches"
        indexes = [
            # RecentSearchQuerySet.of_user, and deleting a user.
            Index(fields=["user", "viewed_at"], name="recent_searches_userId_viewedAt_idx"),
        ]

    def __str__(self):
        return f"{self.city} ({self.airport_code})"


class PriceHistory(models.Model):
    """A price recorded for a route and a departure date."""

    id = TextIdField()
    origin = models.TextField()
    destination = models.TextField()
    depart_date = models.TextField("departure date", db_column="departDate")
    return_date = models.TextField(db_column="returnDate", null=True, blank=True)
    price = models.FloatField()
    currency = models.TextField(default="USD", db_default="USD")
    provider = models.TextField(choices=Provider)
    timestamp = DateTimeField(db_default=CurrentTimestamp())

    retention = Retention("prices", ("timestamp",))
    placement = Placement.DISTRIBUTED

    nouns = ("price", "prices")

    objects = PriceHistoryQuerySet.as_manager()

    class Meta:
        db_table = "price_history"
        default_permissions = PERMISSIONS
        verbose_name = "price"
        verbose_name_plural = "price history"
        indexes = [
            # PriceHistoryQuerySet.of_route.
            Index(fields=["origin", "destination", "depart_date"], name="price_history_origin_destination_departDate_idx"),
            # PriceHistoryQuerySet.before.
            Index(fields=["timestamp"], name="price_history_timestamp_idx"),
        ]

    def __str__(self):
        return f"{self.origin} → {self.destination}, {self.depart_date}: {plain_amount(self.price, self.currency)}"


class PriceMonitorLog(models.Model):
    """A run of the price monitor. `errors` is JSON null for a run without errors, otherwise a list of {alertId, error}."""

    id = TextIdField()
    execution_time = DateTimeField(db_column="executionTime", db_default=CurrentTimestamp())
    alerts_checked = models.IntegerField(db_column="alertsChecked")
    alerts_triggered = models.IntegerField("alerts fired", db_column="alertsTriggered")
    alerts_failed = models.IntegerField(db_column="alertsFailed")
    errors = JSONField(null=True, blank=True)
    duration = models.IntegerField()
    triggered_by = models.TextField(db_column="triggeredBy", choices=Trigger)

    retention = Retention("runs of the price monitor", ("execution_time",))
    placement = Placement.DISTRIBUTED

    objects = PriceMonitorLogQuerySet.as_manager()

    class Meta:
        db_table = "price_monitor_logs"
        default_permissions = PERMISSIONS
        verbose_name = "price monitor run"
        indexes = [
            # PriceMonitorLogQuerySet.newest_first.
            Index(fields=["execution_time"], name="price_monitor_logs_executionTime_idx"),
        ]

    def __str__(self):
        return f"Run of {self.execution_time:%Y-%m-%d %H:%M} UTC"
