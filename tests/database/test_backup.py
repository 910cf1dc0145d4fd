"""Backups: taken of one snapshot, and verified only once restored and compared."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fly2any.database.backup import tools
from fly2any.database.errors import Refusal
from tests.conftest import start_manage
from tests.database.sites import KINDS, fill
from tests.database.taken import change, databases, rows, run, the_one


def test_a_backup_is_verified_by_restoring_it_and_comparing_every_row(filled, place):
    before = databases(filled)

    taken = run(filled, "dbbackup", place=place)
    checked = run(filled, "dbbackup", "--check", the_one(place), "--format", "json", place=place)

    assert (taken.returncode, taken.stderr) == (0, "")
    assert "Verdict   not verified: `manage.py dbbackup --check " in taken.stdout
    assert (checked.returncode, checked.stderr) == (0, "")
    [entry] = json.loads(checked.stdout)["backups"]
    held = rows(filled)
    assert {name.strip('"').removeprefix('public"."'): content["rows"] for name, content in entry["tables"].items()} == {
        name: len(lines) for name, lines in held.items()
    }
    assert len({content["hash"] for content in entry["tables"].values() if content["rows"]}) > 20
    assert (entry["state"], entry["verdict"]["reason"], entry["bytes"]) == (
        "good",
        "",
        os.path.getsize(f"{place}/{entry['file']}"),
    )
    assert {f"{os.stat(f'{place}/{name}').st_mode & 0o777:o}" for name in os.listdir(place)} == {"600"}
    assert databases(filled) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "reason", "found"),
    [
        (lambda path: os.truncate(path, 1000), "has 1,000 bytes instead of", {"backup.unreadable"}),
        (
            lambda path: _flip(path),
            "is damaged (its SHA-256 differs)",
            {"backup.bad", "backup.none"},
        ),
    ],
    ids=["cut short", "one byte changed"],
)
def test_a_changed_file_is_bad_and_restores_nothing(filled, place, harm, reason, found):
    run(filled, "dbbackup", place=place)
    name = the_one(place)
    harm(f"{place}/{name}.dump")

    checked = run(filled, "dbbackup", "--check", name, place=place)
    restored = run(filled, "dbrestore", name, "--yes", place=place)
    status = run(filled, "dbstatus", place=place)

    assert (checked.returncode, "Verdict   BAD: " in checked.stdout, reason in checked.stdout) == (4, True, True)
    assert (restored.returncode, reason in restored.stderr, restored.stderr.count("\n")) == (2, True, 1)
    assert (status.returncode, set(re.findall(r"backup\.\w+", status.stdout))) == (4, found)
    assert ("Fix the reported cause, then run `manage.py dbbackup --verify` again." in status.stdout) == ("backup.bad" in found)
    assert rows(filled)["users"]


def _flip(path):
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        pytest.param({"rows": 3, "hash": "1"}, '"public"."users" has 40 rows instead of 3', marks=pytest.mark.slow),
        ({"rows": 40, "hash": "1"}, '"public"."users" has different rows'),
    ],
)
def test_rows_that_differ_from_the_backup_are_found(filled, place, other, said):
    run(filled, "dbbackup", place=place)
    tables = change(place)["tables"]
    key = next(key for key in tables if key.strip('"').endswith("users"))
    change(place, tables={**tables, key: other})

    checked = run(filled, "dbbackup", "--check", the_one(place), place=place)
    restored = run(filled, "dbrestore", the_one(place), "--yes", place=place)

    assert (checked.returncode, said.replace('"', "") in checked.stdout.replace('"', "")) == (4, True)
    assert (restored.returncode, "The restored database differs from" in restored.stderr) == (2, True)
    assert len(rows(filled)["users"]) == 40


def test_a_backup_that_is_killed_or_fails_leaves_nothing_that_looks_like_one(filled, place):
    os.makedirs(place)
    process = start_manage("dbbackup", url=filled.url, BACKUP_LOCATION=place)
    while not os.listdir(place) and process.poll() is None:  # In the middle of the backup, even on a slow machine.
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    refused = run(filled, "dbbackup", place="/dev/null")

    assert process.returncode in (0, 143)
    assert os.listdir(place) == [] or process.returncode == 0
    assert (refused.returncode, refused.stderr) == (
        2,
        "/dev/null cannot be created or is not a folder (File exists): correct BACKUP_LOCATION.\n",
    )


@pytest.mark.slow
def test_a_backup_during_writes_is_one_snapshot(filled, place):
    write = (
        "import psycopg, sys, time\nwith psycopg.connect(sys.argv[1], autocommit=True) as c:\n    n = 0\n    while True:\n        n += 1\n        time.sleep(0.002)\n"
        "        c.execute(\"WITH u AS (INSERT INTO users (id, email, \\\"updatedAt\\\") VALUES ('w' || %(n)s, 'w' || %(n)s || '@x', now()) RETURNING id)"
        ' INSERT INTO user_activities (id, \\"userId\\", \\"eventType\\") SELECT id, id, \'e\' FROM u", {\'n\': n})\n'
    )
    writer = subprocess.Popen([sys.executable, "-c", write, filled.url], stderr=subprocess.PIPE)
    try:
        while not filled.execute("SELECT id FROM users WHERE id = 'w1'"):
            assert writer.poll() is None, writer.stderr.read()
        result = run(filled, "dbbackup", "--verify", "--format", "json", place=place)
        assert writer.poll() is None, writer.stderr.read()
    finally:
        writer.kill()
        writer.communicate()

    [entry] = json.loads(result.stdout)["backups"]
    of = {key.replace('"', "").removeprefix("public."): content["rows"] for key, content in entry["tables"].items()}
    activities = filled.execute("SELECT count(*) FROM user_activities WHERE id NOT LIKE 'w%'")[0][0]
    assert (result.returncode, entry["state"]) == (0, "good")
    assert of["users"] - 40 == of["user_activities"] - activities
    assert of["users"] > 40


@pytest.mark.slow
def test_encrypted_backups_contain_no_plain_text_and_need_their_key(filled, place, tmp_path):
    import pyrage

    keys = [pyrage.x25519.Identity.generate() for _ in range(2)]
    for number, key in enumerate(keys):
        (tmp_path / f"key{number}").write_text(f"# created by a test\n{key}\n")
    sealing = {"BACKUP_RECIPIENT": str(keys[0].to_public())}

    taken = run(filled, "dbbackup", place=place, **sealing)
    assert (taken.returncode, ", encrypted" in taken.stdout) == (0, True)
    name = the_one(place)
    with open(f"{place}/{name}.dump.age", "rb") as file:
        assert file.read(21) == b"age-encryption.org/v1"
    no_key = run(filled, "dbrestore", name, "--yes", place=place)
    wrong = run(filled, "dbrestore", name, "--yes", place=place, BACKUP_IDENTITY_FILE=str(tmp_path / "key1"))
    right = run(filled, "dbbackup", "--check", name, place=place, BACKUP_IDENTITY_FILE=str(tmp_path / "key0"))
    odd = run(filled, "dbbackup", place=place, BACKUP_RECIPIENT="age1nonsense")
    unverifiable = run(filled, "dbbackup", "--verify", "--prune", place=place, **sealing)

    assert (no_key.returncode, "The backup is encrypted: set BACKUP_IDENTITY_FILE" in no_key.stderr) == (2, True)
    assert (wrong.returncode, "does not decrypt this backup" in wrong.stderr) == (2, True)
    assert (right.returncode, "Verdict   verified" in right.stdout) == (0, True)
    assert (odd.returncode, "BACKUP_RECIPIENT is not an age public key" in odd.stderr) == (2, True)
    assert (unverifiable.returncode, the_one(place), unverifiable.stderr) == (
        2, name,
        "Backups are encrypted (BACKUP_RECIPIENT is set), so --verify needs the key: set BACKUP_IDENTITY_FILE to the file with the"
        " key that age-keygen created; or omit --verify and --prune, and run `dbbackup --check latest --prune` where the key is.\n",
    )  # fmt: skip


@pytest.mark.slow
def test_the_password_is_in_no_list_of_processes(own_server, place):
    server = own_server(migrated=True)
    server.execute("CREATE ROLE owner LOGIN SUPERUSER PASSWORD 'se:cr\\et-77'")
    server.hba("host all all 127.0.0.1/32 scram-sha-256")
    url = server.url(user="owner", password="se%3Acr%5Cet-77")

    process = start_manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
    seen, tools_seen = [], set()
    while process.poll() is None:
        for other in Path("/proc").glob("[0-9]*"):  # Faster than psutil: a restore takes moments.
            try:
                line, name = (other / "cmdline").read_text(), (other / "comm").read_text().strip()
                if name in ("pg_dump", "pg_restore"):
                    tools_seen.add(name)
                    line += (other / "environ").read_text()
                if int(other.name) != process.pid:
                    seen.append(line)
            except (OSError, UnicodeDecodeError):
                continue
    out, err = process.communicate()

    assert (process.returncode, err, tools_seen) == (0, "", {"pg_dump", "pg_restore"})
    assert [line for line in seen if "et-77" in line] == []
    assert "et-77" not in out


def test_unsuitable_tools_are_reported_with_the_suitable_packages(monkeypatch):
    monkeypatch.setattr(tools, "_installed", lambda: iter([tools.Tools(tools.embedded_folder(), "18.6")]))
    tls, plain = " that support TLS, and this machine has none", ", and this machine has 18"
    cures = (
        "run `apt-get install postgresql-client-{0}` (Debian, Ubuntu; from apt.postgresql.org if the system does not have it) or"
        " `brew install postgresql@{0}` (macOS), or put their folder on the PATH."
    )

    said = {}
    for server, options in {
        97: {"tls": False},
        16: {"tls": True},
        15: {"tls": False, "newest": 16},
        14: {"tls": False, "oldest": 99},
    }.items():
        with pytest.raises(Refusal) as refused:
            tools.choose(server, **options)
        said[server] = str(refused.value)

    assert said == {
        97: f"PostgreSQL 97 needs pg_dump and pg_restore of version 97 or later{plain}: {cures.format(97)}",
        16: f"PostgreSQL 16 needs pg_dump and pg_restore of version 16 or later{tls}: {cures.format(16)}",
        15: f"PostgreSQL 15 needs pg_dump and pg_restore of version 15 to 16{plain}: {cures.format(15)}",
        14: f"PostgreSQL 14 needs pg_dump and pg_restore of version 99 or later{plain}: {cures.format(99)}",
    }
    assert [tools.choose(server, tls=False).major for server in (14, 15, 16, 17, 18)] == [18] * 5


@pytest.mark.slow
def test_a_missing_key_does_not_make_a_backup_bad(filled, place, tmp_path):
    import pyrage

    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{key}\n")
    (tmp_path / "empty").touch()
    sealing = {"BACKUP_RECIPIENT": str(key.to_public())}

    before = run(filled, "dbbackup", "--verify", place=place, **sealing)
    assert (before.returncode, os.path.exists(place)) == (2, False)
    assert (
        run(filled, "dbbackup", "--verify", place=place, BACKUP_IDENTITY_FILE=str(tmp_path / "key"), **sealing).returncode == 0
    )
    for odd in ("", str(tmp_path / "nothing"), str(tmp_path / "empty"), str(tmp_path)):
        tried = run(filled, "dbbackup", "--check", "latest", "--prune", place=place, BACKUP_IDENTITY_FILE=odd)
        assert (tried.returncode, tried.stderr.count("\n")) == (2, 1), tried
    listed = json.loads(run(filled, "dbbackup", "--list", "--format", "json", place=place).stdout)
    assert [entry["state"] for entry in listed["backups"]] == ["good"]


@pytest.mark.slow
def test_rows_are_hashed_whatever_the_database_calls_its_functions_and_columns(filled, place):
    filled.execute("CREATE FUNCTION md5(text) RETURNS text LANGUAGE sql AS $$ SELECT repeat('0', 32) $$")
    filled.execute("CREATE TABLE odd (\"the row\" int, secret text); INSERT INTO odd SELECT 1, 'a' FROM generate_series(1, 9)")
    filled.execute("CREATE TABLE empty_one (); INSERT INTO empty_one DEFAULT VALUES")
    first = run(filled, "dbbackup", "--verify", "--format", "json", place=place)
    filled.execute("UPDATE odd SET secret = 'b'")
    second = run(filled, "dbbackup", "--verify", "--format", "json", place=place)

    tables = [json.loads(answer.stdout)["backups"][0]["tables"] for answer in (first, second)]
    changed = {key for key in tables[0] if tables[0][key]["hash"] != tables[1][key]["hash"]}
    assert {key.replace('"', "") for key in changed} == {"public.odd"}
    assert [answer.returncode for answer in (first, second)] == [0, 0]


@pytest.mark.slow
def test_a_character_encoding_set_for_the_database_does_not_fail_the_backup(filled, place):
    filled.execute("UPDATE users SET name = 'Jānis' WHERE id = (SELECT min(id) FROM users)")
    filled.execute(f"ALTER DATABASE {filled.name} SET client_encoding = 'LATIN1'")

    result = run(filled, "dbbackup", "--verify", place=place)

    assert (result.returncode, result.stderr) == (0, "")
    assert "Verdict   verified" in result.stdout


def test_an_encrypted_backup_is_never_stored_unencrypted(filled, place):
    import pyrage

    recipient = str(pyrage.x25519.Identity.generate().to_public())
    os.makedirs(place)
    process = start_manage("dbbackup", url=filled.url, BACKUP_LOCATION=place, BACKUP_RECIPIENT=recipient)
    seen = set()
    while process.poll() is None:
        for folder, _, names in os.walk(place):
            seen |= {name for name in names if open_bytes(f"{folder}/{name}").startswith(b"PGDMP")}
    process.communicate()

    assert (process.returncode, seen) == (0, set())


def open_bytes(path):
    try:
        with open(path, "rb") as file:
            return file.read(16)
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "superset"])
def test_a_prisma_database_is_backed_up_before_it_is_adopted(database, place, kind):
    fill(database, KINDS[kind])

    taken = run(database, "dbbackup", "--verify", place=place)
    restored = run(database, "dbrestore", the_one(place), "--into", f"{database.name}_copy", place=place)
    copy = dataclasses.replace(database, name=f"{database.name}_copy")

    assert (taken.returncode, taken.stderr, restored.returncode, restored.stderr) == (0, "", 0, "")
    assert rows(copy) == rows(database)
    database.execute(f"DROP DATABASE {copy.name}")
