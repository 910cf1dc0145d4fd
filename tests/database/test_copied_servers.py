"""A server and a running copy of it that have the same system identifier and address, and store their backups in one place."""

import dataclasses
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from fly2any.database.backup.inventory import read_newest
from fly2any.database.backup.latest import find
from fly2any.database.backup.manifest import from_json
from fly2any.database.backup.pruning import prune, to_prune
from fly2any.database.backup.required_backup import require_backup
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.clock import read_clock
from fly2any.database.database_identity import Run, read_origin
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django, manage
from tests.database.taken import described, keep
from tests.servers import OwnServer


@pytest.fixture
def stored(migrated, tmp_path, settings):
    """A function that keeps backups of runs of this server, each given as its age in hours and its run, and a connection to it."""
    settings.BACKUPS = {**settings.BACKUPS, "keep": (1, 0, 0), "location": str(tmp_path), "expected": True}
    with django(migrated) as connection:
        now, own = read_clock(connection).now(), read_origin(connection)

        def store(*taken):
            made = [described(own, now - timedelta(hours=hours), run=run) for hours, run in taken]
            keep(tmp_path, *made)
            return made

        yield store, connection, own, now


def of_copy(own, hours, *, transactions=0):
    """The run of a copy that was started so many hours ago, and has run so many more transactions."""
    return Run(own.run.started - timedelta(hours=hours), own.run.transaction + transactions)


def sentence(place, newest, other):
    names = " and ".join(
        f"{one.name} (server started {one.run.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)" for one in (newest, other)
    )
    return (
        f"{place} has backups of this server and of a copy of it, or of its state before it was reset to an earlier one: {names}."
        " Give the copy another BACKUP_LOCATION, and move its backups there."
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param((0, 0), 0, id="taken between two moments of our run"),
        pytest.param((48, 0), 10**6, id="with more transactions than this server has"),
    ],
)
def test_nothing_is_pruned_and_latest_must_be_named_once_a_copy_stored_backups_too(stored, tmp_path, ours, theirs):
    store, connection, own, now = stored
    started, transactions = ours
    run = of_copy(own, started, transactions=transactions)
    copy, older, oldest = store((1, of_copy(own, 3, transactions=theirs)), (30, run), (31, run))

    with pytest.raises(Refusal) as not_pruned:
        prune(store_at(str(tmp_path)), connection, Progress(), verified=copy.name)
    with pytest.raises(Refusal) as not_chosen:
        find(store_at(str(tmp_path)), "latest", of=own, good=True, others=True, now=now, progress=Progress())
    named = find(store_at(str(tmp_path)), older.name, of=own, good=True, others=True, now=now, progress=Progress())

    assert str(not_pruned.value) == f"Nothing was removed: {sentence(tmp_path, copy, older)}"
    assert str(not_chosen.value) == (
        f"`latest` may be of either of two servers, so name the backup: {sentence(tmp_path, copy, older)}"
    )
    assert named == older
    for ending in ("json", "dump"):
        (tmp_path / f"{copy.name}.{ending}").unlink()
    assert prune(store_at(str(tmp_path)), connection, Progress()) == [oldest]
    assert find(store_at(str(tmp_path)), "latest", of=own, good=True, others=True, now=now, progress=Progress()) == older


def test_latest_of_a_lost_server_must_be_named_if_a_copy_of_it_stored_backups_too(stored, tmp_path):
    store, _, own, now = stored
    newest, copy, _ = store((1, own.run), (2, of_copy(own, 3)), (4, own.run))
    new = dataclasses.replace(own, cluster="1")

    with pytest.raises(Refusal, match=rf"^`latest` may be of either .* {newest.name} .* and {copy.name} "):
        find(store_at(str(tmp_path)), "latest", of=new, good=True, others=True, now=now, progress=Progress())


def test_a_server_that_was_restarted_prunes_its_backups(stored, tmp_path):
    store, connection, own, _ = stored
    newest, previous, old = store(
        (1, own.run), (30, of_copy(own, 48, transactions=-9)), (54, of_copy(own, 99, transactions=-10))
    )

    assert prune(store_at(str(tmp_path)), connection, Progress()) == [previous, old]
    assert read_newest(connection).newest == newest


