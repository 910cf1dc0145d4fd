"""Manifests and archive descriptions: read strictly, and compatible with existing files."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import settings

from fly2any.database.backup.manifest import Manifest, Verdict
from fly2any.database.backup.manifest import as_json as manifest_as_json
from fly2any.database.backup.manifest import from_json as manifest_of
from fly2any.database.backup.row_hashes import Content
from fly2any.database.errors import Refusal
from fly2any.database.retention.description import Archive, Part
from fly2any.database.retention.description import as_json as archive_as_json
from fly2any.database.retention.description import from_json as archive_of

BEFORE = Path(__file__).with_name("written_before")
NEW, OLD, ROWS = sorted((path.name for path in BEFORE.iterdir()), key=lambda name: ("price" in name, "2026080" in name))
AT = datetime(2026, 11, 27, 3, 0, 5, 123456, tzinfo=UTC)
NO_MANIFEST = f"{NEW} is not the manifest of a backup, or is damaged: use another one, and remove this one if it is not needed."
NO_ARCHIVE = f"{ROWS} does not describe an archive, or is damaged: use another one, and remove this one if it is not needed."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setitem(settings.BACKUPS, "signing_keys", ["written before"])


def text_of(name):
    return (BEFORE / name).read_text(encoding="utf-8")


def test_an_existing_manifest_is_read_and_written_again_with_the_fields_that_it_lacks():
    manifest = manifest_of(text_of(NEW), where=NEW)

    assert manifest == Manifest(
        name=NEW.removesuffix(".json"), file=f"{NEW.removesuffix('.json')}.dump.age", taken=AT, database="shop", server="18.6",
        tool="18.6", code="1.4.0", bytes=20480, sha256="ab" * 32, contract="cd" * 32,
        migrations=("accounts.0001_initial", "travel.0001_initial"), findings=("column.missing at price_history.provider",),
        owners=("shop_migrate",), roles=("shop_app", "Zoë"),
        tables={'"public"."users"': Content(3, "-12345678901234567890"), '"public"."price_alerts"': Content(0, "0")},
        verdict=Verdict(AT, "18.6", "", "good", ("EXTENSION - pg_stat_statements (postgres)",)), cluster="7400000000000000001",
        hashing=2, oid=16384, trusted=("shop_migrate",), schema="public", place="db.example.com:5432", size=8192000,
        signed="signed",
    )  # fmt: skip
    before, after = json.loads(text_of(NEW)), json.loads(manifest_as_json(manifest))
    assert after.pop("signature") != before.pop("signature")
    assert after == before | {
        "database_owner": "",
        "extensions": [],
        "registered": {},
        "roles_of_values": [],
        "portable_amounts": False,
    }


def test_a_manifest_of_the_first_format_is_read_with_defaults():
    manifest = manifest_of(text_of(OLD).encode(), where=OLD)

    assert (manifest.state, manifest.verdict) == ("bad", Verdict(datetime(2026, 8, 1, 3, 1, tzinfo=UTC), "18.6", "cut short"))
    assert (manifest.signed, manifest.hashing, manifest.oid, manifest.trusted) == ("unsigned", 1, 0, ())
    assert (manifest.schema, manifest.place, manifest.size) == ("", "", 0)


def test_an_archives_description_is_read_and_written_unchanged():
    archive = archive_of(text_of(ROWS), where=ROWS)

    assert archive == Archive(
        name=ROWS.removesuffix(".json"), file=f"{ROWS.removesuffix('.json')}.zip", taken=AT, database="shop",
        origin="7400000000000000001/16384", bytes=512, sha256="ef" * 32, oldest="2025-01-01 00:00:00+00",
        newest="2025-02-01 00:00:00+00", parts=(Part("price_history", ("id", "price"), Content(2, "77")),), ghosts=("gone",),
        left=("kept",), hashing=2, signed="signed",
    )  # fmt: skip
    assert archive_as_json(archive) == text_of(ROWS)


CONTENT = {"rows": 1, "hash": "1"}
VERDICT = {"at": "2026-11-27T03:00:05+00:00", "server": "18.6", "reason": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": "7"}, {"bytes": True}, {"bytes": 1.0}, {"bytes": -1}, {"oid": 2**63}, {"size": None}, {"hashing": 3}, {"hashing": 0},
        {"taken": "yesterday"}, {"taken": "2026-11-27T03:00:05"}, {"taken": 7}, {"server": "18.6; DROP"}, {"server": "18.6\n"},
        {"tool": ""}, {"database": 7}, {"sha256": None}, {"migrations": "accounts"}, {"owners": [1]}, {"roles": {}}, {"tables": 7},
        {"tables": {"t": 7}}, {"tables": {"t": {"rows": 1}}}, {"tables": {"t": CONTENT | {"more": 1}}},
        {"tables": {"t": CONTENT | {"hash": "1\n"}}}, {"tables": {"t": CONTENT | {"hash": "x"}}}, {"tables": {"t": CONTENT | {"rows": -1}}},
        {"verdict": "good"}, {"verdict": VERDICT | {"outcome": "splendid"}}, {"verdict": VERDICT | {"left_out": "all"}},
        {"verdict": VERDICT | {"at": "now"}}, {"verdict": VERDICT | {"more": 1}}, {"later": 1}, {"name": "another"}, {"file": "../x.dump"},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_with_a_value_of_another_kind_is_reported_in_one_sentence(change):
    data = json.loads(text_of(NEW)) | change

    with pytest.raises(Refusal) as refused:
        manifest_of(json.dumps(data), where=NEW)

    assert str(refused.value) == NO_MANIFEST


PART = {"table": "price_history", "columns": ["id"], "content": CONTENT}


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": 1.5}, {"parts": []}, {"parts": [PART | {"columns": ["price"]}]}, {"parts": [PART | {"more": 1}]},
        {"parts": [PART, PART]}, {"parts": [PART | {"table": "users"}]}, {"left": "kept"}, {"ghosts": [1]}, {"oldest": 2025},
        {"later": 1}, {"file": "x.zip"},
    ],
    ids=str,
)  # fmt: skip
def test_an_archive_with_a_value_of_another_kind_is_reported_in_one_sentence(change):
    data = json.loads(text_of(ROWS)) | change

    with pytest.raises(Refusal) as refused:
        archive_of(json.dumps(data), where=ROWS)

    assert str(refused.value) == NO_ARCHIVE


@pytest.mark.parametrize("text", ["", "7", "[]", "{}", "{", '"\\ud800"', b"\xff\xfe", "[" * 100_000, '{"a":' * 100_000])
def test_a_text_that_is_not_a_manifest_is_reported_in_one_sentence(text):
    for read, said in ((manifest_of, NO_MANIFEST), (archive_of, NO_ARCHIVE)):
        with pytest.raises(Refusal) as refused:
            read(text, where=said.partition(" ")[0])

        assert str(refused.value) == said


def test_a_format_of_newer_code_says_so():
    with pytest.raises(Refusal) as refused:
        manifest_of(json.dumps(json.loads(text_of(NEW)) | {"format": 99, "later": 1}), where=NEW)

    assert (
        str(refused.value) == f"{NEW} has a format that this code cannot read: use the version that wrote it, or a later one."
    )
