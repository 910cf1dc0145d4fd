from django.contrib import admin

from fly2any.administration.options import ModelAdmin, ReadOnlyModelAdmin, link_to

from .models import LoginHistory, Notification, PushSubscription, UserActivity, UserSession, WishlistItem

OF_USER = ["=id", "=user__email"]
OF_USER_HELP = "An id, or the user's e-mail address."


@admin.register(WishlistItem)
class WishlistItemAdmin(ModelAdmin):
    list_display = ["__str__", "user_link", "target_price", "notify_on_drop", "created_at"]
    list_filter = ["notify_on_drop"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    raw_id_fields = ["user"]
    long_texts = ("notes",)
    readonly_fields = ["id", "created_at", "updated_at"]
    user_link = link_to("user")


@admin.register(Notification)
class NotificationAdmin(ModelAdmin):
    list_display = ["title", "user_link", "type", "priority", "read", "created_at"]
    list_filter = ["read", "priority", "type"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-created_at"]
    raw_id_fields = ["user"]
    long_texts = ("message",)
    readonly_fields = ["id", "created_at"]
    user_link = link_to("user")


@admin.register(PushSubscription)
class PushSubscriptionAdmin(ReadOnlyModelAdmin):
    list_display = ["id", "user_link", "user_agent", "created_at"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    secrets = ("endpoint", "p256dh", "auth")
    user_link = link_to("user")


@admin.register(UserActivity)
class UserActivityAdmin(ReadOnlyModelAdmin):
    list_display = ["event_type", "user_link", "ip_address", "created_at"]
    list_filter = ["event_type"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    user_link = link_to("user")


@admin.register(UserSession)
class UserSessionAdmin(ReadOnlyModelAdmin):
    list_display = ["__str__", "user_link", "location", "ip_address", "last_active"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    secrets = ("token",)
    user_link = link_to("user")


@admin.register(LoginHistory)
class LoginHistoryAdmin(ReadOnlyModelAdmin):
    list_display = ["timestamp", "user_link", "success", "device", "browser", "os", "location", "ip_address"]
    list_filter = ["success"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    user_link = link_to("user")
