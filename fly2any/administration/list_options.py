"""The filters, orders and search of a list, each served by an index or a bounded scan."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import models

from . import deadlines, filters
from .access_paths import leads, orders
from .changelist import ChangeList
from .columns import ColumnsMixin
from .filters import BadParameter
from .overview import Panel
from .search import Probe, search


class LookupsMixin(ColumnsMixin):
    """Accepts a closed list of lookups from the URL, and offers only orders that an index has.

    `search` holds the lookups of the search, in the order in which they are tried.
    """

    search: tuple[Probe, ...] = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def get_search_fields(self, request):
        """Return a placeholder, so that the list has a search box; `search` defines the search."""
        return ("pk",) if self.search else ()

    def get_list_filter(self, request):
        return [self._filter(name) if isinstance(name, str) else name for name in super().get_list_filter(request)]

    def _filter(self, name: str):
        field = self.opts.get_field(name)
        if isinstance(field, models.DateTimeField):
            return name, filters.TimeFilter
        several = leads(self.model, name) and not isinstance(field, models.BooleanField)
        return name, filters.IndexedValueFilter if several else filters.ValueFilter

    def get_sortable_by(self, request):
        possible = orders(self.model)
        columns = self.get_list_display(request)
        return [column for column in columns if callable(column) and getattr(column, "admin_order_field", None) in possible]

    def get_changelist(self, request, **kwargs):
        return ChangeList

    def get_changelist_instance(self, request):
        try:
            with deadlines.within(deadlines.STATEMENT) if request.method == "POST" else nullcontext():
                return super().get_changelist_instance(request)
        except IncorrectLookupParameters:
            raise BadParameter(
                "The URL contains a filter that this list does not offer, so its parameters were ignored."
            ) from None

    def get_search_results(self, request, queryset, search_term):
        """Return the search results for autocomplete fields."""
        term = search_term.strip()
        return (queryset.filter(search(self.model, self.search, term).rows) if term else queryset), False

    def found_pages(self, term: str) -> Iterable[Panel]:
        """Return results of the search of all tables other than rows: pages over several rows."""
        return ()

    def lookup_allowed(self, lookup, value, request=None):
        """Allow lookups of the page's filters, and by a key or a foreign key: any other could probe a secret."""
        offered = {name for item in self.get_list_filter(request) for name in _parameters(item)}
        keys = {self.opts.pk.name: ("", "__exact", "__in")}
        for field in self.opts.local_fields:
            if isinstance(field, models.ForeignKey):
                keys[field.name] = ("", "__exact", f"__{field.target_field.name}__exact")
        return lookup in offered or any(lookup == name + suffix for name, suffixes in keys.items() for suffix in suffixes)


def _parameters(item) -> list[str]:
    """Return the URL parameters that a filter of `list_filter` accepts."""
    name, kind = item
    return [f"{name}__{part}" for part in ("within", "from", "until")] if kind is filters.TimeFilter else [name]
