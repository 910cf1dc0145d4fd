"""Values seen in the text columns of this app. The database has no constraint: any other value must display too."""

from django.db.models import TextChoices


class NotificationType(TextChoices):
    BOOKING_CONFIRMED = "booking_confirmed", "Booking confirmed"
    BOOKING_CANCELLED = "booking_cancelled", "Booking cancelled"
    BOOKING_MODIFIED = "booking_modified", "Booking modified"
    PRICE_ALERT_TRIGGERED = "price_alert_triggered", "Price alert fired"
    PAYMENT_SUCCESSFUL = "payment_successful", "Payment successful"
    PAYMENT_FAILED = "payment_failed", "Payment failed"
    SYSTEM_UPDATE = "system_update", "System update"
    PROMOTION = "promotion", "Promotion"
    ACCOUNT_SECURITY = "account_security", "Account security"
    TRIP_REMINDER = "trip_reminder", "Trip reminder"


class Priority(TextChoices):
    LOW = "low", "Low"
    MEDIUM = "medium", "Medium"
    HIGH = "high", "High"
    URGENT = "urgent", "Urgent"


class EventType(TextChoices):
    """The site also writes `error:*`."""

    SEARCH = "search", "Search"
    VIEW = "view", "View"
    CLICK = "click", "Click"
    BOOK = "book", "Book"
    GUEST_EMAIL_CAPTURED = "guest_email_captured", "Guest e-mail captured"
