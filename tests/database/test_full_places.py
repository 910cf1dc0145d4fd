"""Places of backups and archives that are full: a run that fails leaves nothing that fills them further."""

import os
import re
import subprocess
import sys
import tempfile

import pytest

from fly2any.database.backup.inventory import backups
from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep
from tests.conftest import PROJECT, django
from tests.database.old_rows import BEFORE, CASES, put
from tests.database.taken import rows


class Full(Folder):
    """A folder that refuses the file that matches `pattern`, the time it would be written for the `number`th time, and later."""

    def __init__(self, place, pattern, number=1):
        super().__init__(str(place))
        self.pattern, self.number = pattern, number

    def _require_room(self, name):
        self.number -= re.search(self.pattern, name) is not None
        if not self.number:
            self.number += 1
            raise Refusal(f"{self.place} cannot be used (No space left on device): correct {self.variable}.")

    def put(self, name, path, show):
        self._require_room(name)
        super().put(name, path, show)


def test_a_backup_whose_manifest_cannot_be_stored_leaves_no_dump(migrated, tmp_path):
    with django(migrated) as connection, pytest.raises(Refusal, match="No space left on device"):
        take(connection, Full(tmp_path / "full", r"\.json$"), Progress())

    assert list((tmp_path / "full").iterdir()) == []


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("pattern", "number"),
    [(r"\.zip$", 1), (r"\.ids$", 1), (r"\.json$", 1), (r"\.ids$", 2)],
    ids=["rows", "list", "description", "first batch"],
)
def test_an_archive_that_cannot_be_stored_whole_leaves_no_file(migrated, tmp_path, pattern, number):
    put(migrated, "price_history", "old", CASES["price_history"][0])
    before = rows(migrated)
    archives = Archives(Full(tmp_path / "full", pattern, number), migrated.name)
    with django(migrated) as connection, pytest.raises(Refusal, match="No space left on device"):
        sweep(connection, RULES["price_history"], archives=archives, progress=Progress(), deadline=float("inf"), before=BEFORE)

    assert (list((tmp_path / "full").iterdir()), rows(migrated)) == ([], before)


@pytest.mark.slow
def test_a_backup_is_verified_while_the_disk_of_the_log_is_full(migrated, place):
    environment = {
        "POSTGRES_URL": migrated.url,
        "BACKUP_LOCATION": place,
        "SECRET_KEY": "only for tests",
        "ALLOWED_HOSTS": "localhost",
        "TMPDIR": tempfile.gettempdir(),
    }
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-u", "manage.py", "dbbackup", "--verify", "--prune"],
            cwd=PROJECT, env={"PATH": os.environ["PATH"], **environment}, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert (process.returncode, process.stderr) == (
        2,
        "The output could not be written (No space left on device): make room for it.\n",
    )
    assert [manifest.state for manifest in backups(Folder(place)).manifests] == ["good"]


def test_an_archive_of_which_rows_may_have_been_removed_stays(migrated, tmp_path):
    put(migrated, "price_history", "old", CASES["price_history"][0])
    archives = Archives(Full(tmp_path / "full", r"\.json$", 2), migrated.name)
    with django(migrated) as connection, pytest.raises(Refusal, match="No space left on device"):
        sweep(connection, RULES["price_history"], archives=archives, progress=Progress(), deadline=float("inf"), before=BEFORE)

    assert migrated.execute("SELECT count(*) FROM price_history") == [(0,)]
    assert sorted(path.suffix for path in (tmp_path / "full").iterdir()) == [".ids", ".json", ".zip"]
