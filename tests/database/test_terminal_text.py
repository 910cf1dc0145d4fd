"""Control characters are never printed to a terminal."""

import json
from datetime import UTC, datetime

import pytest

from fly2any.database.backup import render
from fly2any.database.backup.inventory import Inventory
from fly2any.database.backup.manifest import Manifest, Verdict, as_json, from_json
from fly2any.database.errors import Refusal, explain
from fly2any.database.maintenance.render import as_list
from fly2any.database.retention.description import from_json as describing
from fly2any.database.terminal_text import printable

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOSTILE = "a\x1b]0;title\x07\x9b31m\u202egpj.\u2066\r\x00\udcffb"
SHOWN = r"a\u001b]0;title\u0007\u009b31m\u202egpj.\u2066\u000d\u0000\udcffb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [(HOSTILE, SHOWN), ("Zoë 東京 🛫\n\tok", "Zoë 東京 🛫\n\tok"), ("\U000e0041\u2028", r"\udb40\udc41\u2028")],
    ids=["hostile", "plain", "tags and lines"],
)
def test_terminal_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


LISTED = {"place": "here", "unfinished": (), "schema": "public"}


def test_file_names_and_sentences_are_printed_escaped():
    assert next(render.many(Inventory((), (HOSTILE,)), "here", NOW)) == f"{SHOWN} belongs to no backup, or cannot be read."
    assert f"  {SHOWN} belongs to no archive" in as_list([], [HOSTILE], "text", **LISTED)
    assert explain(Refusal(HOSTILE)) == SHOWN
    assert json.loads(as_list([], ["a\x9b\u202e"], "json", **LISTED))["odd"] == ["a\x9b\u202e"]


FORGED = "a.dump\nVerdict   good\tb"
ON_ONE_LINE = r"a.dump\u000aVerdict   good\u0009b"


def test_a_file_name_is_printed_on_one_line():
    unknown = Manifest(
        "n", "n.dump", NOW, FORGED, "18.6", "18.6", "c", 1, "", "", (), (), (), (), {},
        Verdict(NOW, "18.6", FORGED, "bad"), signed="unsigned",
    )  # fmt: skip

    assert next(render.many(Inventory((), (FORGED,)), "here", NOW)) == f"{ON_ONE_LINE} belongs to no backup, or cannot be read."
    assert (
        as_list([], [FORGED], "text", **LISTED)
        == f"Archives at here\n  {ON_ONE_LINE} belongs to no archive, or cannot be read."
    )
    assert render.verdict(unknown) == f"Verdict   BAD: {ON_ONE_LINE}"
    assert [line.partition(" ")[0] for line in render.one(unknown, "here").split("\n")] == ["Backup", "Contents"]


@pytest.mark.parametrize("read", [from_json, describing], ids=["backup", "archive"])
def test_a_file_name_with_a_line_break_is_refused_in_one_line(read):
    with pytest.raises(Refusal) as refused:
        read(json.dumps({"format": 1}), where=f"{FORGED}.json")

    assert str(refused.value).startswith(f"{ON_ONE_LINE}.json ")


def test_a_manifest_whose_name_has_a_line_break_does_not_count():
    odd = Manifest(
        FORGED, f"{FORGED}.dump", NOW, "fly2any", "18.6", "18.6", "c", 1, "", "", (), (), (), (), {},
    )  # fmt: skip

    with pytest.raises(Refusal, match="is not the manifest of a backup, or is damaged"):
        from_json(as_json(odd), where=f"{FORGED}.json")
