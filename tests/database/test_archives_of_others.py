"""Archives and what is not ours: rows that other clients removed, other schemas, a copy of the server, and triggers."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from fly2any.database.backup.store import store_at
from fly2any.database.database_identity import Run
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from fly2any.database.retention import archive
from fly2any.database.retention import sweep as sweeping
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.description import as_json
from fly2any.database.retention.rules import RULES
from tests.conftest import django, fresh, manage
from tests.database.old_rows import BEFORE, CASES, maintain, put, swept
from tests.database.other_roles import other_role


def test_a_physical_copy_of_the_server_settles_nothing_of_the_originals(migrated, tmp_path, monkeypatch):
    put(migrated, "price_history", "removed", CASES["price_history"][0])
    archives = Archives(store_at(str(tmp_path)), "d")
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        connection.settings_dict["EMBEDDED"] = None
        archives.keep(connection, RULES["price_history"], part, Progress())
        before = sorted(path.name for path in tmp_path.iterdir())

        with monkeypatch.context() as elsewhere:
            elsewhere.setitem(connection.settings_dict, "PORT", "54372")
            archives.settle(connection, RULES["price_history"])
        after = sorted(path.name for path in tmp_path.iterdir())
        archives.settle(connection, RULES["price_history"])

    assert after == before
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".zip"]


def test_a_copy_of_the_server_at_the_same_address_settles_nothing_of_the_originals(migrated, tmp_path):
    put(migrated, "price_history", "removed", CASES["price_history"][0])
    store = store_at(str(tmp_path))
    archives = Archives(store, "d")
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        archive, _ = archives.keep(connection, RULES["price_history"], part, Progress())
        of_original = Run(archive.run.started - timedelta(days=1), archive.run.transaction)
        store.write(f"{archive.name}.json", as_json(replace(archive, run=of_original)).encode())

        archives.settle(connection, RULES["price_history"])
        kept = [path.suffix for path in sorted(tmp_path.iterdir())]
        before = replace(archive, run=of_original, taken=archive.run.started)  # Before this server was started.
        store.write(f"{archive.name}.json", as_json(before).encode())
        archives.settle(connection, RULES["price_history"])

    assert kept == [".ids", ".json", ".zip"]
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".zip"]


def test_a_copy_from_before_the_run_settles_nothing_of_the_originals(interrupted, migrated, tmp_path):
    """It was started after the archive was written, as a server that is restarted is, but began fewer transactions."""
    archives = Archives(store_at(str(tmp_path)), migrated.name)
    with django(migrated) as connection:
        archive = archives.read(interrupted)
        run = Run(archive.run.started - timedelta(days=1), archive.run.transaction + 10_000)
        before = replace(archive, run=run, taken=archive.run.started)
        archives.store.write(f"{interrupted}.json", as_json(before).encode())

        archives.settle(connection, RULES["price_history"])

    assert archives.unfinished() == {interrupted}


def test_an_archive_of_which_no_row_is_known_to_be_removed_says_so(migrated, tmp_path, interrupted):
    """As where a copy of the server, which still has all rows, recorded them."""
    with django(migrated) as connection:
        Archives(store_at(str(tmp_path)), migrated.name).settle(connection, RULES["price_history"])
    migrated.execute("DELETE FROM price_history")

    loaded = manage("dbrestore", "--archive", interrupted, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path))

    assert (loaded.returncode, loaded.stdout, loaded.stderr) == (
        2,
        "",
        f"No row of {interrupted} was removed: a later run found all of them in the table, and recorded that. If it ran on a copy of"
        " the server, delete `left` from the archive's .json, and add --unsigned.\n",
    )


@pytest.fixture
def interrupted(migrated, tmp_path):
    """An archive of the prices a, b and c, whose run was killed when it had begun to remove a and b."""
    for key in "abc":
        put(migrated, "price_history", key, CASES["price_history"][0])
    archives = Archives(store_at(str(tmp_path)), migrated.name)
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        archive, _ = archives.keep(connection, RULES["price_history"], part, Progress())
    archives.begin(archive, ["a", "b"])
    return archive.name


def test_an_interrupted_runs_archive_restores_no_row_that_another_client_deleted(migrated, tmp_path, interrupted):
    migrated.execute("DELETE FROM price_history WHERE id IN ('a', 'c')")  # a by the killed run, c by its person.
    place = {"ARCHIVE_LOCATION": str(tmp_path)}

    before = json.loads(manage("dbmaintain", "archives", "--format", "json", url=migrated.url, **place).stdout)
    shown = manage("dbmaintain", "archives", url=migrated.url, **place).stdout
    loaded = manage("dbrestore", "--archive", interrupted, url=migrated.url, **place)
    after = json.loads(manage("dbmaintain", "archives", "--format", "json", url=migrated.url, **place).stdout)

    assert [(one["finished"], one["schema"]) for one in (*before["archives"], *after["archives"])] == [
        (False, "public"), (True, "public"),
    ]  # fmt: skip
    assert shown.endswith("2025-12-31 to 2025-12-31  unfinished: its run was interrupted, or is still running\n")
    assert (loaded.returncode, loaded.stdout) == (0, "Restored  1 row of price_history; 0 existed already.\n")
    assert migrated.execute("SELECT id FROM price_history ORDER BY id") == [("a",), ("b",)]


def test_a_list_of_ids_that_this_installation_did_not_write_changes_no_archive(migrated, tmp_path, interrupted):
    migrated.execute("DELETE FROM price_history WHERE id IN ('a', 'c')")
    (tmp_path / f"{interrupted}.ids").write_text(json.dumps({"name": interrupted, "ids": ["a", "b", "c"], "signature": "0"}))

    loaded = manage("dbrestore", "--archive", interrupted, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path))

    assert (loaded.returncode, loaded.stderr.partition(":")[0]) == (2, f"{interrupted}.ids is damaged, or not signed")
    assert migrated.execute("SELECT id FROM price_history") == [("b",)]


@pytest.mark.parametrize("archived", [False, True])
def test_rows_of_a_table_that_gets_its_foreign_key_during_the_run_are_kept(migrated, tmp_path, monkeypatch, archived):
    put(migrated, "price_history", "a", CASES["price_history"][0])

    def prepared(*arguments):
        sizes = prepare(*arguments)
        migrated.execute(
            "CREATE TABLE note (price text REFERENCES price_history ON DELETE CASCADE); INSERT INTO note VALUES ('a')"
        )
        return sizes

    prepare = sweeping._prepare
    monkeypatch.setattr(sweeping, "_prepare", prepared)
    with pytest.raises(
        Refusal, match=r"^price_history is referenced by a foreign key of note, whose rows would be deleted too"
    ):
        swept(migrated, "price_history", tmp_path if archived else None)

    assert migrated.execute("SELECT h.id, n.price FROM price_history AS h, note AS n") == [("a", "a")]


def test_an_archive_whose_run_was_interrupted_elsewhere_is_refused(migrated, tmp_path, interrupted):
    store = store_at(str(tmp_path))
    archive = Archives(store, migrated.name).read(interrupted)
    store.write(f"{interrupted}.json", as_json(replace(archive, origin="another")).encode())
    files = sorted(path.name for path in tmp_path.iterdir())

    loaded = manage("dbrestore", "--archive", interrupted, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path))

    assert (loaded.returncode, loaded.stderr) == (
        2,
        f"The run that wrote {interrupted} was interrupted on another database, the only one that shows which rows it removed: run"
        " `manage.py dbmaintain weekly` there. If it no longer exists, delete `left` from the archive's .json, remove its .ids file, and"
        " add --unsigned.\n",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_an_archive_of_another_server_is_loaded_only_with_yes(migrated, tmp_path):
    put(migrated, "price_history", "old", CASES["price_history"][0])
    swept(migrated, "price_history", tmp_path)
    [name] = [path.stem for path in tmp_path.glob("*.json")]
    store = store_at(str(tmp_path))
    archives = Archives(store, migrated.name)
    archive = archives.read(name)
    cluster, _, rest = archive.origin.partition("/")
    oid = rest.partition("@")[0]
    seen = []
    with django(migrated) as connection:
        for origin in (f"1{cluster}/{oid}", f"1{cluster}/{oid}@db.example:5432", f"{cluster}/1{oid}@db.example:5432"):
            store.write(f"{name}.json", as_json(replace(archive, origin=origin)).encode())
            try:
                seen.append([one.added for one in archives.load(connection, name, Progress())[1]])
            except Refusal as refusal:
                seen.append(str(refusal))
    migrated.execute("DELETE FROM price_history")
    store.write(f"{name}.json", as_json(replace(archive, origin=f"1{cluster}/{oid}")).encode())
    loaded = manage("dbrestore", "--archive", name, "--yes", url=migrated.url, ARCHIVE_LOCATION=str(tmp_path))

    cure = "connect to that one; or, if this one replaced it, add --yes."
    assert seen == [f"{name} is from another server: {cure}", f"{name} is from the server at db.example:5432: {cure}", [1]]
    assert (loaded.returncode, loaded.stderr, migrated.execute("SELECT id FROM price_history")) == (0, "", [("old",)])


def test_archives_of_two_schemas_at_one_place_are_not_confused(migrated, tmp_path, interrupted):
    swept(migrated, "price_history", tmp_path)  # Finishes the archive: b was not removed, and is archived again.
    names = sorted(path.stem for path in tmp_path.glob("*.json"))
    store, archives = store_at(str(tmp_path)), Archives(store_at(str(tmp_path)), migrated.name)
    archives.begin(archives.read(names[1]), ["b"])
    migrated.execute("CREATE SCHEMA other; CREATE TABLE other.price_history (LIKE public.price_history INCLUDING ALL)")
    url, place = f"{migrated.url}&schema=other", {"ARCHIVE_LOCATION": str(tmp_path)}

    swept_there = manage("dbmaintain", "weekly", url=url, RETENTION="price_history=1", **place)
    listed = manage("dbmaintain", "archives", url=url, **place).stdout
    loaded = [manage("dbrestore", "--archive", name, url=url, **place) for name in names]

    assert "1 row removed" not in swept_there.stdout
    assert f"{names[1]}.ids" in store.names()
    assert listed.count("  schema public") == 2
    assert [(one.returncode, one.stderr) for one in loaded] == [
        (
            2,
            f"{name} is from the schema public, but this is other: connect to that one; or, if this one replaced it, correct the name in"
            " the archive's .json and add --unsigned.\n",
        )
        for name in names
    ]
    assert migrated.execute("SELECT count(*) FROM other.price_history") == [(0,)]


TOUCH = """
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.timestamp = now(); RETURN {what}; END$$;
    CREATE TRIGGER touch BEFORE INSERT ON price_history FOR EACH ROW EXECUTE FUNCTION touch()
