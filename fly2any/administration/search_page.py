"""The search of all tables: the results in each, on one page, and the row with a given secret."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import label_for_field
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Cast
from django.http import HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.text import capfirst, get_text_list

from .counts import Count
from .formats import beginning
from .list_options import LookupsMixin
from .long_values import large_fields, with_short_copies, with_short_values
from .overview import MOST_COLUMNS, Panel, best_page, page_of_row
from .search import LETTERS, SHORTEST_TEXT, Key, airports_of, is_text

MOST_ROWS = 8  # Rows per table.
LONGEST_TERM = 200  # Characters.
CANNOT_SEARCH = f"This text cannot be searched for: enter at most {LONGEST_TERM} printable characters."
TOO_SHORT = (
    f"A search for a person needs at least {SHORTEST_TEXT} consecutive letters or digits of a name or an e-mail address."
)


def search_view(site: Any, request, admins: Sequence[Any]) -> HttpResponse:
    """Show what is found in the lists of `admins`; a secret is sent by POST, so that it is in no URL and no log."""
    if request.method == "POST":
        return HttpResponseRedirect(_page_of_secret(request, admins))
    term = request.GET.get("q", "").strip()
    can_be_searched = is_text(term) and len(term) <= LONGEST_TERM
    notes: list[str] = [] if can_be_searched else [CANNOT_SEARCH]
    panels = list(_panels(request, admins, term, notes)) if term and can_be_searched else []
    context = {
        **site.each_context(request),
        "title": "Search",
        "term": beginning(term) if is_text(term) else "",
        "notes": notes,
        "hint": TOO_SHORT if term and not LETTERS.search(term) else "",
        "panels": panels,
        # Airports whose names begin with the term, which have no list of their own.
        "only_pages": bool(panels) and not notes and not airports_of(term) and not any(panel.url for panel in panels),
        "secrets": get_text_list([str(admin.opts.verbose_name) for admin in admins if admin.findable], "or"),
    }
    return TemplateResponse(request, "admin/search.html", context)


def searched(site: Any, request) -> list[Any]:
    """Return the ModelAdmins whose rows the user may search."""
    pages = site._registry.values()
    return [admin for admin in pages if isinstance(admin, LookupsMixin) and admin.search and admin.has_view_permission(request)]


def _page_of_secret(request, admins: Sequence[Any]) -> str:
    secret = request.POST.get("secret", "").strip()
    for admin in admins if secret and is_text(secret) else ():
        if row := admin.row_of_secret(request, secret):
            return page_of_row(row)
    messages.warning(request, "No row has this token or endpoint.")
    return reverse("admin:search")


def _panels(request, admins: Sequence[Any], term: str, notes: list[str]) -> Iterator[Panel]:
    """Yield the results: the rows of each table, newest first, and other pages, which come first if the term is their code.

    Where a search does not find every row, its note is added to `notes`.
    """
    pages = [panel for admin in admins for panel in admin.found_pages(term)]
    yield from pages if airports_of(term) else ()
    by_key = _rows_by_key(admins, term)
    for admin in admins:
        rows, order = Q(), "-pk"
        if keys := by_key[admin]:
            rows |= Q(pk__in=keys)
        for probe in admin.search if not keys else ():
            if probe.is_general and (found := probe.find(admin.model, term, {})):
                rows |= found.rows
                notes += [f"{capfirst(admin.opts.verbose_name_plural)}: {found.note}"] if found.is_partial else []
                order = f"-{found.order}" if found.order else order
        if rows and (panel := _panel(admin, request, rows, order, term)):
            yield panel
    yield from () if airports_of(term) else pages


def _rows_by_key(admins: Sequence[Any], term: str) -> dict[Any, list[str]]:
    """Return the rows that a unique searched column identifies by the term, in one query for all tables."""
    parts = []
    for place, admin in enumerate(admins):
        for probe in admin.search:
            column: Any = isinstance(probe, Key) and admin.opts.get_field(probe.name)
            if isinstance(column, models.TextField) and column.unique:
                rows = admin.model._base_manager.filter((probe.name, term)).order_by()
                parts.append(rows.values_list(Value(place), Cast("pk", models.TextField())))
    found = defaultdict(list)
    if parts:
        for place, key in parts[0].union(*parts[1:], all=True):
            found[admins[place]].append(key)
    return found


def _panel(admin: Any, request, rows: Q, order: str, term: str) -> Panel | None:
    """Return the first rows of a list with its first columns, None if it is empty."""
    related = admin.list_select_related or ()
    columns_to_defer = [
        f"{name}__{column.name}" for name in related for column in large_fields(admin.opts.get_field(name).related_model)
    ]
    chosen = (
        with_short_copies(admin.get_queryset(request).filter(rows), admin)
        .select_related(*related or [None])
        .defer(*columns_to_defer)
    )
    newest = order if order != "-pk" or not admin.ordering else admin.ordering[0]
    found = with_short_values(list(chosen.order_by(newest, "-pk")[: MOST_ROWS + 1]))
    if not found:
        return None
    admin.prepare_panel(request, found[:MOST_ROWS])
    columns = admin.panel_columns(request)[:MOST_COLUMNS]
    links = columns[0] in admin.get_list_display_links(request, columns)
    return Panel(
        title=str(admin.opts.verbose_name_plural),
        headers=[str(label_for_field(name, admin.model, admin)) for name in columns],
        # Another column than the first may be the link: the first then has its own.
        rows=[(best_page(row) if links else "", [admin.cell(name, row) for name in columns]) for row in found[:MOST_ROWS]],
        count=Count(min(len(found), MOST_ROWS), more=len(found) > MOST_ROWS),
        url=f"{reverse(f'admin:{admin.opts.app_label}_{admin.opts.model_name}_changelist')}?{urlencode({'q': term})}",
    )
