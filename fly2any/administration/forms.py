"""Forms of the schema's tables, and a field for each type of column: choices are open, JSON is what PostgreSQL accepts, empty is NULL."""

from __future__ import annotations

import json
import math
import re
from datetime import time
from typing import Any

from django import forms
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.widgets import (
    AdminSplitDateTime,
    AdminTextareaWidget,
    AdminTextInputWidget,
    BaseAdminDateWidget,
    BaseAdminTimeWidget,
)
from django.contrib.auth import get_user_model
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.forms import SimpleArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.forms.fields import InvalidJSONInput
from django.utils import timezone
from django.utils.choices import flatten_choices

from fly2any.postgres.fields import exactly
from fly2any.postgres.values import is_deep

from .edits import EditForm
from .form_fields import (
    AirportField,
    AirportInput,
    DayField,
    DayInput,
    MoneyInput,
    PersonField,
    PersonWidget,
    TextDayField,
    is_day,
)

PLAIN = re.compile(r"[^\s,\[\"](?:[^,\r\n]*[^\s,])?")  # An element that survives being separated by commas.


class OpenSelect(forms.Select):
    """A list that also offers the stored value if it is not one of the choices."""

    def optgroups(self, name, value, attrs=None):
        groups = super().optgroups(name, value, attrs)
        known = {str(choice) for choice, _ in flatten_choices(self.choices)}
        for other in value:
            if other not in known:
                groups.append((None, [self.create_option(name, other, other, True, len(groups))], len(groups)))
        return groups


NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # Not after a backslash that is itself escaped.


def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON; raise ValueError if a name is repeated, so that a value would be lost."""
    if len(read := dict(pairs)) < len(pairs):
        raise ValueError("A name is repeated.")
    return read


class JSONFormField(forms.JSONField):
    """JSON that PostgreSQL accepts and that can be shown again; an empty array or object is a value."""

    empty_values = [None, ""]

    def bound_data(self, data, initial):
        try:
            bound = super().bound_data(data, initial)
            json.dumps(bound, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)
        return bound

    def to_python(self, value):
        try:
            read = super().to_python(value)
            if isinstance(value, str) and value:
                json.loads(value, parse_float=exactly, object_pairs_hook=distinct)
            written = json.dumps(read, allow_nan=False, ensure_ascii=False)
            written.encode()
        except (ValueError, RecursionError):
            read, written = None, "\0"
        if "\0" in written or NUL.search(written) or is_deep(written):
            raise ValidationError(
                "This JSON cannot be saved. NaN, NUL, unpaired surrogates, duplicate names in an object, "
                "numbers with more digits than a float keeps, and more than 200 levels are not allowed."
            )
        return read


class OpenChoiceField(forms.TypedChoiceField):
    """The columns have no constraint, so a value that the site wrote stays, even if it is not one of the choices."""

    widget = OpenSelect

    def valid_value(self, value):
        return True


class ArrayFormField(SimpleArrayField):
    """An array as comma-separated text, or as JSON if that would be ambiguous."""

    def __init__(self, base_field, **kwargs):
        base_field.strip = False  # Blanks in JSON are significant.
        super().__init__(base_field, **kwargs)

    def prepare_value(self, value):
        if isinstance(value, list) and not all(isinstance(one, str) and PLAIN.fullmatch(one) for one in value):
            return json.dumps(value, ensure_ascii=False)
        return super().prepare_value(value)

    def to_python(self, value):
        if not value:
            return []
        if isinstance(value, list) or not value.lstrip().startswith("["):
            return super().to_python([one.strip() for one in value.split(self.delimiter)] if isinstance(value, str) else value)
        try:
            read = json.loads(value)
            json.dumps(read, ensure_ascii=False).encode()  # Unpaired surrogates are not text.
        except (ValueError, RecursionError):
            read = None
        if not isinstance(read, list) or not all(isinstance(one, str | None) for one in read):
            raise ValidationError("Enter values separated by commas, or a JSON array of strings.")
        return read


class TimeInput(BaseAdminTimeWidget):
    """Django's input, which here also shows fractions of a second."""

    def format_value(self, value):
        return value.isoformat() if isinstance(value, time) and value.microsecond else super().format_value(value)


class DateTimeInput(AdminSplitDateTime):
    supports_microseconds = True

    def __init__(self, attrs=None):
        forms.MultiWidget.__init__(self, [BaseAdminDateWidget, TimeInput], attrs)


