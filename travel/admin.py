from datetime import timedelta
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.http import require_safe

from accounts.models import User
from fly2any.administration import formats
from fly2any.administration.airports import airport, airports_named
from fly2any.administration.dashboard import Figure
from fly2any.administration.list_actions import confirmed
from fly2any.administration.options import ModelAdmin, ReadOnlyModelAdmin, UserRowsMixin
from fly2any.administration.overview import page_of_row
from fly2any.administration.overview_actions import Action, Step
from fly2any.administration.search import Key, Route, RoutePrefix, airports_of

from .actions import pause_alerts, rearm_alerts
from .alert_states import OWN_PRICE, State, alert_state, state_of, why_in_full
from .models import PriceAlert, PriceHistory, PriceMonitorLog, RecentSearch, SavedSearch
from .prices import MOST_ALERTS, departures, read_alerts, read_prices, read_reached
from .search_panels import airports_panel, route_panel

PAUSE_ALERTS = Action("pause-alerts", "Pause alerts", "Pause", "paused", "The price monitor does not check a paused alert.")


ARMED = {"active": "1", "triggered": "0"}  # The parameters of the list that the figure links to.


def overdue():
    """Return the time, a whole minute, since which the price monitor should have checked an armed alert."""
    return timezone.now().replace(second=0, microsecond=0) - timedelta(hours=6)


# The classes of the chips of a list.
STATE_CHIPS = {State.WAITING: "chip good", State.FIRES_NEXT: "chip warn", State.FIRED: "chip done"}


def route(row):
    return formats.beginning(f"{row.origin}\u00a0→\u00a0{row.destination}")


def route_page(row):
    """Return the URL of the page of a row's route, for its departure date; an alert is marked there."""
    query = {"origin": row.origin, "destination": row.destination, "day": row.depart_date}
    if isinstance(row, PriceAlert):
        query["alert"] = row.pk
    return f"{reverse('admin:travel_pricehistory_route')}?{urlencode(query)}"


@admin.display(description="route")
def route_link(price):
    """The route, linked to its page and the departure date."""
    return format_html('<a href="{}">{}</a>', route_page(price), route(price))


@admin.register(SavedSearch)
class SavedSearchAdmin(UserRowsMixin, ModelAdmin):
    list_display = ["name", "user_link", route, "depart_date", "return_date", "search_count", "last_searched"]
    list_filter = ["cabin_class"]
    written_by_machines = ("search_count", "last_searched")
    airports = ("origin", "destination")
    days = several_days = ("depart_date", "return_date")
    fieldsets = [
        ("Search", {"fields": ["user", "name", ("origin", "destination"), ("depart_date", "return_date"), "cabin_class"]}),
        ("Travellers", {"fields": [("adults", "children", "infants")]}),
        ("Filters", {"fields": ["filters"]}),
        ("Use", {"fields": ["search_count", "last_searched", "created_at", "updated_at", "id"]}),
    ]
    ordering = ["-pk"]
    readonly_fields = ["id", "created_at", "updated_at"]

    def happened(self, saved):
        return f"Searched {route(saved)}, saved as “{saved.name}”"


@admin.register(PriceAlert)
class PriceAlertAdmin(UserRowsMixin, ModelAdmin):
    place_in_overview = 1
    list_display = [
        route,
        "depart_date",
        "user_link",
        "target_price",
        "current_price",
        "state_chip",
        "last_checked",
    ]
    list_filter = ["active", "triggered", "last_checked"]
    search = (RoutePrefix("created_at"), *UserRowsMixin.search)
    search_help_text = "A route (GRU-LIS), a departure airport (GRU), an ID, or the user's name, e-mail address or ID."
    actions = ["pause", "rearm"]
    written_by_machines = (
        "current_price", "triggered", "triggered_at", "last_checked", "last_notified_at", "notification_count",
    )  # fmt: skip
    figures = (
        Figure("Armed alerts", lambda: Q(active=True, triggered=False), lambda: ARMED),
        Figure(
            "Armed alerts not checked for 6 hours",
            lambda: Q(active=True, triggered=False, last_checked__lt=overdue()),
            lambda: {**ARMED, "last_checked__until": f"{overdue():%Y-%m-%dT%H:%MZ}"},
        ),
    )
    airports = ("origin", "destination")
    amounts = ("target_price",)
    days = ("depart_date", "return_date")
    fieldsets = [
        ("Alert", {"fields": ["why", "user", ("origin", "destination"), ("depart_date", "return_date"), "active"]}),
        ("Price", {"fields": [("target_price", "currency"), "recorded_prices"]}),
        (
            "Checks",
            {
                "fields": [
                    "last_checked",
                    "current_price",
                    "triggered",
                    "triggered_at",
                    "last_notified_at",
                    "notification_count",
                ]
            },
        ),
        ("Record", {"fields": ["created_at", "updated_at", "id"]}),
    ]
    ordering = ["-pk"]
    readonly_fields = ["id", "why", "recorded_prices", "created_at", "updated_at"]
    also_happened = {"triggered_at": "fired"}
    in_panels = (route, "state", "depart_date", "user_link", "target_price", "prices")

    shown = {"current_price": formats.money(), "target_price": formats.money()}
    overview_steps = (
        Step(
            PAUSE_ALERTS,
            User,
            "change",
            lambda request, user: PriceAlert.objects.active_of_user(user.pk),
            lambda alerts: pause_alerts(alerts=alerts),
            remain=True,
        ),
    )

    @admin.display(description="state")
    def state(self, alert):
        """Return why the alert fired, or did not, in one line."""
        return format_html('<span class="sentence">{}</span>', alert_state(alert, getattr(alert, "reached", None)))

    @admin.display(description="state")
    def state_chip(self, alert):
        state = state_of(alert)
        return format_html('<span class="{}">{}</span>', STATE_CHIPS.get(state, "chip"), state)

    @admin.display(description="state")
    def why(self, alert):
        return why_in_full(alert, getattr(alert, "reached", None))

    @admin.display(description="prices")
    def prices(self, alert):
        return format_html('<a href="{}">Prices</a>', route_page(alert))

    @admin.display(description="recorded prices")
    def recorded_prices(self, alert):
        """Return a link to the page of the route, and why its prices need not be those of the checks, where the state does not."""
        return format_html(
            '<a href="{}">{} on {}</a>{}',
            route_page(alert),
            route(alert),
            formats.beginning(alert.depart_date),
            "" if getattr(alert, "reached", None) else format_html('<br><span class="quiet">{}</span>', OWN_PRICE),
        )

    def happened(self, alert):
        return f"Created a price alert: {alert}"

    def fired(self, alert):
        return f"Price alert fired: {alert}"

    def prepare_panel(self, request, rows):
        reached = read_reached(rows) if request.user.has_perm("travel.view_pricehistory") else {}
        for alert in rows:
            alert.reached = reached.get(alert.pk)

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        self.prepare_panel(request, [obj] if obj else [])
        return super().render_change_form(request, context, add, change, form_url, obj)

    @confirmed("Pause {}", "paused")
    def pause(self, request, alerts):
        return pause_alerts(alerts=alerts)

    @confirmed("Re-arm {}", "re-armed")
    def rearm(self, request, alerts):
        return rearm_alerts(alerts=alerts)


