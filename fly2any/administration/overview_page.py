"""The page that shows an overview (overview.py), with its URL, its permissions and its actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.utils import label_for_field, unquote
from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.text import capfirst
from django.views.decorators.http import require_safe

from .columns import ColumnsMixin
from .deadlines import TooSlow
from .drift_pages import read_or_each
from .filters import BadParameter
from .overview import MOST_EVENTS, Event, Panel, Relation, activity, page_of_row, panels, relations, timeline
from .overview_actions import Action, actions_of
from .replica import REPLICA, Missing, current


class OverviewMixin(ColumnsMixin):
    """Gives each row a page with its facts, the fields named in `overview`, its related rows and one timeline of them."""

    overview: tuple[str, ...] = ()
    # The columns of its panel on another row's overview and in the search; by default the first of its list.
    in_panels: tuple[str, ...] = ()
    of_staff = False  # Whether only staff have such rows.
    place_in_overview = 9  # The position of its panel: smaller numbers come first.
    in_overviews = True  # Whether its rows appear, in a panel and on the timeline, on another row's overview.
    # Other times of a row that are events of the timeline, each with the name of the method that describes it.
    also_happened: dict[str, str] = {}

    def get_urls(self):
        name = f"{self.opts.app_label}_{self.opts.model_name}_overview"
        view = self.admin_site.admin_view(self.overview_view)
        ours = [path("<path:object_id>/overview/", view, name=name)] if self.overview else []
        return ours + super().get_urls()

    @method_decorator(require_safe)
    def overview_view(self, request, object_id):
        """Show the overview of a row."""
        row = self.get_object(request, unquote(object_id))
        if row is None and current().alias == REPLICA:
            raise Missing
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        before = request.GET.get("before", "")
        related = relations(self, request, row)
        working, broken = read_or_each(
            lambda: self._of(request, row, related, before), lambda one: (one, self._of(request, row, [one], before)), related
        )
        if broken:
            working = self._of(request, row, [one for one, _ in working], before)
        shown, events, drawn, late = working
        actions = actions_of(self, request, row)
        context = {
            **self.admin_site.each_context(request),
            "title": self.title_of(row),
            "opts": self.opts,
            "original": row,
            "facts": [(label_for_field(name, self.model, self), self.show(name, row)) for name in self.overview],
            "panels": [panel for panel in shown if panel.rows],
            "empty": [panel.title for panel in shown if not panel.rows],
            "activity": drawn,
            "late": late,
            "broken": [relation.model._meta.verbose_name_plural for relation in broken],
            "may_see_database": request.user.has_perm("administration.view_database"),
            "events": events[:MOST_EVENTS],
            "next_events": f"?{urlencode({'before': events[MOST_EVENTS - 1].token})}" if len(events) > MOST_EVENTS else "",
            "before": before,
            "actions": self.overview_actions(request, row, [action for action, has_rows in actions.items() if has_rows]),
            "idle": [action.nothing for action, has_rows in actions.items() if action.nothing and not has_rows],
            "change_url": page_of_row(row),
            **self.beside_overview(request, row),
        }
        return TemplateResponse(request, "admin/overview.html", context)

    def title_of(self, row) -> str:
        """Return the title of a row's overview."""
        return str(row)

    def _of(self, request, row, related: list[Relation], before: str) -> tuple[list[Panel], list[Event], str, list[str]]:
        """Return the panels, the events of the timeline and the chart of what is related to `row`; panels and chart on the first page.

        The last part names the tables that are not on the timeline, because sorting their rows took too long.
        """
        timed, late = related, []
        try:
            try:
                events = timeline(row, timed, before=before)
            except TooSlow:
                late = [str(one.model._meta.verbose_name_plural) for one in related if one.time and not one.is_ordered]
                timed = [replace(one, time=None) if not one.is_ordered else one for one in related]
                events = timeline(row, timed, before=before)
        except (ValueError, OverflowError):
            if not before:
                raise
            raise BadParameter("The URL names no position on this timeline.") from None
        return ([], events, "", late) if before else ([*panels(request, row, related)], events, activity(row, timed), late)

    def beside_overview(self, request, row) -> dict[str, Any]:
        """Return additional context for the template of the page."""
        return {}

    def panel_columns(self, request):
        """Return the columns of its rows on the overview of another one and in the search of all tables."""
        return [self.columns.get(name, name) for name in self.in_panels] or self.get_list_display(request)

    def prepare_panel(self, request, rows: list[Any]) -> None:
        """Set, on the rows of a panel, what their columns need from other tables, in one statement for all rows."""

    def happened(self, row) -> str:
        """Return the timeline's text for a row: what happened, in a few words."""
        return f"{capfirst(str(self.opts.verbose_name))}: {row}"

    def overview_actions(self, request, row, actions: list[Action]) -> list[tuple[str, str]]:
        """Return the labels and URLs of the user's actions on the overview of `row`; `actions` are those of its steps."""
        return [(action.label, f"{action.name}/") for action in actions]

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        if self.overview and obj:
            context["overview_url"] = page_of_row(obj, "overview")
        return super().render_change_form(request, context, add, change, form_url, obj)
