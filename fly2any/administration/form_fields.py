"""Fields of forms over the schema's columns: a person by e-mail, an airport, a day that is stored as text or as a time."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextInputWidget, ForeignKeyRawIdWidget
from django.core.exceptions import ValidationError
from django.utils.html import format_html, format_html_join

from fly2any.database.person.people import with_address

from .airports import is_code, suggested
from .deadlines import TooSlow, within
from .overview import best_page

DAY = re.compile(r"\d{4}-\d\d-\d\d")


class AirportInput(AdminTextInputWidget):
    """A text input that suggests airports as you type; the browser does that without a script."""

    def __init__(self, attrs=None):
        super().__init__({"autocapitalize": "characters", "spellcheck": "false", "size": 12, **(attrs or {})})

    def render(self, name, value, attrs=None, renderer=None):
        place = f"airports-{name}"
        html = super().render(name, value, {**(attrs or {}), "list": place}, renderer)
        options = format_html_join(
            "", '<option value="{}">{}, {}</option>', [(one.code, one.city, one.name) for one in suggested()]
        )
        return format_html('{}<datalist id="{}">{}</datalist>', html, place, options)


class AirportField(forms.CharField):
    """The IATA code of an airport or a city, in upper case."""

    widget = AirportInput

    def clean(self, value):
        code = super().clean(value)
        if not code:
            return code
        if not is_code(code.strip().upper()):
            raise ValidationError(f"“{code}” is not the IATA code of an airport or a city: enter three letters, such as LIS.")
        return code.strip().upper()


def is_day(text: Any) -> bool:
    """Return whether a date input can show the text: `YYYY-MM-DD`."""
    try:
        return bool(DAY.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False


class DayInput(AdminTextInputWidget):
    input_type = "date"

    def __init__(self, attrs=None):
        super().__init__({"class": "day-input", **(attrs or {})})


class TextDayField(forms.CharField):
    """A day in a text column, `YYYY-MM-DD`; with `several`, also several days separated by commas."""

    widget: Any = DayInput

    def __init__(self, *, several: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.several = several

    def clean(self, value):
        text = super().clean(value)
        parts = [part.strip() for part in text.split(",")] if text and self.several else [text]
        if text and not all(map(is_day, parts)):
            raise ValidationError(f"“{text}” is not a date. Enter it as YYYY-MM-DD.")
        return text


class DayField(forms.DateField):
    """A day in a time column: midnight, UTC."""

    widget = DayInput

    def prepare_value(self, value):
        return value.astimezone(UTC).date().isoformat() if isinstance(value, datetime) else value

    def to_python(self, value):
        if isinstance(value, datetime):
            return value
        day = super().to_python(value)
        return day and datetime(day.year, day.month, day.day, tzinfo=UTC)


class MoneyInput(forms.NumberInput):
    """A number input that shows an amount with two decimals, unless it has more."""

    def format_value(self, value):
        return (
            f"{value:.2f}"
            if isinstance(value, float) and abs(value) < 1e12 and round(value, 2) == value
            else super().format_value(value)
        )


class PersonWidget(ForeignKeyRawIdWidget):
    """Shows a person by e-mail address; with scripts, a click on the lens inserts the id."""

    def format_value(self, value):
        if value is None or value == "":
            return None
        model: Any = self.rel.model
        people = model._base_manager.db_manager(self.db)
        email = people.filter(pk=value).values_list(model.USERNAME_FIELD, flat=True).first()
        return email or str(value)

    def label_and_url_for_value(self, value):
        """Return the address, and the URL of the overview, to which lists link too."""
        label, url = super().label_and_url_for_value(value)
        return label, url and best_page(self.rel.model(pk=value))

    def get_context(self, name, value, attrs):
        context = super().get_context(name, value, attrs)
        context["widget"]["attrs"].update({"class": "vTextField", "spellcheck": "false"})
        return context


class PersonField(forms.ModelChoiceField):
    """A person, by e-mail address in upper or lower case, or by id."""

    def to_python(self, value):
        people: Any = self.queryset
        if value in self.empty_values or isinstance(value, people.model):
            return value or None
        text, name = str(value).strip(), people.model.USERNAME_FIELD
        try:
            with within():
                found = list(people.filter(pk=text)[:1]) or list(people.filter(**{name: text})[:1])
                found += [] if found else with_address(people, name, text)
        except TooSlow:
            raise ValidationError("Finding the user took too long. Enter the ID instead.") from None
        if not found:
            raise ValidationError("No user has this e-mail address or ID.")
        if len(found) > 1:
            raise ValidationError(
                "Several users have this address in different spellings. Enter the exact spelling of one of them."
            )
        return found[0]

    def has_changed(self, initial, data):
        try:
            person = self.to_python(data)
        except ValidationError:
            return True
        return str(person.pk if person else "") != str(initial or "")
