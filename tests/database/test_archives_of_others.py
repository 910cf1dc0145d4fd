"""Archives and what is not ours: a copy of the server, and triggers of the site on a table that an archive is loaded into."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fly2any.database.backup.store import store_at
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.description import as_json
from fly2any.database.retention.rules import RULES
from fly2any.database.server import Run
from tests.conftest import django, manage
from tests.database.old_rows import BEFORE, CASES, put, swept


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