"""


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        (
            "NEW",
            2,
            "Nothing was loaded: a trigger or a rule of price_history changes 1 of the rows. As the table's owner, disable it"
            ' (ALTER TABLE "price_history" DISABLE TRIGGER USER;), load the archive, and enable it again.',
        ),
        (
            "NULL",
            0,
            "Restored  0 rows of price_history; 0 existed already; 1 rejected: another row has the same unique value, or a trigger or"
            " rule rejects them.",
        ),
    ],
)
def test_rows_that_a_trigger_changes_are_not_called_restored(migrated, tmp_path, what, code, said):
    put(migrated, "price_history", "goes", CASES["price_history"][0])
    swept(migrated, "price_history", tmp_path)
    migrated.execute(TOUCH.format(what=what))
    [name] = [path.stem for path in tmp_path.glob("*.json")]

    result = manage("dbrestore", "--archive", name, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path))

    assert (result.returncode, said in (result.stdout + result.stderr)) == (code, True), result.stdout + result.stderr
    assert migrated.execute("SELECT id FROM price_history") == []


@pytest.mark.slow
def test_a_copy_of_the_database_settles_nothing_of_the_originals(migrated, tmp_path):
    put(migrated, "price_history", "removed", CASES["price_history"][0])
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        Archives(store_at(str(tmp_path)), "the same name").keep(connection, RULES["price_history"], part, Progress())
    migrated.execute("DELETE FROM price_history")  # Then the run was killed.
    before = sorted(path.name for path in tmp_path.iterdir())

    for copy in fresh("template0"):
        assert manage("migrate", "-v0", url=copy.url).returncode == 0
        put(copy, "price_history", "removed", CASES["price_history"][0])
        with django(copy) as connection:
            Archives(store_at(str(tmp_path)), "the same name").settle(connection, RULES["price_history"])
    after = sorted(path.name for path in tmp_path.iterdir())
    with django(migrated) as connection:
        Archives(store_at(str(tmp_path)), "the same name").settle(connection, RULES["price_history"])

    assert after == before
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".zip"]


def test_no_cast_of_another_roles_type_runs_when_an_archive_is_loaded(migrated, tmp_path, monkeypatch):
    with other_role(migrated, "CREATE TYPE mal.tier AS ENUM ('a')") as role:
        migrated.execute("ALTER TABLE price_history ADD tier mal.tier")
        put(migrated, "price_history", "goes", {**CASES["price_history"][0], "tier": "a"})
        [name] = swept(migrated, "price_history", tmp_path).archives
        with migrated.connect() as client:
            client.execute(
                f"SET ROLE {role}; CREATE FUNCTION mal.text(mal.tier) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran'; END $$;"
                "CREATE CAST (mal.tier AS text) WITH FUNCTION mal.text(mal.tier) AS IMPLICIT"
            )
        archives = Archives(store_at(str(tmp_path)), migrated.name)
        with django(migrated) as connection:
            with pytest.raises(Refusal, match=r"Function mal\.text\(mal\.tier\), which table public\.price_history uses"):
                archives.load(connection, name, Progress())
            monkeypatch.setattr(
                archive, "refuse_untrusted_code", lambda *_, **__: None
            )  # The cast was created after the check.
            _, loaded = archives.load(connection, name, Progress())
        migrated.execute("DROP SCHEMA mal CASCADE")

    assert [one.added for one in loaded] == [1]


def test_an_archive_of_another_database_is_refused(filled, migrated, tmp_path):
    maintain(filled, "weekly", RETENTION="price_history=1", ARCHIVE_LOCATION=str(tmp_path / "a"))
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]

    result = manage("dbrestore", "--archive", name, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path / "a"))

    assert result.returncode == 2
    assert result.stderr.startswith(
        f"{name} is from the database {filled.name}, but this is {migrated.name}: connect to that one"
    )
    assert migrated.execute("SELECT count(*) FROM price_history") == [(0,)]
