"""Filters of the lists: by a value, and by a range of time.

changelist.py decides how many rows a page looks through for a filter that no index serves.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.admin import FieldListFilter
from django.db import models
from django.utils import timezone
from django.utils.choices import flatten_choices
from django.utils.dateparse import parse_date, parse_datetime

from . import formats
from .search import values_of


class BadParameter(Exception):  # noqa: N818  Nothing is broken.
    """A URL parameter cannot be used; the text is the sentence for the user."""


class Filter(FieldListFilter):
    """A filter over one column: `equal` has the requested value by name, and `narrow` applies the filter."""

    def __init__(self, field, request, params, model, model_admin, field_path):
        super().__init__(field, request, params, model, model_admin, field_path)
        used: dict[str, Any] = self.used_parameters
        self.given: dict[str, str] = {name: values[-1] for name, values in used.items()}

    @property
    def equal(self) -> dict[str, Any]:
        return {}

    @property
    def chosen(self) -> str:
        """Return the choice as the list states it, "" without one."""
        return ""

    def queryset(self, request, queryset):
        return queryset.filter(**self.equal)


class ValueFilter(Filter):
    """Rows with a value: one of the field's choices, or of the values in the table if the column leads an index."""

    model_of_values: type[models.Model] | None = None

    def expected_parameters(self):
        return [self.field_path]

    @property
    def equal(self):
        value = self.given.get(self.field_path)
        if value is None:
            return {}
        if isinstance(self.field, models.BooleanField):
            return {self.field_path: value == "1"} if value in ("0", "1") else {}
        return {self.field_path: value}

    @property
    def chosen(self):
        value = self.given.get(self.field_path)
        if value is None or (isinstance(self.field, models.BooleanField) and value not in ("0", "1")):
            return ""
        if isinstance(self.field, models.BooleanField):
            return "Yes" if value == "1" else "No"
        pairs: Any = flatten_choices(self.field.choices or ())
        return formats.beginning({str(key): str(label) for key, label in pairs}.get(value, value)) or "(empty)"

    def lookups(self) -> list[tuple[str, str]]:
        if isinstance(self.field, models.BooleanField):
            return [("1", "Yes"), ("0", "No")]
        choices: Any = self.field.choices or ()
        pairs: Any = flatten_choices(choices)
        known = [(str(value), str(label)) for value, label in pairs]
        if self.model_of_values:
            values = values_of(self.model_of_values, self.field_path)
            labels = dict(known)
            return [(value, labels.get(value, value)) for value in values]
        value = self.given.get(self.field_path)
        return known + ([(value, value)] if value and value not in dict(known) else [])

    def choices(self, changelist):
        chosen = self.given.get(self.field_path)
        yield {
            "selected": chosen is None,
            "query_string": changelist.get_query_string({self.field_path: None}),
            "display": "All",
        }
        for value, label in self.lookups():
            yield {
                "selected": chosen == value,
                "query_string": changelist.get_query_string({self.field_path: value}),
                "display": label or "(empty)",
            }

    def has_output(self):
        return True


class IndexedValueFilter(ValueFilter):
    """Rows with one of the values in the table, which an index that begins with the column provides."""

    def __init__(self, field, request, params, model, model_admin, field_path):
        super().__init__(field, request, params, model, model_admin, field_path)
        self.model_of_values = model


class TimeFilter(Filter):
    """Rows in a time range (UTC): one that ends now, or from a day or time until a day (inclusive) or a time (exclusive)."""

    template = "admin/time_filter.html"
    PRESETS = {
        "1h": ("Last hour", timedelta(hours=1)),
        "today": ("Today (UTC)", None),
        "24h": ("Last 24 hours", timedelta(hours=24)),
        "7d": ("Last 7 days", timedelta(days=7)),
        "30d": ("Last 30 days", timedelta(days=30)),
    }

    def expected_parameters(self):
        return [f"{self.field_path}__{name}" for name in ("within", "from", "until")]

    def value(self, name: str) -> str:
        return self.given.get(f"{self.field_path}__{name}", "")

    @property
    def range(self) -> tuple[datetime | None, datetime | None]:
        """Return the start and the end of the range, None for an open end."""
        now = timezone.now()
        if self.value("within") == "today":
            return start_of_day(), None
        if length := self.PRESETS.get(self.value("within"), ("", None))[1]:
            return now - length, None
        return self.moment("from"), self.moment("until", after=True)

    def moment(self, name: str, *, after: bool = False) -> datetime | None:
        """Return the given ISO time, or the start of the day `YYYY-MM-DD`, or with `after` the end of the day.

        It is in UTC where it names no zone.
        """
        text = self.value(name)
        if not text:
            return None
        try:
            day = parse_date(text)
            moment = datetime(day.year, day.month, day.day, tzinfo=UTC) if day else parse_datetime(text)
            if day and moment and after:
                moment += timedelta(days=1)
        except (ValueError, OverflowError):
            moment = None
        if moment is None:
            raise BadParameter(f"“{formats.beginning(text)}” is not a date. Enter it as YYYY-MM-DD.")
        return moment.replace(tzinfo=moment.tzinfo or UTC)

    @property
    def shown_from(self) -> str:
        return self._day("from")

    @property
    def shown_until(self) -> str:
        return self._day("until")

    def _day(self, name: str) -> str:
        moment = self.moment(name)
        return f"{moment:%Y-%m-%d}" if moment else ""

    @property
    def chosen(self):
        if preset := self.PRESETS.get(self.value("within")):
            return preset[0]
        ends = (("from", self._shown("from")), ("to", self._shown("until")))
        return " ".join(f"{word} {end}" for word, end in ends if end)

    def _shown(self, name: str) -> str:
        """Return one end of the range as text: the day, with the time of day and its zone if the URL has them."""
        moment = self.moment(name)
        if moment is None or parse_date(self.value(name)):
            return self._day(name)
        return f"{moment:%Y-%m-%d %H:%M} {moment.tzname()}"

    @property
    def active(self) -> bool:
        return self.range != (None, None)

    def queryset(self, request, queryset):
        begin, end = self.range
        if begin:
            queryset = queryset.filter(**{f"{self.field_path}__gte": begin})
        if end:
            queryset = queryset.filter(**{f"{self.field_path}__lt": end})
        return queryset

    def choices(self, changelist):
        whole = changelist.get_query_string(remove=[f"{self.field_path}__"])
        self.others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            if name not in self.expected_parameters() and name not in changelist.OURS
            for value in (values if isinstance(values, list) else [values])
        ]
        yield {"selected": not self.active, "query_string": whole, "display": "Any time"}
        for name, (label, _) in self.PRESETS.items():
            query = changelist.get_query_string({f"{self.field_path}__within": name}, [f"{self.field_path}__"])
            yield {"selected": self.value("within") == name, "query_string": query, "display": label}

    def has_output(self):
        return True


def start_of_day() -> datetime:
    """Return when today began, UTC."""
    return timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
