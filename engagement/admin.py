from datetime import timedelta

from django.contrib import admin
from django.db.models import Q
from django.utils import timezone

from accounts.admin import SIGN_OUT
from accounts.models import User
from fly2any.administration import formats
from fly2any.administration.dashboard import Figure
from fly2any.administration.list_actions import confirmed
from fly2any.administration.options import ModelAdmin, ReadOnlyModelAdmin, UserRowsMixin
from fly2any.administration.overview_actions import Step
from fly2any.administration.saving import remove_rows
from fly2any.administration.search import Address

from . import user_agents
from .actions import mark_notifications_read
from .models import LoginHistory, Notification, PushSubscription, UserActivity, UserSession, WishlistItem


@admin.register(WishlistItem)
class WishlistItemAdmin(UserRowsMixin, ModelAdmin):
    list_display = ["__str__", "user_link", "target_price", "notify_on_drop", "created_at"]
    shown = {"target_price": formats.money()}
    amounts = ("target_price",)
    computed_from = ("flight_data",)
    list_filter = ["notify_on_drop"]
    ordering = ["-pk"]
    fieldsets = [
        ("Item", {"fields": ["user", "flight_data", "notes"]}),
        ("Price", {"fields": ["target_price", "notify_on_drop"]}),
        ("Record", {"fields": ["created_at", "updated_at", "id"]}),
    ]
    readonly_fields = ["id", "created_at", "updated_at"]

    def happened(self, item):
        return f"Added {item} to the wishlist"


@admin.register(Notification)
class NotificationAdmin(UserRowsMixin, ModelAdmin):
    place_in_overview = 5
    list_display = ["title", "user_link", "type", "priority", "read", "created_at"]
    list_filter = ["created_at", "read", "type", "priority"]
    actions = ["mark_read"]
    written_by_machines = ("read", "read_at")
    figures = (
        Figure(
            "Unread notifications, last 24 hours",
            lambda: Q(read=False, created_at__gte=timezone.now() - timedelta(hours=24)),
            lambda: {"created_at__within": "24h", "read": "0"},
        ),
    )
    ordering = ["-created_at"]
    fieldsets = [
        ("Message", {"fields": ["user", ("type", "priority"), "title", "message", "action_url"]}),
        ("State", {"fields": ["read", "read_at", "created_at", "id"]}),
        ("Data", {"fields": ["metadata"]}),
    ]
    readonly_fields = ["id", "created_at"]

    def happened(self, notification):
        return f"Notified: {notification.title}"

    @confirmed("Mark {} as read", "marked as read")
    def mark_read(self, request, notifications):
        return mark_notifications_read(notifications=notifications)


@admin.register(PushSubscription)
class PushSubscriptionAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    list_display = ["id", "user_link", "user_agent", "created_at"]
    in_panels = ("user_agent", "created_at")
    ordering = ["-pk"]
    shown = {"user_agent": user_agents.shown}

    def happened(self, subscription):
        return "Subscribed to push notifications"


@admin.register(UserActivity)
class UserActivityAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    list_display = ["event_type", "user_link", "ip_address", "created_at"]
    list_filter = ["created_at", "event_type"]
    ordering = ["-created_at"]
    shown = {"user_agent": user_agents.shown}
    computed_from = ("event_data",)
    in_panels = ("what", "user_link", "ip_address", "created_at")

    @admin.display(description="activity")
    def what(self, activity):
        return formats.beginning(self.happened(activity))

    def happened(self, activity):
        """Return what was done, with the route of a flight, without the site's codes."""
        known = {"search": "Searched", "view": "Viewed", "click": "Clicked", "book": "Booked"}
        kind, _, detail = activity.event_type.partition(":")
        data = activity.event_data if isinstance(activity.event_data, dict) else {}
        what = f"{data['origin']} → {data['destination']}" if {"origin", "destination"} <= data.keys() else ""
        if kind == "error":
            return f"An error occurred{f' ({detail})' if detail else ''}"
        label = known.get(kind) or activity.get_event_type_display()
        if kind in known and not what:
            what = {"search": "for flights", "view": "a page", "click": "a link", "book": "a trip"}[kind]
        return f"{label} {what}".strip()


@admin.register(UserSession)
class UserSessionAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    place_in_overview = 4
    list_display = ["__str__", "user_link", "location", "ip_address", "last_active"]
    deletion = ("Revoke", "revoked")
    search = (Address("ip_address", "last_active"), *UserRowsMixin.search)
    search_help_text = "An IP address, an ID, or the user's name, e-mail address or ID."
    ordering = ["-pk"]
    overview_steps = (
        Step(SIGN_OUT, User, "delete", lambda request, user: UserSession.objects.filter(user=user.pk), remove_rows),
    )

    def happened(self, device):
        return f"Active on {device}"


@admin.register(LoginHistory)
class LoginHistoryAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    place_in_overview = 3
    in_panels = ("timestamp", "user_link", "success", "ip_address", "device", "browser")
    list_display = ["timestamp", "user_link", "success", "device", "browser", "os", "location", "ip_address"]
    list_filter = ["timestamp", "success"]
    search = (Address("ip_address", "timestamp"), *UserRowsMixin.search)
    search_help_text = "An IP address, an ID, or the user's name, e-mail address or ID."
    ordering = ["-timestamp"]
    figures = (
        Figure(
            "Failed sign-ins, last 24 hours",
            lambda: Q(success=False, timestamp__gte=timezone.now() - timedelta(hours=24)),
            lambda: {"timestamp__within": "24h", "success": "0"},
        ),
    )

    def happened(self, sign_in):
        where = f" from {sign_in.ip_address}" if sign_in.ip_address else ""
        return f"{'Signed in' if sign_in.success else 'Sign-in failed'}{where}"