def test_backups_taken_at_the_same_time_may_be_in_any_order(stored, tmp_path):
    store, connection, own, _ = stored
    _, older = store((1, of_copy(own, 0, transactions=-2)), (1.05, of_copy(own, 0, transactions=-1)))

    assert prune(store_at(str(tmp_path)), connection, Progress()) in ([older], [])  # [] if midnight was between them.


def test_on_one_day_the_last_backup_of_each_run_is_kept(stored):
    """A copy cannot know that it is one until the original has stored its next backup."""
    store, _, own, now = stored
    noon = now.replace(hour=12)
    copy, second, first = (
        dataclasses.replace(one, taken=noon - timedelta(hours=number))
        for number, one in enumerate(store((1, own.run), (2, of_copy(own, 48)), (3, of_copy(own, 48))))
    )

    assert to_prune([copy, second, first]) == [first]


def test_a_reset_and_a_report_do_not_count_backups_taken_from_a_copy_while_this_server_ran(stored):
    store, connection, own, now = stored
    hours = (now - own.run.started).total_seconds() / 3600
    [copy] = store((hours / 2, of_copy(own, -hours / 4)))

    state = read_newest(connection)
    with pytest.raises(Refusal, match="is required before rows are deleted or overwritten, but there is none"):
        require_backup(connection)
    [ours] = store((hours / 3, own.run))

    assert (state.newest, [one.code for one in state.findings()]) == (copy, ["backup.elsewhere"])
    assert next(iter(state.findings())).message == (
        "None of the newest backups was taken from this server; the newest was taken from another while this one was running:"
        " one server may be a copy of the other."
    )
    assert read_newest(connection).good == ours
    require_backup(connection)


def test_the_latest_to_verify_is_that_of_this_server(stored, tmp_path):
    store, _, own, now = stored
    hours = (now - own.run.started).total_seconds() / 3600
    _, ours = store((hours / 3, of_copy(own, -hours / 4)), (hours / 2, own.run))

    assert find(store_at(str(tmp_path)), "latest", of=own, good=False, others=True, now=now, progress=Progress()) == ours


def test_a_backup_names_the_run_of_its_server(migrated, tmp_path):
    with django(migrated) as connection:
        manifest = take(connection, store_at(str(tmp_path)), Progress())
        stored = from_json((tmp_path / f"{manifest.name}.json").read_text(), where=f"{manifest.name}.json")
    [(started, transaction)] = migrated.execute(
        "SELECT pg_postmaster_start_time(), pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    )

    assert stored.run == manifest.run
    assert (stored.run.started, 0 < stored.run.transaction <= transaction) == (started, True)


@pytest.mark.slow
def test_a_clone_of_a_machine_removes_no_backup_of_the_original_and_is_recognised(
    own_server, tmp_path, tmp_path_factory, place
):
    """Both servers have the same system identifier, and one address: a path that leads to the server of the machine."""
    original, address = own_server(migrated=True), tmp_path / "socket"

    def run(server, *words):
        address.unlink(missing_ok=True)
        address.symlink_to(server.home / "data")
        url = f"postgresql://postgres@/fly2any?host={address}&port={original.port}"
        return manage(*words, url=url, BACKUP_LOCATION=place, BACKUP_KEEP="1,0,0")

    nightly = ("dbbackup", "--verify", "--prune")
    before = run(original, *nightly)
    original.stop()
    clone = OwnServer(tmp_path_factory.mktemp("clone"), {"listen_addresses": "", "port": str(original.port)}, original.home)
    try:
        original.start()
        clone.start()
        nights = [run(server, *nightly) for server in (clone, original, clone)]
        latest = run(original, "dbrestore", "latest")
    finally:
        clone.remove()

    pruned = [one.stdout.splitlines()[-1] for one in (before, *nights[:2])]
    assert pruned == ["Pruned    nothing"] * 3
    assert [one.returncode for one in (before, *nights, latest)] == [0, 0, 0, 2, 2]
    assert nights[2].stderr.startswith(
        f"Nothing was removed: {place} has backups of this server and of a copy of it, or of its "
    )
    assert latest.stderr.startswith(
        f"`latest` may be of either of two servers, so name the backup: {place} has backups of this "
    )
    assert len(list(Path(place).glob("*.json"))) == 4
