"""Keyset pagination: a page begins after the position of a row in the order, so every page costs the same."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from fly2any.postgres.values import Beyond


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a list: by `field`, then by the primary key, both in the same direction."""

    field: models.Field
    pk: models.Field
    descending: bool

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([self.field.attname, self.pk.attname]))

    def by(self, *, backwards: bool = False) -> list[str]:
        """Return the arguments of order_by()."""
        sign = "-" if self.descending != backwards else ""
        return [sign + name for name in self.names]

    def beyond(self, place: list[Any], *, backwards: bool = False, inclusive: bool = False) -> Q:
        """Return the condition for the rows after `place`, the values of `names`, or before it.

        `a <= x AND (a < x OR id < y)`: with `a < x OR (a = x AND id < y)` PostgreSQL would not begin at x in the index.
        """
        comparison = "lt" if self.descending != backwards else "gt"
        *first, last = self.names
        condition = Q((f"{last}__{comparison}{'e' if inclusive else ''}", place[-1]))
        for name in first:
            condition = Q((f"{name}__{comparison}e", place[0])) & (Q((f"{name}__{comparison}", place[0])) | condition)
        return condition

    def until(self, place: list[Any], *, backwards: bool = False) -> Q:
        """Return the condition for the rows before `place` and the one at it, or after."""
        return self.beyond(place, backwards=not backwards, inclusive=True)

    def token(self, row: models.Model) -> str:
        """Return the position of `row`, for a URL."""
        place = [str(getattr(row, name)) for name in self.names]
        return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")

    def place(self, token: str) -> list[Any]:
        """Return the position in `token`; raise ValueError if it is invalid for this order."""
        try:
            texts = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or "\0" in "".join(texts):
                raise ValueError("not a place")
            "".join(texts).encode()
            fields = list(dict.fromkeys([self.field, self.pk]))
            return [value_of(field, text) for field, text in zip(fields, texts, strict=True)]
        except (ValueError, binascii.Error, ValidationError, RecursionError) as error:
            raise ValueError(f"{token!r} is not a position in this list.") from error


def value_of(field: models.Field, text: str) -> Any:
    """Return the value of `field` in `text`; raise ValueError or ValidationError if it is invalid."""
    try:
        return field.to_python(text)
    except ValidationError:
        if isinstance(
            field, models.DateTimeField
        ):  # A row may have a time that Python cannot represent: infinity, BC, or after 9999.
            return Beyond.of(text)
        raise


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of a page, and whether there are rows before and after them."""

    rows: list[models.Model]
    has_earlier: bool
    has_later: bool


def page_of(
    rows: models.QuerySet, order: Order, *, size: int, after: str | None = None, before: str | None = None, full: bool = True
) -> Page:
    """Return the page of `size` rows after a token, or before one (before "" is the last page), else the first.

    If fewer rows precede a token, the first page is shown, unless `full` is False. Raises ValueError for an invalid token.
    """
    if before is not None:
        earlier = rows.filter(order.beyond(order.place(before), backwards=True)) if before else rows
        found = list(earlier.order_by(*order.by(backwards=True))[: size + 1])
        if len(found) > size or not before or not full:
            return Page(found[:size][::-1], len(found) > size, bool(before))
    elif after:
        later = rows.filter(order.beyond(order.place(after)))
        found = list(later.order_by(*order.by())[: size + 1])
        return Page(found[:size], True, len(found) > size)
    found = list(rows.order_by(*order.by())[: size + 1])
    return Page(found[:size], False, len(found) > size)
