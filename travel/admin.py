from django.contrib import admin

from fly2any.administration import shown
from fly2any.administration.options import ModelAdmin, OfUser, ReadOnlyModelAdmin
from fly2any.administration.search import Key, Route

from .models import PriceAlert, PriceHistory, PriceMonitorLog, RecentSearch, SavedSearch


def route(row):
    return f"{row.origin}\u00a0→\u00a0{row.destination}"


@admin.register(SavedSearch)
class SavedSearchAdmin(OfUser, ModelAdmin):
    list_display = ["name", "user_link", "origin", "destination", "depart_date", "return_date", "search_count", "last_searched"]
    list_filter = ["cabin_class"]
    ordering = ["-pk"]
    readonly_fields = ["id", "created_at", "updated_at"]


@admin.register(PriceAlert)
class PriceAlertAdmin(OfUser, ModelAdmin):
    list_display = [
        route,
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

    shown = {"current_price": shown.money(), "target_price": shown.money()}


@admin.register(RecentSearch)
class RecentSearchAdmin(OfUser, ReadOnlyModelAdmin):
    list_display = ["city", "country", "airport_code", "user_link", "price", "viewed_at"]
    ordering = ["-pk"]


@admin.register(PriceHistory)
class PriceHistoryAdmin(ReadOnlyModelAdmin):
    list_display = [route, "depart_date", "return_date", "price", "provider", "timestamp"]
    list_filter = ["timestamp", "provider"]
    search = (Route(), Key("id"))
    search_help_text = "A route, GRU-LIS, an airport of departure, GRU, or an id."
    shown = {"price": shown.money()}
    ordering = ["-timestamp"]


@admin.register(PriceMonitorLog)
class PriceMonitorLogAdmin(ReadOnlyModelAdmin):
    list_display = ["execution_time", "alerts_checked", "alerts_triggered", "alerts_failed", "duration", "triggered_by"]
    list_filter = ["execution_time", "triggered_by"]
    search = (Key("id"),)
    search_help_text = "An id."
    ordering = ["-execution_time"]
    shown = {"duration": shown.with_unit("ms")}
