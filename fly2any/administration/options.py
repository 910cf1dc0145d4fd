"""What every page of the admin has in common."""

from __future__ import annotations

from collections.abc import Iterator

from django import forms
from django.contrib import admin
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.choices import flatten_choices
from django.utils.html import format_html

from fly2any.postgres.deletion import DB_CASCADE

MOST_COUNTED = 10_000  # Rows of a table counted for the deletion page; more is shown as "10,000+".


class OpenSelect(forms.Select):
    """A list that also offers the value that is there, where no choice names it."""

    def optgroups(self, name, value, attrs=None):
        groups = super().optgroups(name, value, attrs)
        known = {str(choice) for choice, _ in flatten_choices(self.choices)}
        for other in value:
            if other and other not in known:
                groups.append((None, [self.create_option(name, other, other, True, len(groups))], len(groups)))
        return groups


class OpenChoiceField(forms.TypedChoiceField):
    """The columns have no constraint: what the site wrote stays, whether a choice names it or not."""

    widget = OpenSelect

    def valid_value(self, value):
        return True


class OpenModelForm(forms.ModelForm):
    def _get_validation_exclusions(self):
        chosen = {field.name for field in self._meta.model._meta.fields if field.choices}
        return super()._get_validation_exclusions() | chosen  # type: ignore[misc]


class SchemaForms(BaseModelAdmin):
    """How the schema's columns are edited: text in one line but for `long_texts`, empty is NULL, choices are open."""

    form = OpenModelForm
    long_texts: tuple[str, ...] = ()

    def formfield_for_choice_field(self, db_field, request, **kwargs):
        return super().formfield_for_choice_field(db_field, request, choices_form_class=OpenChoiceField, **kwargs)

    def formfield_for_dbfield(self, db_field, request, **kwargs):
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if type(db_field) is models.TextField and field and not db_field.choices and db_field.name not in self.long_texts:
            field.widget = AdminTextInputWidget()
        if field and isinstance(db_field, models.DateTimeField) and db_field.has_db_default():
            field.initial = timezone.now
        if field and isinstance(db_field, models.TextField) and db_field.null:
            field.empty_value = None  # type: ignore[attr-defined]  # The schema's empty is NULL.
        return field


class ModelAdmin(SchemaForms, admin.ModelAdmin):
    """A page of the admin over a table that may be large, and may hold secrets: `secrets` names the fields never shown."""

    secrets: tuple[str, ...] = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    def get_exclude(self, request, obj=None):
        return [*(super().get_exclude(request, obj) or ()), *self.secrets]

    def get_fields(self, request, obj=None):
        hidden = self.secrets if obj else (*self.secrets, *self.readonly_fields)
        return [name for name in super().get_fields(request, obj) if name not in hidden]

    def lookup_allowed(self, lookup, value, request=None):
        """Allow what the page offers, and rows by their key: any other lookup would be a question about hidden values."""
        name = lookup.partition(LOOKUP_SEP)[0]
        offered = {item[0] if isinstance(item, tuple) else item for item in self.get_list_filter(request)}
        if lookup in offered or name in {item.partition(LOOKUP_SEP)[0] for item in offered if isinstance(item, str)}:
            return name not in self.secrets and super().lookup_allowed(lookup, value, request)
        if name == self.opts.pk.name:
            return True
        field = next((field for field in self.opts.local_fields if field.name == name), None)
        return isinstance(field, models.ForeignKey) and lookup in (
            name,
            f"{name}__exact",
            f"{name}__{field.target_field.name}__exact",
        )

    def get_deleted_objects(self, objs, request):
        """Add to Django's answer what the database will delete by cascade, counted and not fetched."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        pks = [obj.pk for obj in objs]
        cascade = dict(_cascade(self.model, pks, self.model._base_manager.db))
        shown = {name: number if number <= MOST_COUNTED else f"{MOST_COUNTED:,}+" for name, number in cascade.items()}
        return to_delete, {**counts, **shown}, perms_needed, protected


def _cascade(model: type[models.Model], keys, using: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the number, at most MOST_COUNTED + 1, of the rows of each table that the database deletes with `keys`."""
    for relation in model._meta.related_objects:
        if relation.on_delete is DB_CASCADE:
            rows = relation.related_model._base_manager.using(using).filter(**{f"{relation.field.name}__in": keys}).values("pk")
            if number := rows[: MOST_COUNTED + 1].count():
                yield str(relation.related_model._meta.verbose_name_plural), number
                yield from _cascade(relation.related_model, rows, using)


class ReadOnlyModelAdmin(ModelAdmin):
    """A page over what machines write: trails, tokens, results. It is looked at, and removed at most."""

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False


def link_to(name: str, description: str | None = None):
    """Return a list column that links to the object of the foreign key `name`, or shows the bare key where it names nobody."""

    @admin.display(description=description or name.replace("_", " "), ordering=name, empty_value="–")
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
            return key
        try:
            url = reverse(f"admin:{other._meta.app_label}_{other._meta.model_name}_change", args=[key])
        except NoReverseMatch:
            return str(other)
        return format_html('<a href="{}">{}</a>', url, other)

    return column


def is_set(name: str):
    """Return a column that says whether the secret `name` is there, and nothing of what it is."""

    @admin.display(description=name.replace("_", " "), boolean=True)
    def column(self, obj):
        return bool(getattr(obj, name))

    return column


class OfUser:
    """What the pages over rows that hang on a user share: found by their id or the user's e-mail address, linked to the user."""

    list_select_related = ("user",)
    raw_id_fields = ("user",)
    search_fields = ("id__exact", "user__email__exact")
    search_help_text = "An id, or the user's e-mail address."
    user_link = link_to("user")
