"""The list of a table: every page costs the same, whatever the size of the table."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from django.contrib.admin.utils import build_q_object_from_lookup_parameters
from django.contrib.admin.views import main
from django.contrib.admin.views.main import ORDER_VAR, SEARCH_VAR
from django.core.exceptions import ValidationError
from django.db import DataError, models
from django.utils.text import capfirst

from . import formats
from .access_paths import best_path, leads, newest_within, orders, time_added
from .counts import Count, bounded, exact, nouns, of_table
from .deadlines import TooSlow, within
from .filters import BadParameter, TimeFilter
from .long_values import large_fields, with_short_copies, with_short_values
from .overview import best_page
from .paging import Order, Page, page_of
from .search import Found, search

AFTER_VAR, BEFORE_VAR, COUNT_VAR, LOOK_VAR = "after", "before", "count", "look"
WINDOW = 20_000  # Rows that one page looks through for a filter that no index serves.
MOST_WINDOWS = 16  # The most windows that are searched at once.
LONGEST_LOOK = 250  # Milliseconds for a window; if it takes longer, a quarter of it is searched, or one window instead of many.


class ChangeList(main.ChangeList):
    """A list in the order of an index, page by page from row to row.

    A filter whose column leads an index is looked up there. Any other is looked for in the next WINDOW rows of the order;
    the page says how far it looked, and the link to look further looks through four times as many, up to MOST_WINDOWS. A window
    that takes too long is made smaller, down to a MOST_WINDOWS-th of WINDOW: the page is shown all the same.
    """

    OURS = (AFTER_VAR, BEFORE_VAR, COUNT_VAR, LOOK_VAR)

    def __init__(self, request, *args):
        self.request = request
        self.after, self.before = request.GET.get(AFTER_VAR), request.GET.get(BEFORE_VAR)
        self.wants_exact = request.GET.get(COUNT_VAR) == "exact"
        look = request.GET.get(LOOK_VAR, "")
        self.chosen: dict[str, Any] = {}  # The columns that the URL compares with values.
        windows = min(int(look), MOST_WINDOWS) if look.isdecimal() and look != "0" and len(look) < 4 else 1
        self.looked_until: Any = None  # The position where the window ended.
        self.further = ""  # The URL of the next window.
        self.window = windows * WINDOW  # Rows.
        super().__init__(request, *args)
        if self.model_admin.overview:  # type: ignore[attr-defined]
            self.preserved_filters = ""  # The first column links to overviews, which ignore the list's filters.
        if not self.is_popup:
            self.title = capfirst(str(self.opts.verbose_name_plural))

    def get_filters_params(self, params=None):
        return {name: value for name, value in super().get_filters_params(params).items() if name not in self.OURS}

    def get_query_string(self, new_params=None, remove=None):
        """Return the query of this list with other parameters; it begins at the first page unless they say where."""
        return super().get_query_string(dict.fromkeys(self.OURS) | (new_params or {}), remove)

    def get_queryset(self, request, exclude_parameters=None):
        """Return the rows that all filters and the search leave; sets `order`, and `base`, the rows before unserved filters."""
        for name in self.OURS:
            self.params.pop(name, None)
        filters: Any = self.get_filters(request)
        self.filter_specs, self.has_filters, remaining, _, self.has_active_filters = filters
        self.clear_all_filters_qs = self.get_query_string(remove=self.get_filters_params())
        try:
            rows = self.root_queryset.filter(build_q_object_from_lookup_parameters(remaining))
        except (ValueError, ValidationError) as error:
            raise BadParameter(
                "The URL contains a value that the column cannot have, so its parameters were ignored."
            ) from error
        self.chosen = {key.partition("__")[0]: value[-1] for key, value in remaining.items()}
        found = self.found
        specs: list[Any] = self.filter_specs
        equal = self.chosen | dict(found.equal)
        for spec in specs:
            equal |= spec.equal
        path = best_path(self.model, equal)
        self.order = self.chosen_order(path.following(equal) if path else None)

        looked_up = path.looks_up(equal) if path else set()
        rows = self.apply_select_related(rows.filter(found.rows)).defer(*self.columns_to_defer)
        self.narrowed = bool(remaining or found.rows)
        unserved = []
        for spec in specs:
            if isinstance(spec, TimeFilter):
                self.narrowed |= spec.active
                served = spec.field_path == self.order.field.name or not spec.active
            else:
                self.narrowed |= bool(spec.equal)
                # A search finds few rows, or uses the columns of an index.
                served = spec.equal.keys() <= looked_up or (bool(found.rows) and not found.equal and not found.order)
            if served:
                rows = spec.queryset(request, rows)
            else:
                unserved.append(spec)
        self.base = rows
        for spec in unserved:
            rows = spec.queryset(request, rows)
        self.is_windowed = bool(unserved)
        return rows.order_by(*self.order.by())

    @property
    def columns_to_defer(self) -> list[str]:
        """Return the columns that may hold large values and that the list does not show, including those of linked rows."""
        shown = {self.get_ordering_field(name) for name in self.list_display} | {*self.model_admin.computed_from}  # type: ignore[attr-defined]
        names = self.list_select_related if isinstance(self.list_select_related, list | tuple) else ()
        related: list[Any] = [self.opts.get_field(name) for name in names]
        return [
            *(
                field.name
                for field in large_fields(self.model)
                if isinstance(field, models.JSONField) and field.name not in shown
            ),
            *(f"{link.name}__{field.name}" for link in related for field in large_fields(link.related_model)),
        ]

    @cached_property
    def found(self) -> Found:
        """Return the result of the search; without a search term, all rows."""
        term = self.query.strip()
        probes: Any = self.model_admin.search  # type: ignore[attr-defined]
        return search(self.model, probes, term, chosen=self.chosen) if term else Found(models.Q())

    def chosen_order(self, following: str | None) -> Order:
        """Return the order: the requested one, otherwise the next time column of the index in use, otherwise the list's own."""
        pk = self.opts.pk
        name, descending = pk.name, True
        if chosen := self.asked_order():
            name, descending = chosen
        elif self.found.order:
            name = self.found.order
        elif following and isinstance(self.opts.get_field(following), models.DateTimeField):
            name = following
        elif newest := self.newest_of_one_key():
            name = newest
        elif self.model_admin.ordering:
            first = str(self.model_admin.ordering[0])
            name, descending = first.lstrip("-"), first.startswith("-")
        field = pk if name == "pk" else self.opts.get_field(name)
        return Order(field, pk, descending)  # type: ignore[arg-type]

    def newest_of_one_key(self) -> str | None:
        """Return the time by which an overview orders the same rows, if the list is that of a foreign key that leads an index."""
        links = (field.name for field in self.opts.local_fields if isinstance(field, models.ForeignKey))
        return next(
            (newest_within(self.model, name) for name in links if name in self.chosen and leads(self.model, name)), None
        )

    def asked_order(self) -> tuple[str, bool] | None:
        """Return the column that the URL names, and whether in descending order, if an index has that order."""
        first = self.params.get(ORDER_VAR, "").partition(".")[0]
        try:
            name = self.get_ordering_field(self.list_display[abs(int(first))])
        except (ValueError, IndexError):
            return None
        return (name, first.startswith("-")) if name in orders(self.model) else None

    def get_ordering_field_columns(self):
        """Return the column of the order, if the list shows it, and its direction."""
        for number, name in enumerate(self.list_display):
            if self.get_ordering_field(name) == self.order.field.name:
                return {number: "desc" if self.order.descending else "asc"}
        return {}

    def get_results(self, request):
        """Fetch and count the page's rows, both within limits."""
        for token in filter(None, (self.after, self.before)):
            try:
                self.order.place(token)
            except ValueError:
                raise BadParameter(
                    "The URL names no position in this list, so this is the first page of the whole list."
                ) from None
        rows, page = self.fetch()
        self.result_list = page.rows
        if page.has_later if self.before is None else page.has_earlier:
            self.further, self.looked_until = "", None  # The page was filled before the end of the window.
        self.has_earlier, self.has_later = page.has_earlier, page.has_later
        self.count = self.count_of(rows)
        # For Django's templates: the number on the page, so that no action is offered for rows that are not on it.
        self.result_count = self.full_result_count = len(page.rows)
        self.show_full_result_count = False
        self.show_admin_actions = bool(page.rows)
        self.can_show_all = self.multi_page = self.show_all = False
        self.paginator = None

    def fetch(self) -> tuple[models.QuerySet, Page]:
        """Return the rows of the list and the page; if a window takes too long, those of a smaller one."""
        while True:
            may_shrink = self.is_windowed and self.window > WINDOW // MOST_WINDOWS
            try:
                with within(LONGEST_LOOK) if may_shrink else nullcontext():
                    rows = self.in_window(self.queryset) if self.is_windowed else self.queryset
                    page = page_of(
                        with_short_copies(rows, self.model_admin),
                        self.order,
                        size=self.list_per_page,
                        after=self.after,
                        before=self.before,
                        full=not self.is_windowed,
                    )
                    return rows, replace(page, rows=with_short_values(page.rows))
            except TooSlow:
                self.window = min(self.window // 4, WINDOW)
            except DataError:  # A time that looks like one of PostgreSQL's.
                raise BadParameter(
                    "The URL names no position in this list, so this is the first page of the whole list."
                ) from None

    def in_window(self, rows: models.QuerySet) -> models.QuerySet:
        """Return the rows in the next `window` rows of the order; sets `looked_until` and `further` where that is not all."""
        backwards = self.before is not None
        self.further, self.looked_until = "", None
        last = self.edge(backwards=backwards)
        if last is None:
            return rows
        self.looked_until = getattr(last, self.order.field.attname)
        token = self.order.token(last)
        direction = BEFORE_VAR if backwards else AFTER_VAR
        self.further = self.get_query_string({direction: token, LOOK_VAR: max(1, min(4 * self.window // WINDOW, MOST_WINDOWS))})
        return rows.filter(self.order.until(self.order.place(token), backwards=backwards))

    def edge(self, *, backwards: bool) -> models.Model | None:
        """Return the row that ends the next `window` rows of `base`, None if there are not as many.

        They are counted by the first column of the order alone, which its index holds, and the row is the last of those that
        tie: with the primary key, each entry of the index would be a visit to the table. What ties with the row that the
        window begins after is not counted.
        """
        first, *_ = self.order.by(backwards=backwards)
        name, comparison = first.lstrip("-"), "lt" if first.startswith("-") else "gt"
        rows = self.base.select_related(None)
        token = self.before or self.after
        ahead = rows.filter(**{f"{name}__{comparison}": self.order.place(token)[0]}) if token else rows
        values = list(ahead.order_by(first).values_list(name, flat=True)[self.window : self.window + 1])
        if not values:
            return None
        tied = rows.filter(**{name: values[0]}).order_by(*self.order.by(backwards=not backwards))
        return tied.only(*self.order.names).first()

    def count_of(self, rows: models.QuerySet) -> Count:
        if not self.has_earlier and not self.has_later and not self.further:
            return Count(len(self.result_list))
        if self.wants_exact:
            return exact(self.queryset)
        if self.is_windowed:
            return Count(len(self.result_list), more=True)
        if self.narrowed:
            return bounded(rows)
        return of_table(self.model)

    def url_for_result(self, result):
        """Return the URL that the first column links to: the overview of a row if there is one, otherwise its page."""
        return best_page(result)

    @property
    def order_description(self) -> str:
        """Return the order of the list in words."""
        name, descending = str(self.order.field.verbose_name), self.order.descending
        first = f"{'newest' if descending else 'oldest'} first"
        added = time_added(self.model)
        if self.order.field.name == added:
            return first.capitalize()
        if isinstance(self.order.field, models.DateTimeField):
            return f"By {name}, {first}"
        # The site's ids (cuid) begin with their time. UUIDv4s and the ids of the demo data do not.
        if self.order.field.primary_key and added and self._is_in_order_of(added):
            return f"{first.capitalize()}, by ID"
        return f"By {name}, {'descending' if descending else 'ascending'}"

    def _is_in_order_of(self, time: str) -> bool:
        """Return whether the rows of the page are in the order of a time, in the direction of the list."""
        times = [getattr(row, time) for row in self.result_list]
        times = [one for one in times if isinstance(one, datetime)]
        return times == sorted(times, reverse=self.order.descending)

    @cached_property
    def chips(self) -> list[tuple[str, str, str]]:
        """Return the active filters other than the search: (label, value, URL of the list without it)."""
        specs: list[Any] = self.filter_specs
        found = [
            (str(spec.title), spec.chosen, self.get_query_string(dict.fromkeys(spec.expected_parameters())))
            for spec in specs
            if spec.chosen
        ]
        of_specs = {name for spec in specs for name in spec.expected_parameters()}
        params: dict[str, Any] = self.get_filters_params()  # Neither the order, the search nor the position.
        for name, values in params.items():
            if name not in of_specs:
                value = values[-1] if isinstance(values, list) else values
                field = next((field for field in self.opts.local_fields if name.partition("__")[0] == field.name), None)
                label = str(field.verbose_name) if field else name
                found.append((label, formats.beginning(self.named(field, name, value)), self.get_query_string({name: None})))
        return found

    def named(self, field: models.Field | None, lookup: str, value: Any) -> Any:
        """Return the name of the row whose key a condition asks for, if there is one that this person may see; else `value`."""
        target: Any = field and field.remote_field and field.related_model
        options = target and self.model_admin.admin_site._registry.get(target)
        if field is None or not options or not options.has_view_permission(self.request):
            return value
        if lookup.removesuffix("__exact") not in (field.name, f"{field.name}__{target._meta.pk.name}"):
            return value
        return target._base_manager.filter(pk=value).first() or value

    @property
    def model_description(self) -> str:
        """Return what the rows are, which an empty list shows: the first sentence of the model's docstring, unless the admin says it."""
        own = getattr(self.model_admin, "description", "")
        return own or f"{(self.model.__doc__ or '').strip().splitlines()[0].partition('. ')[0].rstrip('.')}."

    @property
    def accepted(self) -> str:
        """Return what the search accepts, as the end of a sentence: each help text begins with an article."""
        text = self.search_help_text or ""
        return text[:1].lower() + text[1:]

    @property
    def nouns(self) -> tuple[str, str]:
        return nouns(self.model)

    @property
    def window_size(self) -> str:
        return f"{self.window:,}"

    @property
    def looked_until_shown(self) -> str:
        return formats.moment(self.looked_until) if isinstance(self.looked_until, datetime) else ""

    # The URLs of the other pages, and of the exact count.

    @property
    def first_page(self) -> str:
        return self.get_query_string()

    @property
    def earlier_page(self) -> str:
        return self.get_query_string({BEFORE_VAR: self.order.token(self.result_list[0])}) if self.result_list else ""

    @property
    def later_page(self) -> str:
        return self.get_query_string({AFTER_VAR: self.order.token(self.result_list[-1])})

    @property
    def last_page(self) -> str:
        return self.get_query_string({BEFORE_VAR: ""})

    @property
    def without_search(self) -> str:
        return self.get_query_string({SEARCH_VAR: None})

    @property
    def exact_count(self) -> str:
        return self.get_query_string({COUNT_VAR: "exact"})
