"""HTML around values: what Django's own functions return, made faster."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext_lazy

from fly2any.administration import formats
from fly2any.administration.markup import markup


@pytest.mark.parametrize(
    "value",
    ["plain", "<b>'&\"", mark_safe("<b>"), 7, None, True, 1.5, gettext_lazy("<i>Yes"), b"<x>", ["<li>"], "{}", "{0.__class__}"],
    ids=repr,
)
def test_values_are_escaped_as_format_html_escapes_them(value):
    shown = markup('<p title="{0}">{0}</p>')(value)

    assert (shown, type(shown)) == (format_html('<p title="{0}">{0}</p>', value), SafeString)


def test_ages_are_djangos_words(monkeypatch):
    chance = random.Random(5)
    now = datetime(2028, 2, 29, 12, 30, tzinfo=UTC)
    monkeypatch.setattr(formats.timezone, "now", lambda: now)
    for _ in range(500):
        distance = timedelta(seconds=int(10 ** chance.uniform(0, 9.2)))
        assert formats.age(now - distance).removesuffix(" ago") in (timesince(now - distance, now, depth=1), "just now")
        assert formats.age(now + distance).removeprefix("in ") in (timeuntil(now + distance, now, depth=1), "just now")
    assert formats.age(now - timedelta(days=1)) == "1\xa0day ago"
    assert formats.age(now + timedelta(weeks=2)) == "in 2\xa0weeks"
    assert formats.age(now - timedelta(seconds=59)) == "just now"
