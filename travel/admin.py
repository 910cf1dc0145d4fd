from django.contrib import admin

from fly2any.administration.options import ModelAdmin, ReadOnlyModelAdmin, link_to

from .models import PriceAlert, PriceHistory, PriceMonitorLog, RecentSearch, SavedSearch

OF_USER = ["=id", "=user__email"]
OF_USER_HELP = "An id, or the user's e-mail address."


@admin.register(SavedSearch)
class SavedSearchAdmin(ModelAdmin):
    list_display = ["name", "user_link", "origin", "destination", "depart_date", "return_date", "search_count", "last_searched"]
    list_filter = ["cabin_class"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    raw_id_fields = ["user"]
    readonly_fields = ["id", "created_at", "updated_at"]
    user_link = link_to("user")


@admin.register(PriceAlert)
class PriceAlertAdmin(ModelAdmin):
    list_display = [
        "route",
        "depart_date",
        "user_link",
        "current_price",
        "target_price",
        "currency",
        "active",
        "triggered",
        "last_checked",
    ]
    list_filter = ["active", "triggered"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    raw_id_fields = ["user"]
    readonly_fields = ["id", "created_at", "updated_at"]
    user_link = link_to("user")

    @admin.display(ordering="origin")
    def route(self, alert):
        return f"{alert.origin}\u00a0→\u00a0{alert.destination}"


@admin.register(RecentSearch)
class RecentSearchAdmin(ReadOnlyModelAdmin):
    list_display = ["city", "country", "airport_code", "user_link", "price", "viewed_at"]
    list_select_related = ["user"]
    search_fields = OF_USER
    search_help_text = OF_USER_HELP
    ordering = ["-pk"]
    user_link = link_to("user")


@admin.register(PriceHistory)
class PriceHistoryAdmin(ReadOnlyModelAdmin):
    list_display = ["origin", "destination", "depart_date", "price", "currency", "provider", "timestamp"]
    list_filter = ["provider"]
    search_fields = ["=id", "=origin", "=destination"]
    search_help_text = "An id, or the IATA codes of a route: GRU LIS."
    ordering = ["-timestamp"]


@admin.register(PriceMonitorLog)
class PriceMonitorLogAdmin(ReadOnlyModelAdmin):
    list_display = ["execution_time", "alerts_checked", "alerts_triggered", "alerts_failed", "duration", "triggered_by"]
    list_filter = ["triggered_by"]
    ordering = ["-execution_time"]
