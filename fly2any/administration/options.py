"""What every page of the admin has in common."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import label_for_field, unquote
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.http import FileResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path
from django.utils.choices import flatten_choices
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.http import require_POST, require_safe

from fly2any.database.diagnosis import Refusal
from fly2any.postgres.values import Beyond, Unreadable

from . import deadlines, filters, shown
from .accesses import note, record
from .cascade import cascade_of
from .changelist import ChangeList
from .dashboard import Figure
from .export import rows_as_csv, spooled
from .filters import BadParameter
from .forms import SchemaForms
from .indexes import leads, orders
from .models import Access
from .overview import MOST_EVENTS, page_of_row, panels, timeline
from .replica import REPLICA, Missing, current
from .saving import SavedForms
from .search import Key, Probe, Related, search
from .shown import Show


class ModelAdmin(SavedForms, SchemaForms, admin.ModelAdmin):
    """A page of the admin over a table that may be large, and may hold secrets.

    `secrets` names the fields of which only a fingerprint is shown, `written_by_machines` those that forms show
    and do not offer to change, `search` the lookups of the search, in the order in which
    they are tried, and `shown` how fields are shown where their type does not say it. `figures` stand on the first page, and
    so does the time of the newest row, where `newest` labels it. With `overview`, the fields of its facts, a row has a page
    of what hangs on it. `deletion` is the word for deleting rows where there is a better one. `computed_from` names the JSON that a column
    of the list is made of: a list does not fetch any other that it does not show.
    """

    secrets: tuple[str, ...] = ()
    written_by_machines: tuple[str, ...] = ()
    search: tuple[Probe, ...] = ()
    shown: dict[str, Show] = {}
    figures: tuple[Figure, ...] = ()
    newest = ""
    deletion = ""
    computed_from: tuple[str, ...] = ()
    overview: tuple[str, ...] = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    def action_checkbox(self, obj):
        """Django's, with the beginning of what the row is called: the name of a row may be a megabyte."""
        box = forms.CheckboxInput(
            {"class": "action-select", "aria-label": f"Select {shown.beginning(obj)}"}, lambda value: False
        )
        return box.render(ACTION_CHECKBOX_NAME, str(obj.pk))

    def get_search_fields(self, request):
        """Return that there is a search; `search` says which."""
        return ("pk",) if self.search else ()

    def __init__(self, model, admin_site):
        super().__init__(model, admin_site)
        self.columns: dict[Any, Any] = {field.name: self._column(field) for field in self.opts.local_fields}

    def show(self, name: str, row, *, in_list: bool = False):
        """Return how the value of the field `name` of `row` is shown, None for what Django's admin shows well."""
        field: Any = self.opts.get_field(name)
        value = getattr(row, field.attname)
        if name in self.secrets:
            return shown.secret(value) if value else shown.NOTHING
        if value is None or value == "":
            return shown.NOTHING
        if name in self.shown:
            return self.shown[name](value, row)
        if isinstance(field, models.DateTimeField):
            return shown.when(value) if in_list else shown.when_in_full(value)
        if isinstance(field, models.JSONField):
            return shown.tree(value)
        if isinstance(field, ArrayField):
            return shown.chips(value)
        if field.choices:
            labels: dict[Any, Any] = dict(flatten_choices(field.choices))
            return shown.choice({str(key): str(label) for key, label in labels.items()})(value, row)
        if isinstance(field, models.TextField):
            return shown.cell(value) if in_list else shown.text(value)
        if isinstance(field, models.IntegerField | models.FloatField):
            return shown.number(value)
        return shown.yes_no(value) if isinstance(value, bool) else None

    def show_readonly(self, name: str, row):
        """Return how `name` is shown on the page of `row`, None where it is no column or Django's admin shows it well."""
        return self.show(name, row) if name in self.columns else None

    def _column(self, field):
        if isinstance(field, models.ForeignKey):
            return field.name

        def column(row):
            return self.show(field.name, row, in_list=True)

        column.__name__ = field.name
        return admin.display(description=field.verbose_name, ordering=field.name)(column)

    def cell(self, name, row):
        """Return what the column `name` of the list shows of `row`."""
        if callable(name):
            return name(row)
        if name == "__str__":
            return shown.beginning(row)
        return getattr(self, name)(row) if hasattr(self, name) else getattr(row, name)

    def get_urls(self):
        place, protected = f"{self.opts.app_label}_{self.opts.model_name}", self.admin_site.admin_view
        ours = [path("export/", protected(self.export_view), name=f"{place}_export")]
        if self.findable:
            ours.append(path("find/", protected(self.find_view), name=f"{place}_find"))
        if self.overview:
            ours.append(path("<path:object_id>/overview/", protected(self.overview_view), name=f"{place}_overview"))
        return ours + super().get_urls()

    @property
    def findable(self) -> list[str]:
        """Return the secrets by which a row can be found: those that a unique index leads to."""
        unique = {field.name for field in self.opts.local_fields if field.unique}
        return [name for name in self.secrets if name in unique]

    @method_decorator(require_POST)
    def find_view(self, request):
        """Lead to the row that has the secret that was sent; by POST, so that it is in no address and no log."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        secret = request.POST.get("secret", "").strip()
        for name in self.findable if secret else ():
            if row := self.get_queryset(request).filter(**{name: secret}).only("pk").first():
                return HttpResponseRedirect(page_of_row(row))
        self.message_user(request, f"No {self.opts.verbose_name} has this secret.", messages.WARNING)
        return HttpResponseRedirect("../")

    def has_export_permission(self, request) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.export_{self.opts.model_name}")

    @method_decorator(require_POST)
    def export_view(self, request):
        """Send the rows of the list, as it is filtered, as CSV."""
        if not (self.has_view_permission(request) and self.has_export_permission(request)):
            raise PermissionDenied
        try:
            rows = self.get_changelist_instance(request).queryset
        except BadParameter as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect("../")
        note(request, Access.Action.EXPORTED, self.model, query=request.GET.urlencode())
        record(request)
        export = spooled(rows_as_csv(rows, without=self.secrets))
        name, length = f"{self.opts.db_table}.csv", {"Content-Length": str(export.size)}
        return FileResponse(export, as_attachment=True, filename=name, content_type="text/csv; charset=utf-8", headers=length)

    @method_decorator(require_safe)
    def history_view(self, request, object_id, extra_context=None):
        return super().history_view(request, object_id, extra_context)

    @method_decorator(require_safe)
    def overview_view(self, request, object_id):
        """The page of what hangs on a row."""
        row = self.get_object(request, unquote(object_id))
        if row is None and current().alias == REPLICA:
            raise Missing
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        before = request.GET.get("before", "")
        try:
            events = timeline(self, request, row, before=before)
        except (ValueError, OverflowError):
            raise BadParameter("The address names no place on this timeline.") from None
        context = {
            **self.admin_site.each_context(request),
            "title": str(row),
            "opts": self.opts,
            "original": row,
            "facts": [(label_for_field(name, self.model, self), self.show(name, row)) for name in self.overview],
            # What there is before what there is not.
            "panels": [] if before else sorted(panels(self, request, row), key=lambda panel: not panel.rows),
            "events": events[:MOST_EVENTS],
            "next_events": f"?{urlencode({'before': events[MOST_EVENTS - 1].token})}" if len(events) > MOST_EVENTS else "",
            "before": before,
            "change_url": page_of_row(row),
        }
        return TemplateResponse(request, "admin/overview.html", context)

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        if self.overview and obj:
            context["overview_url"] = page_of_row(obj, "overview")
        return super().render_change_form(request, context, add, change, form_url, obj)

    def get_list_display(self, request):
        return [self.columns.get(name, name) for name in super().get_list_display(request)]

    def get_list_display_links(self, request, list_display):
        links = super().get_list_display_links(request, list_display)
        return links and [self.columns.get(name, name) for name in links]

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

    def changelist_view(self, request, extra_context=None):
        extra = {"may_export": self.has_export_permission(request), "findable": self.findable}
        return self.or_message(request, super().changelist_view, {**extra, **(extra_context or {})})

    def get_changelist_instance(self, request):
        try:
            with deadlines.within(deadlines.STATEMENT) if request.method == "POST" else nullcontext():
                return super().get_changelist_instance(request)
        except IncorrectLookupParameters:
            raise BadParameter("The address asks this list for what it does not offer: this is the list without it.") from None

    def get_exclude(self, request, obj=None):
        return [*(super().get_exclude(request, obj) or ()), *self.secrets]

    def get_readonly_fields(self, request, obj=None):
        machines = self.written_by_machines if obj else ()
        # What a form could not give back as it was.
        fields = self.opts.local_fields if obj else ()
        odd = [field.name for field in fields if isinstance(getattr(obj, field.attname), Beyond | Unreadable)]
        return [*super().get_readonly_fields(request, obj), *machines, *odd, *(self.columns[name] for name in self.secrets)]

    def get_fields(self, request, obj=None):
        hidden = () if obj else {*self.readonly_fields, *(self.columns[name] for name in self.secrets)}
        return [name for name in super().get_fields(request, obj) if name not in hidden]

    def get_search_results(self, request, queryset, search_term):
        """Return what the search finds, for the lists of autocomplete fields."""
        term = search_term.strip()
        return (queryset.filter(search(self.model, self.search, term).rows) if term else queryset), False

    def get_actions(self, request):
        actions: dict[str, Any] = super().get_actions(request)
        if self.deletion and "delete_selected" in actions:
            function, name, _ = actions["delete_selected"]
            actions["delete_selected"] = (function, name, self.deletion)
        return actions

    def response_action(self, request, queryset, *args):
        if request.POST.get("select_across", "0") not in ("", "0"):
            self.message_user(
                request, "An action takes the rows that are selected on the page, not the whole table.", messages.ERROR
            )
            return None
        for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.to_python(key)
            except ValidationError:
                raise BadParameter("What was selected is no row of this list.") from None
        return super().response_action(request, queryset, *args)

    def lookup_allowed(self, lookup, value, request=None):
        """Allow what the page's filters ask, and rows by their key or a foreign key: anything else could ask for a secret."""
        offered = {name for item in self.get_list_filter(request) for name in _parameters(item)}
        keys = {self.opts.pk.name: ("", "__exact", "__in")}
        for field in self.opts.local_fields:
            if isinstance(field, models.ForeignKey):
                keys[field.name] = ("", "__exact", f"__{field.target_field.name}__exact")
        return lookup in offered or any(lookup == name + suffix for name, suffixes in keys.items() for suffix in suffixes)

    def get_deleted_objects(self, objs, request):
        """Add to Django's answer what the database will delete and change along with it, counted and not fetched."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        try:
            carried = cascade_of(self.model, [obj.pk for obj in objs]).counts()
        except Refusal as refusal:  # The page shows what keeps the rows from being deleted.
            carried = {}
            self.message_user(request, str(refusal), messages.ERROR)
        return to_delete, {**counts, **{name: str(count) for name, count in carried.items()}}, perms_needed, protected


def _parameters(item) -> list[str]:
    """Return the names in the address that a filter of `list_filter` takes."""
    name, kind = item
    return [f"{name}__{part}" for part in ("within", "from", "until")] if kind is filters.TimeFilter else [name]


class ReadOnlyModelAdmin(ModelAdmin):
    """A page over what machines write: trails, tokens, results. It is looked at, and removed at most."""

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False


def link_to(name: str, description: str | None = None):
    """Return a list column that links to the object of the foreign key `name`, or shows the bare key where it names nobody."""

    @admin.display(description=description or name.replace("_", " "), empty_value="–")
    def column(self, obj):
        field = obj._meta.get_field(name)
        key = getattr(obj, field.attname)
        if key is None:
            return None
        try:
            other = getattr(obj, name)
        except field.related_model.DoesNotExist:
            other = None
        if other is None:
            return shown.beginning(key)
        try:
            url = _address_of(other)
        except NoReverseMatch:
            return shown.beginning(other)
        return format_html('<a href="{}">{}</a>', url, shown.beginning(other))

    return column


def _address_of(row: models.Model) -> str:
    """Return the address of the overview of `row`, or of its page where it has none; raise NoReverseMatch without either."""
    try:
        return page_of_row(row, "overview")
    except NoReverseMatch:
        return page_of_row(row)


class OfUser:
    """What the pages over rows that hang on a user share: found by their id, the user's e-mail address or the user's id."""

    list_select_related = ("user",)
    raw_id_fields = ("user",)
    search = (Related("user", "email", is_address=True), Key("id"), Key("user"))
    search_help_text = "An id, or the user's e-mail address or id."
    user_link = link_to("user")
