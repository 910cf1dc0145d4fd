"""What a conversation is about, for lists. No text of a message is shown, because opening a list is not recorded as access."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Case, F, Func, Q, TextField, Value, When
from django.db.models.functions import Left
from django.db.models.lookups import IRegex, LessThanOrEqual
from django.utils.html import format_html, format_html_join

from fly2any.administration import formats
from fly2any.administration.long_values import BEGINNING, LARGEST, StoredSize

from .models import Conversation, Message

# AES-GCM, whose key only the site has.
CIPHERTEXT = r"v1:[0-9a-f]+:[0-9a-f]+:[0-9a-f]*"
IS_ENCRYPTED = Q(IRegex(Left("content", BEGINNING), f"^{CIPHERTEXT}$"))
ENCRYPTED = format_html('<span class="chip warn">{}</span>', "Encrypted")
MOST_READ = 50  # Messages of a conversation, from its beginning.


class TextAt(Func):
    """The text at a path of a JSON value.

    Django's KT uses the operators ->> and #>> with an untyped literal, for which another role could create better matches.
    """

    function = "pg_catalog.jsonb_extract_path_text"
    output_field = TextField()


@dataclass(frozen=True, slots=True)
class Subject:
    """The first offer of a conversation, or the flight that was searched for; and whether all of its messages are encrypted."""

    text: str = ""
    is_encrypted: bool = False

    def as_html(self) -> str:
        """Return the subject with a chip if the messages are encrypted."""
        parts = [formats.beginning(self.text)] if self.text else []
        parts += [ENCRYPTED] if self.is_encrypted else []
        return format_html_join(" ", "{}", ((part,) for part in parts or ["No route"]))


def subjects_of(keys: Iterable[str], *, may_see_messages: bool) -> dict[str, Subject]:
    """Return the subject of each conversation, by its key, in two statements."""
    keys = list(keys)
    searched = Conversation.objects.filter(pk__in=keys).values_list(
        "pk",
        *(_text_at("search_history", path) for path in ("0__origin", "0__destination")),
        _text_at("conversation_context", "destination"),
    )
    found = {key: Subject(_route(origin, destination) or to or "") for key, origin, destination, to in searched}
    if may_see_messages and keys:
        for key, offer, is_encrypted in _offers(keys):
            found[key] = replace(found[key], text=offer or found[key].text, is_encrypted=is_encrypted)
    return found


def _offers(keys: list[str]) -> Iterable[tuple[str, str, bool]]:
    """Yield the first offer of each conversation, "" if there is none, and whether all its messages are encrypted."""
    encrypted = Case(When(IS_ENCRYPTED, then=Value(True)), default=Value(False))
    first, *others = [
        Message.objects.of_conversation(key).values_list(
            "conversation_id",
            "timestamp",
            encrypted,
            *(_text_at("flight_results", f"0__outbound__{end}__airport") for end in ("departure", "arrival")),
            _text_at("hotel_results", "0__name"),
        )[:MOST_READ]
        for key in keys
    ]
    by_key: dict[str, list[Any]] = {}
    for key, *message in first.union(*others, all=True):
        by_key.setdefault(key, []).append(message)
    for key, messages in by_key.items():
        messages.sort(key=lambda message: message[0])
        offers = (_route(origin, destination) or hotel for _, _, origin, destination, hotel in messages)
        yield key, next(filter(None, offers), ""), all(is_encrypted for _, is_encrypted, *_ in messages)


def _text_at(column: str, path: str) -> Case:
    """Return the text at a path of a JSON column, NULL if the value is too large to be read for a list."""
    return Case(When(LessThanOrEqual(StoredSize(F(column)), LARGEST), then=TextAt(F(column), *map(Value, path.split("__")))))


def _route(origin: str | None, destination: str | None) -> str:
    return f"{origin}\u00a0→\u00a0{destination}" if origin and destination else ""
