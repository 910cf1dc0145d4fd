"""Nothing that a terminal would obey is printed."""

import json

import pytest

from fly2any.database.backup import render
from fly2any.database.backup.take import Kept
from fly2any.database.diagnosis import Refusal, explain
from fly2any.database.maintenance.render import as_list
from fly2any.database.printable import printable

HOSTILE = "a\x1b]0;title\x07\x9b31m\u202egpj.\u2066\r\x00\udcffb"
SHOWN = r"a\u001b]0;title\u0007\u009b31m\u202egpj.\u2066\u000d\u0000\udcffb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [(HOSTILE, SHOWN), ("Zoë 東京 🛫\n\tok", "Zoë 東京 🛫\n\tok"), ("\U000e0041\u2028", r"\udb40\udc41\u2028")],
    ids=["hostile", "plain", "tags and lines"],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown


def test_names_of_files_and_sentences_are_printed_so():
    assert next(render.many(Kept((), (HOSTILE,)), "here")) == f"{SHOWN} belongs to no backup, or cannot be read."
    assert f"  {SHOWN} belongs to no archive" in as_list([], [HOSTILE], "here", "text")
    assert explain(Refusal(HOSTILE)) == SHOWN
    assert json.loads(as_list([], ["a\x9b\u202e"], "here", "json"))["odd"] == ["a\x9b\u202e"]