@admin.register(RecentSearch)
class RecentSearchAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    list_display = ["city", "country", "airport_code", "user_link", "price", "viewed_at"]
    ordering = ["-pk"]
    shown = {"price": formats.money()}

    def happened(self, search):
        return f"Viewed {search}"


@admin.register(PriceHistory)
class PriceHistoryAdmin(ReadOnlyModelAdmin):
    list_display = [route_link, "depart_date", "return_date", "price", "provider", "timestamp"]
    list_filter = ["timestamp", "provider"]
    search = (Route(), Key("id"))
    search_help_text = "A route (GRU-LIS), a departure airport (GRU), or an ID."
    shown = {"price": formats.money()}
    ordering = ["-timestamp"]
    list_display_links = ["timestamp"]

    def found_pages(self, term):
        """Yield the page of a route, or the airports that a term names: each leads to the prices from there."""
        codes = airports_of(term)
        if len(codes) == 2 and None not in (ends := [airport(code) for code in codes]):
            yield route_panel(*ends)
        elif len(codes) != 2 and (airports := list(filter(None, [airport(term.upper())])) or airports_named(term)):
            yield airports_panel(airports)

    def get_urls(self):
        view = self.admin_site.admin_view(self.route_view)
        return [path("route/", view, name="travel_pricehistory_route"), *super().get_urls()]

    @method_decorator(require_safe)
    def route_view(self, request):
        """Show the prices of a route over time, for a departure date."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        origin, destination, day, key = (request.GET.get(name, "") for name in ("origin", "destination", "day", "alert"))
        may_see_alerts = request.user.has_perm("travel.view_pricealert")
        found = PriceAlert.objects.filter(pk=key, origin=origin, destination=destination) if key and may_see_alerts else None
        marked = found.select_related("user").first() if found is not None else None
        days = departures(origin, destination, around=day)
        day = day or (days[0] if days else "")
        context = {
            **self.admin_site.each_context(request),
            "title": f"{origin} → {destination}",
            "opts": self.opts,
            "origin": origin,
            "destination": destination,
            "day": day,
            "days": days,
            "marked": marked,
            "own_price": OWN_PRICE,
            "prices": read_prices(origin, destination, day, alert=marked),
            "alerts": self.alerts_of(origin, destination, marked) if may_see_alerts else None,
        }
        return TemplateResponse(request, "admin/travel/pricehistory/route.html", context)

    def alerts_of(self, origin, destination, marked):
        """Return the alerts on a route, `marked` first, as (row, URL, person, state), and whether they were found in time."""
        found = read_alerts(origin, destination)
        alerts = [*([marked] if marked else []), *(alert for alert in found or () if not marked or alert.pk != marked.pk)]
        reached = read_reached(alerts)
        person = self.admin_site._registry[PriceAlert].user_link
        rows = [(alert, page_of_row(alert), person(alert), alert_state(alert, reached.get(alert.pk))) for alert in alerts]
        return {"found": rows, "is_late": found is None, "most": MOST_ALERTS}


@admin.register(PriceMonitorLog)
class PriceMonitorLogAdmin(ReadOnlyModelAdmin):
    list_display = ["execution_time", "alerts_checked", "alerts_triggered", "alerts_failed", "duration", "triggered_by"]
    list_filter = ["execution_time", "triggered_by"]
    newest = "Last run of the price monitor"
    search = (Key("id"),)
    search_help_text = "An ID."
    ordering = ["-execution_time"]
    shown = {"duration": formats.with_unit("ms")}
