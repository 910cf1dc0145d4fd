from django.contrib import admin

from fly2any.administration.options import ModelAdmin, OfUser, ReadOnlyModelAdmin

from .models import PriceAlert, PriceHistory, PriceMonitorLog, RecentSearch, SavedSearch


@admin.register(SavedSearch)
class SavedSearchAdmin(OfUser, ModelAdmin):
    list_display = ["name", "user_link", "origin", "destination", "depart_date", "return_date", "search_count", "last_searched"]
    list_filter = ["cabin_class"]
    ordering = ["-pk"]
    readonly_fields = ["id", "created_at", "updated_at"]


@admin.register(PriceAlert)
class PriceAlertAdmin(OfUser, ModelAdmin):
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
    ordering = ["-pk"]
    readonly_fields = ["id", "created_at", "updated_at"]

    @admin.display(ordering="origin")
    def route(self, alert):
        return f"{alert.origin}\u00a0→\u00a0{alert.destination}"


@admin.register(RecentSearch)
class RecentSearchAdmin(OfUser, ReadOnlyModelAdmin):
    list_display = ["city", "country", "airport_code", "user_link", "price", "viewed_at"]
    ordering = ["-pk"]


@admin.register(PriceHistory)
class PriceHistoryAdmin(ReadOnlyModelAdmin):
    list_display = ["origin", "destination", "depart_date", "price", "currency", "provider", "timestamp"]
    list_filter = ["provider"]
    search_fields = ["id__exact", "origin__exact", "destination__exact"]
    search_help_text = "An id, or the IATA codes of a route: GRU LIS."
    ordering = ["-timestamp"]


@admin.register(PriceMonitorLog)
class PriceMonitorLogAdmin(ReadOnlyModelAdmin):
    list_display = ["execution_time", "alerts_checked", "alerts_triggered", "alerts_failed", "duration", "triggered_by"]
    list_filter = ["triggered_by"]
    ordering = ["-execution_time"]
