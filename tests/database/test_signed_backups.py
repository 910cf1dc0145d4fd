"""Backups with manifests of another origin: listed, but never chosen, counted or pruned."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from fly2any.database.backup.inventory import backups, read_newest
from fly2any.database.backup.latest import find
from fly2any.database.backup.manifest import as_json, from_json
from fly2any.database.backup.pruning import prune
from fly2any.database.backup.render import many
from fly2any.database.backup.store import store_at
from fly2any.database.clock import read_clock
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import RecordedProgress, described


@pytest.fixture
def place(settings, tmp_path):
    settings.BACKUPS = {
        **settings.BACKUPS, "location": str(tmp_path), "expected": True, "keep": (1, 0, 0), "signing_keys": ["new", "old"],
    }  # fmt: skip
    return tmp_path


def keep(place, origin, hours, spoil=None):
    taken = datetime.now(UTC) - timedelta(hours=hours)
    manifest = described(origin, taken)
    data = json.loads(as_json(manifest))
    (place / f"{manifest.name}.json").write_text(json.dumps(spoil(data) if spoil else data))
    (place / manifest.file).write_text("x")
    return manifest.name


def unsigned(data):
    del data["signature"]
    return data


def forged(data):
    return {**data, "sha256": "another"}


def as_text(data):
    return {**data, "signature": 7}


def chosen(connection, origin, progress=None):
    return {
        "of": origin, "good": True, "others": True, "now": read_clock(connection).now(), "progress": progress or Progress(),
    }  # fmt: skip


SPOILED = {unsigned: "unsigned", forged: "signature does not match", as_text: "signature does not match"}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_unsigned_backups_are_never_chosen_counted_or_pruned(server, place, database, spoil):
    with django(database) as connection:
        origin, store = read_origin(connection), store_at(str(place))
        theirs, ours = keep(place, origin, 1, spoil), keep(place, origin, 2)
        old = keep(place, origin, 400, spoil)

        newest = read_newest(connection)
        latest = find(store, "latest", **chosen(connection, origin))
        listed = "\n".join(many(backups(store), "here", datetime.now(UTC)))
        pruned = prune(store, connection, Progress())

    assert (newest.good.name, latest.name, pruned) == (ours, ours, [])
    assert newest.unsigned == 1
    assert f"{SPOILED[spoil]}; verified" in next(line for line in listed.splitlines() if theirs in line)
    assert (place / f"{old}.dump").exists()


def test_forged_backups_prune_none_of_ours(database, place):
    with django(database) as connection:
        origin, store = read_origin(connection), store_at(str(place))
        ours = keep(place, origin, 72)
        for hours in (1, 25, 49):
            keep(place, origin, hours, forged)

        assert prune(store, connection, Progress()) == []
        assert (place / f"{ours}.dump").exists()


def test_an_unsigned_backup_is_restored_only_if_named_and_allowed(database, place):
    with django(database) as connection:
        origin, store = read_origin(connection), store_at(str(place))
        name = keep(place, origin, 1, unsigned)

        with pytest.raises(Refusal, match=r"is not signed with a key of this installation \(unsigned\).*add --unsigned"):
            find(store, name, **chosen(connection, origin))
        found = find(store, name, **chosen(connection, origin), unsigned=True)
        with pytest.raises(Refusal) as refused:
            find(store, "latest", **chosen(connection, origin), unsigned=True)

    assert str(refused.value) == (
        f"{place} has no verified backup of {origin.database} that is signed with a key of this installation. The newest is {name}"
        " (unsigned): set BACKUP_SIGNING_KEY, or SECRET_KEY, to the key it was signed with, or, if you know where it comes from, name"
        " it and add --unsigned."
    )
    assert found.name == name
    assert "signature" not in json.loads(as_json(found))  # Judging it does not sign it.


def test_latest_is_never_a_backup_dated_in_the_future(database, place):
    recorded = RecordedProgress()
    with django(database) as connection:
        origin, store = read_origin(connection), store_at(str(place))
        old, soon = keep(place, origin, 1), keep(place, origin, -4 / 60)
        future = keep(place, origin, -6 / 60)
        latest = find(store, "latest", **chosen(connection, origin, recorded))
        newest, named = read_newest(connection), find(store, future, **chosen(connection, origin))

        (place / f"{soon}.json").unlink()
        (place / f"{old}.json").unlink()
        with pytest.raises(Refusal, match="has no verified backup of"):
            find(store, "latest", **chosen(connection, origin))

    assert (latest.name, newest.good.name, named.name) == (soon, soon, future)
    [said] = recorded.sentences
    assert re.fullmatch(
        rf"{future} is not `latest`: it is dated in the future by the server's clock \(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)\."
        r" Correct the wrong clock, or name the backup\.",
        said,
    )


def test_signatures_of_an_older_key_stay_valid(database, place, settings):
    with django(database) as connection:
        name = keep(place, read_origin(connection), 1)
    text = (place / f"{name}.json").read_text()

    def state(*keys):
        settings.BACKUPS = {**settings.BACKUPS, "signing_keys": keys}
        return from_json(text, where=f"{name}.json").signed

    assert [state("newer", "new"), state("newer")] == ["signed", "signature does not match"]