class OpenModelForm(EditForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in self.watched:
            field: Any = self.fields[name]
            value = self.initial.get(name)
            if isinstance(field, TextDayField) and value and not is_day(value):
                field.widget = AdminTextInputWidget()  # A date input shows nothing else.
            of_one_line = type(field.widget) in (AdminTextInputWidget, AirportInput)
            if of_one_line and isinstance(value, str) and re.search(r"[\r\n]", value):
                field.widget = AdminTextareaWidget(field.widget.attrs)  # A single-line input drops line breaks.
            if isinstance(value, float) and not math.isfinite(value):
                field.widget = AdminTextInputWidget(field.widget.attrs)  # A number input cannot send NaN.

    def _get_validation_exclusions(self):
        chosen = {field.name for field in self._meta.model._meta.fields if field.choices}
        return super()._get_validation_exclusions() | chosen


class SchemaForms(BaseModelAdmin):
    """Form fields for the schema's columns: text in one line except the model's `long_texts`, empty is NULL, choices are open."""

    form = OpenModelForm
    formfield_overrides = {
        models.JSONField: {"form_class": JSONFormField},
        ArrayField: {"form_class": ArrayFormField},
        models.DateTimeField: {"form_class": forms.SplitDateTimeField, "widget": DateTimeInput},
    }
    airports: tuple[str, ...] = ()  # Text columns with an IATA code.
    amounts: tuple[str, ...] = ()  # Columns with an amount of money.
    days: tuple[str, ...] = ()  # Columns with a day: text as YYYY-MM-DD, or a time at midnight.
    several_days: tuple[str, ...] = ()  # Text columns that may hold several days.

    def get_fieldsets(self, request, obj=None):
        """Return the titled parts of the form; without read-only fields if a row is added."""
        found = super().get_fieldsets(request, obj)
        if obj:
            return found
        shown = {*self.get_readonly_fields(request, obj)}
        parts = [(title, {**options, "fields": _without(options["fields"], shown)}) for title, options in found]
        return [(title, options) for title, options in parts if options["fields"]]

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        if db_field.name in self.raw_id_fields and db_field.related_model is get_user_model():
            widget = PersonWidget(db_field.remote_field, self.admin_site, using=kwargs.get("using"))
            kwargs = {"form_class": PersonField, "widget": widget, "help_text": "E-mail address or ID.", **kwargs}
            return db_field.formfield(**kwargs)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field, request, **kwargs):
        return super().formfield_for_manytomany(db_field, request, **{"widget": forms.CheckboxSelectMultiple, **kwargs})

    def formfield_for_choice_field(self, db_field, request, **kwargs):
        return super().formfield_for_choice_field(db_field, request, choices_form_class=OpenChoiceField, **kwargs)

    def formfield_for_dbfield(self, db_field, request, **kwargs):
        if db_field.name in self.airports:
            kwargs["form_class"] = AirportField
        if db_field.name in self.days:
            is_time = isinstance(db_field, models.DateTimeField)
            several = {} if is_time else {"several": db_field.name in self.several_days}
            kwargs |= {"form_class": DayField if is_time else TextDayField, "widget": DayInput, **several}
        if db_field.name in self.amounts:
            kwargs["widget"] = MoneyInput
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        long = getattr(self.model, "long_texts", ())
        of_one_line = type(db_field) is models.TextField and not db_field.choices and db_field.name not in long
        if field and of_one_line and db_field.name not in self.days:
            field.widget = AirportInput() if db_field.name in self.airports else AdminTextInputWidget()
        if field and isinstance(db_field, models.DateTimeField):
            if db_field.has_db_default():
                field.initial = timezone.now
            for part, widget in zip(("date", "time, UTC"), getattr(field.widget, "widgets", ()), strict=False):
                widget.attrs["aria-label"] = f"{db_field.verbose_name}: {part}"
        if field and isinstance(db_field, models.TextField) and db_field.null:
            field.empty_value = None  # type: ignore[attr-defined]  # The schema's empty is NULL.
        return field


def _without(fields, names: set) -> list:
    """Return the lines of a part of a form without some fields."""
    lines = [[name for name in line if name not in names] if isinstance(line, list | tuple) else line for line in fields]
    return [line for line in lines if line and not (isinstance(line, str) and line in names)]


class PasswordFormMixin:
    """A form for a new password that writes no other column."""

    def set_password_and_save(self, user, *arguments, commit=True, **options):
        user = super().set_password_and_save(user, *arguments, commit=False, **options)  # type: ignore[misc]
        if commit:
            user.save(update_fields=["password", "updated_at"])
        return user
