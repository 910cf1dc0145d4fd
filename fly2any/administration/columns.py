"""The display of fields on pages of the admin: the columns of a list, and the values of a row."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.urls import NoReverseMatch
from django.utils.choices import flatten_choices

from . import formats
from .formats import Show
from .markup import markup
from .overview import best_page

CHECKBOX = markup(
    f'<input type="checkbox" name="{ACTION_CHECKBOX_NAME}" value="{{}}" class="action-select" aria-label="Select {{}}">'
)
LINK = markup('<a href="{}">{}</a>')


class ColumnsMixin(admin.ModelAdmin):
    """Shows each field by its type, in lists and on the page of a row.

    `shown` maps the name of a field to its format where its type does not determine it. The model's `secret_fields` are shown as fingerprints.
    `computed_from` names the JSON fields from which a column of the list is computed: a list fetches no other JSON that it
    does not show.
    """

    shown: dict[str, Show] = {}
    computed_from: tuple[str, ...] = ()

    def __init__(self, model, admin_site):
        super().__init__(model, admin_site)
        self.secrets: tuple[str, ...] = getattr(model, "secret_fields", ())
        self._forms = {
            (field.name, in_list): (field.attname, field.name in self.secrets, self._form(field, in_list))
            for field in self.opts.local_fields
            for in_list in (True, False)
        }
        self.columns: dict[Any, Any] = {field.name: self._column(field) for field in self.opts.local_fields}
        self.columns["__str__"] = self._name_column()

    def show(self, name: str, row, *, in_list: bool = False):
        """Return the display of the field `name` of `row`, None if Django's default is suitable."""
        attname, secret, form = self._forms[name, in_list]
        value = getattr(row, attname)
        if value is None or value == "" or (secret and not value):
            return formats.NOTHING
        if form is not None:
            return form(value, row)
        return formats.yes_no(value) if isinstance(value, bool) else None

    def _form(self, field: Any, in_list: bool) -> Show | None:
        """Return the format of a field's values, None if Django's default for the type is suitable."""
        if field.name in self.secrets:
            return formats.secret
        if field.name in self.shown:
            return self.shown[field.name]
        if isinstance(field, models.DateTimeField):
            return formats.when if in_list else formats.when_in_full
        if isinstance(field, models.JSONField):
            return formats.tree
        if isinstance(field, ArrayField):
            return formats.chips
        if field.choices:
            labels: dict[Any, Any] = dict(flatten_choices(field.choices))
            return formats.choice({str(key): str(label) for key, label in labels.items()})
        if isinstance(field, models.TextField) and in_list and (field.primary_key or field.name.endswith("_id")):
            return formats.identifier
        if isinstance(field, models.TextField):
            show = formats.cell if in_list else formats.text
            return formats.spaced(show) if field.name in getattr(self, "several_days", ()) else show
        return formats.number if isinstance(field, models.IntegerField | models.FloatField) else None

    def show_readonly(self, name: str, row):
        """Return the display of `name` on the page of `row`, None if it is not a column or Django's default is suitable."""
        if isinstance(self.columns.get(name), str):
            return link_to(name)(self, row)
        return self.show(name, row) if name in self.columns else None

    def _column(self, field):
        if isinstance(field, models.ForeignKey):
            return field.name

        def column(row):
            return self.show(field.name, row, in_list=True)

        column.__name__ = field.name
        return admin.display(description=field.verbose_name, ordering=field.name)(column)

    def _name_column(self):
        @admin.display(description=self.opts.verbose_name)
        def column(row):
            return formats.cell(row)

        column.__name__ = "__str__"
        return column

    @cached_property
    def numeric_columns(self) -> set[str]:
        """Return the numeric fields, which a list aligns to the right."""
        numeric = models.IntegerField | models.FloatField
        return {field.name for field in self.opts.local_fields if isinstance(field, numeric) and not field.choices}

    def cell(self, name, row):
        """Return what the column `name` of the list shows for `row`."""
        if callable(name):
            return name(row)
        return getattr(self, name)(row) if hasattr(self, name) else getattr(row, name)

    def action_checkbox(self, obj):
        """Django's checkbox with a shortened name of the row, which may be a megabyte long."""
        return CHECKBOX(obj.pk, formats.beginning(obj))

    def get_list_display(self, request):
        return [self.columns.get(name, name) for name in super().get_list_display(request)]

    def get_list_display_links(self, request, list_display):
        links = super().get_list_display_links(request, list_display)
        return links and [self.columns.get(name, name) for name in links]


def link_to(name: str, description: str | None = None):
    """Return a list column that links to the object of the foreign key `name`, or shows the plain key if there is no such object."""

    @admin.display(description=description or name.replace("_", " "))
    def column(self, obj):
        field = obj._meta.get_field(name)
        key = getattr(obj, field.attname)
        if key is None:
            return formats.NOTHING
        try:
            other = getattr(obj, name)
        except field.related_model.DoesNotExist:
            other = None
        if other is None:
            return formats.identifier(key)
        try:
            url = best_page(other)
        except NoReverseMatch:
            return formats.cell(other)
        return LINK(url, formats.cell(other))

    return column
