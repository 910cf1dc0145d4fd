"""Backups: taken of one snapshot, good only once restored and compared, refused for a reason, and put back without a row lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import psutil
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fly2any.database.backup import tools
from fly2any.database.backup.manifest import Manifest, Verdict
from fly2any.database.backup.retention import superfluous
from fly2any.database.diagnosis import Refusal
from tests.conftest import manage, start_manage
from tests.servers import open_transaction


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "backups")


def run(database, *arguments, place, **environment):
    return manage(*arguments, url=database.url, BACKUP_LOCATION=place, **environment)


def the_one(place):
    [path] = [path for path in sorted(os.listdir(place)) if path.endswith(".json")]
    return path.removesuffix(".json")


def change(place, **facts):
    """Change the manifest of the one backup."""
    path = f"{place}/{the_one(place)}.json"
    with open(path) as file:
        data = json.load(file)
    with open(path, "w") as file:
        json.dump(data | facts, file)
    return data


def rows(database):
    """Every row of every table of ours, as text."""
    tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return {name: sorted(database.execute(f'SELECT t::text FROM "{name}" AS t')) for (name,) in tables}


def databases(database):
    """The databases of this test: others run beside it."""
    return {name for (name,) in database.execute("SELECT datname FROM pg_database") if name.startswith(database.name)}


def test_a_backup_is_proven_by_restoring_it_and_comparing_every_row(filled, place):
    before = databases(filled)

    taken = run(filled, "dbbackup", place=place)
    checked = run(filled, "dbbackup", "--check", the_one(place), "--format", "json", place=place)

    assert (taken.returncode, taken.stderr) == (0, "")
    assert "Verdict   unverified: `manage.py dbbackup --check " in taken.stdout
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


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: os.truncate(path, 1000), "has 1,000 bytes and not"),
        (lambda path: _flip(path), "is not what was stored (its SHA-256 differs): it is damaged"),
    ],
    ids=["cut short", "one byte changed"],
)
def test_a_file_that_is_not_what_was_stored_is_bad_and_restores_nothing(filled, place, harm, reason):
    run(filled, "dbbackup", place=place)
    name = the_one(place)
    harm(f"{place}/{name}.dump")

    checked = run(filled, "dbbackup", "--check", name, place=place)
    restored = run(filled, "dbrestore", name, "--yes", place=place)
    status = run(filled, "dbstatus", place=place)

    assert (checked.returncode, "Verdict   BAD: " in checked.stdout, reason in checked.stdout) == (4, True, True)
    assert (restored.returncode, reason in restored.stderr, restored.stderr.count("\n")) == (2, True, 1)
    assert (status.returncode, "backup.bad" in status.stdout, "backup.none" in status.stdout) == (4, True, True)
    assert rows(filled)["users"]


def _flip(path):
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"server": "99.1"}, "is of PostgreSQL 99.1, and this server is"),
        (
            {"migrations": ["accounts.0001_initial", "accounts.9999_future"]},
            "was taken by newer code, which has accounts.9999_future",
        ),
        ({"migrations": ["blog.0001_initial"]}, "is not of a Fly2Any database"),
        ({"tables": 7}, "is no manifest of a backup, or is damaged"),
        ({"format": 2}, "has a format that this code does not read"),
    ],
)
def test_what_cannot_be_restored_here_is_refused_with_its_reason(filled, place, facts, said):
    run(filled, "dbbackup", place=place)
    change(place, **facts)
    name = the_one(place)
    before = databases(filled)

    answers = [run(filled, *words, place=place) for words in (["dbbackup", "--check", name], ["dbrestore", name, "--yes"])]

    assert [(answer.returncode, said in answer.stderr, answer.stderr.count("\n")) for answer in answers] == [(2, True, 1)] * 2
    assert databases(filled) == before


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"rows": 3, "hash": "1"}, '"public"."users" has 40 rows and not 3'),
        ({"rows": 40, "hash": "1"}, '"public"."users" has other rows'),
    ],
)
def test_rows_that_are_not_those_of_the_backup_are_found(filled, place, other, said):
    run(filled, "dbbackup", place=place)
    tables = change(place)["tables"]
    key = next(key for key in tables if key.strip('"').endswith("users"))
    change(place, tables={**tables, key: other})

    checked = run(filled, "dbbackup", "--check", the_one(place), place=place)
    restored = run(filled, "dbrestore", the_one(place), "--yes", place=place)

    assert (checked.returncode, said.replace('"', "") in checked.stdout.replace('"', "")) == (4, True)
    assert (restored.returncode, "What was restored is not what" in restored.stderr) == (2, True)
    assert len(rows(filled)["users"]) == 40


def test_a_restore_puts_back_every_row_and_what_the_database_is_dressed_with(filled, place):
    filled.execute(f"ALTER DATABASE {filled.name} SET statement_timeout = '77s'")
    filled.execute(f"ALTER DATABASE {filled.name} SET search_path = public, pg_catalog")
    filled.execute(f"REVOKE CONNECT ON DATABASE {filled.name} FROM PUBLIC")
    with filled.role(f"GRANT CONNECT ON DATABASE {filled.name} TO {{role}}", "GRANT SELECT ON users TO {role}") as of_role:
        held = rows(filled)
        assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
        filled.execute("DELETE FROM users; UPDATE price_history SET price = 1")

        plan = run(filled, "dbrestore", "latest", place=place)
        assert (plan.returncode, "Nothing was changed." in plan.stdout) == (0, True)
        assert rows(filled)["users"] == []
        with open_transaction(filled, "SELECT count(*) FROM price_history") as site:
            restored = run(filled, "dbrestore", "latest", "--yes", place=place)
            with pytest.raises(psycopg.OperationalError):
                site.execute("SELECT 1")

        assert (restored.returncode, restored.stderr) == (0, "")
        assert rows(filled) == held
        assert filled.execute("SHOW statement_timeout") + filled.execute("SHOW search_path") == [
            ("77s",),
            ("public, pg_catalog",),
        ]
        with psycopg.connect(of_role) as theirs:
            assert theirs.execute("SELECT count(*) FROM users").fetchone() == (40,)
        public = "SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')"
        assert filled.execute(public) == [(False,)]
        [old] = [name for name in databases(filled) if name.startswith(f"{filled.name}_before_")]
        assert f'DROP DATABASE "{old}"' in restored.stdout
        filled.execute(f'DROP DATABASE "{old}"')
    assert run(filled, "dbstatus", place=place).returncode == 0


def test_a_restore_beside_leaves_the_database_alone_and_takes_no_used_one(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    beside = f"{filled.name}_beside"
    try:
        first = run(filled, "dbrestore", "latest", "--into", beside, place=place)
        again = run(filled, "dbrestore", "latest", "--into", beside, place=place)

        assert (first.returncode, f"into {beside}, compared: every row is there." in first.stdout) == (0, True)
        assert (again.returncode, again.stderr) == (
            2,
            f"The database {beside} is not empty: name another, which is made, or an empty one.\n",
        )
    finally:
        filled.execute(f"DROP DATABASE IF EXISTS {beside}")


@pytest.mark.parametrize("moment", [0.8, 1.1, 1.4, 1.8])
def test_a_restore_that_is_killed_leaves_the_database_in_use_as_it_was(filled, place, moment):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)

    process = start_manage("dbrestore", "latest", "--yes", url=filled.url, BACKUP_LOCATION=place)
    time.sleep(moment)
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.communicate()

    assert rows(filled) == held
    assert run(filled, "dbrestore", "latest", "--yes", place=place).returncode == 0
    assert rows(filled) == held
    for name in databases(filled):
        if name.startswith((f"{filled.name}_before_", f"{filled.name}_restored_")):
            filled.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_backup_that_is_killed_or_fails_leaves_nothing_that_looks_like_one(filled, place):
    os.makedirs(place)
    process = start_manage("dbbackup", url=filled.url, BACKUP_LOCATION=place)
    while not os.listdir(place) and process.poll() is None:  # In the middle of it, however slow the machine is.
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    refused = run(filled, "dbbackup", place="/dev/null")

    assert process.returncode in (0, 143)
    assert os.listdir(place) == [] or process.returncode == 0
    assert (refused.returncode, refused.stderr) == (
        2,
        "/dev/null cannot be made or is no folder (File exists): correct BACKUP_LOCATION.\n",
    )


def test_a_backup_beside_writers_is_of_one_moment(filled, place):
    write = (
        "import psycopg, sys\nwith psycopg.connect(sys.argv[1], autocommit=True) as c:\n    n = 0\n    while True:\n        n += 1\n"
        "        c.execute(\"WITH u AS (INSERT INTO users (id, email, \\\"updatedAt\\\") VALUES ('w' || %(n)s, 'w' || %(n)s || '@x', now()) RETURNING id)"
        ' INSERT INTO user_activities (id, \\"userId\\", \\"eventType\\") SELECT id, id, \'e\' FROM u", {\'n\': n})\n'
    )
    writer = subprocess.Popen([sys.executable, "-c", write, filled.url], stderr=subprocess.PIPE)
    try:
        time.sleep(0.5)
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


def test_encrypted_backups_hold_nothing_readable_and_open_with_their_key_alone(filled, place, tmp_path):
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

    assert (no_key.returncode, "The backup is encrypted: set BACKUP_IDENTITY_FILE" in no_key.stderr) == (2, True)
    assert (wrong.returncode, "does not open this backup" in wrong.stderr) == (2, True)
    assert (right.returncode, "Verdict   good" in right.stdout) == (0, True)
    assert (odd.returncode, "BACKUP_RECIPIENT is no public key of age" in odd.stderr) == (2, True)


@pytest.fixture
def bucket():
    moto = pytest.importorskip("moto.server", reason="moto is not installed: make check installs it")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    import boto3

    access = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-9f3a",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    access["AWS_DEFAULT_REGION"] = "us-east-1"
    boto3.client(
        "s3",
        endpoint_url=access["AWS_ENDPOINT_URL"],
        aws_access_key_id="key",
        aws_secret_access_key="secret-9f3a",
        region_name="us-east-1",
    ).create_bucket(Bucket="fly2any")
    yield access
    server.stop()


def test_backups_in_a_bucket_are_taken_proven_listed_and_restored(filled, bucket):
    place = "s3://fly2any/nightly"
    held = rows(filled)

    taken = run(filled, "dbbackup", "--verify", place=place, **bucket)
    filled.execute("DELETE FROM users")
    restored = run(filled, "dbrestore", "latest", "--yes", place=place, **bucket)
    listed = run(filled, "dbbackup", "--list", "--format", "json", place=place, **bucket)
    status = run(filled, "dbstatus", place=place, **bucket)
    nowhere = run(filled, "dbbackup", "--list", place="s3://another", **bucket)

    assert [answer.returncode for answer in (taken, restored, listed, status)] == [0, 0, 0, 0], taken.stderr + restored.stderr
    assert rows(filled) == held
    assert [entry["state"] for entry in json.loads(listed.stdout)["backups"]] == ["good"]
    assert "newest good" in status.stdout
    assert (nowhere.returncode, "s3://another refuses (NoSuchBucket): correct BACKUP_LOCATION" in nowhere.stderr) == (2, True)
    assert "secret-9f3a" not in "".join(answer.stdout + answer.stderr for answer in (taken, restored, listed, status, nowhere))
    for name in databases(filled):
        if name.startswith(f"{filled.name}_before_"):
            filled.execute(f'DROP DATABASE "{name}"')


def test_the_password_is_in_no_list_of_processes(own_server, place):
    server = own_server().start().create_database()
    server.execute("CREATE ROLE owner LOGIN SUPERUSER PASSWORD 'se:cr\\et-77'")
    server.hba("host all all 127.0.0.1/32 scram-sha-256")
    url = server.url(user="owner", password="se%3Acr%5Cet-77")
    assert manage("migrate", url=url).returncode == 0

    process = start_manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
    seen, tools_seen = [], set()
    while process.poll() is None:
        for other in psutil.process_iter():
            try:
                line = " ".join(other.cmdline())
                if other.pid != process.pid and other.name() in ("pg_dump", "pg_restore"):
                    tools_seen.add(other.name())
                    line += str(other.environ())
                if other.pid != process.pid:
                    seen.append(line)
            except psutil.Error:
                continue
    out, err = process.communicate()

    assert (process.returncode, err, tools_seen) == (0, "", {"pg_dump", "pg_restore"})
    assert [line for line in seen if "et-77" in line] == []
    assert "et-77" not in out


def test_tools_that_cannot_serve_are_said_with_the_package_that_can():
    with pytest.raises(
        Refusal, match=r"^PostgreSQL 97 needs a pg_dump and pg_restore of 97 or newer that speaks TLS.*postgresql-client-97"
    ):
        tools.choose(97, tls=True)
    assert tools.choose(14, tls=False).major >= 14


def test_dbstatus_warns_where_the_newest_good_backup_is_missing_or_old(filled, place):
    assert "none known   BACKUP_LOCATION is not set" in manage("dbstatus", url=filled.url).stdout
    missing = run(filled, "dbstatus", place=place)
    run(filled, "dbbackup", "--verify", place=place)
    new = run(filled, "dbstatus", place=place)
    taken = datetime.now(UTC) - timedelta(hours=27)
    change(place, taken=taken.isoformat())
    old = run(filled, "dbstatus", place=place)
    (open(f"{place}/{the_one(place)}.json", "w")).close()
    broken = run(filled, "dbstatus", place=place)

    assert "none known" in missing.stdout
    codes = [re.findall(r"WARNING (backup\.\w+)", answer.stdout) for answer in (missing, new, old, broken)]
    assert codes == [["backup.unreadable"], [], ["backup.old"], ["backup.unreadable"]]
    assert [answer.returncode for answer in (missing, new, old, broken)] == [4, 0, 4, 4]


def backup(taken, state):
    verdict = None if state == "unverified" else Verdict(taken, "18.6", "" if state == "good" else "cut short")
    name = f"fly2any-{taken:%Y%m%dT%H%M%SZ}"
    return Manifest(name, f"{name}.dump", taken, "fly2any", "18.6", "18.6", "c", 1, "", "", (), (), (), (), {}, verdict)


NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
TIMES = st.integers(0, 800 * 24).map(lambda hours: NOW - timedelta(hours=hours))


@given(
    st.lists(
        st.tuples(TIMES, st.sampled_from(["good", "good", "bad", "unverified"])), max_size=60, unique_by=lambda pair: pair[0]
    )
)
def test_what_is_pruned_is_never_the_newest_and_leaves_the_last_good_of_each_period(pairs):
    every = sorted((backup(*pair) for pair in pairs), key=lambda one: one.taken, reverse=True)
    removed = {one.name for one in superfluous(every)}
    kept = [one for one in every if one.name not in removed]
    good = [one for one in every if one.state == "good"]

    assert kept[:1] == every[:1]
    assert [one for one in kept if one.state == "good"][:1] == good[:1]
    for period, number in (("%Y-%m-%d", 7), ("%G-%V", 4), ("%Y-%m", 12)):
        newest_periods = sorted({f"{one.taken:{period}}" for one in good}, reverse=True)[:number]
        last = {p: max(one.taken for one in good if f"{one.taken:{period}}" == p) for p in newest_periods}
        assert set(last.values()) <= {one.taken for one in kept}
    assert len(kept) <= 2 * (7 + 4 + 12) + 1
    assert [one for one in kept if one.state == "bad"] == [one for one in every[:1] if one.state == "bad"]


def test_pruning_removes_manifest_and_dump_together(filled, place):
    for _ in range(2):
        run(filled, "dbbackup", "--verify", place=place)
        time.sleep(1.1)

    pruned = run(filled, "dbbackup", "--list", "--prune", place=place)

    assert (pruned.returncode, len(os.listdir(place))) == (0, 2)


def test_a_key_that_is_missing_says_nothing_of_the_backup(filled, place, tmp_path):
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


def test_another_databases_backups_are_neither_pruned_nor_restored_by_latest(filled, migrated, place):
    run(filled, "dbbackup", "--verify", place=place)
    pruned = run(migrated, "dbbackup", "--verify", "--prune", "--format", "json", place=place)
    run(migrated, "dbbackup", "--verify", place=place)

    latest = run(filled, "dbrestore", "latest", place=place)

    assert json.loads(pruned.stdout)["pruned"] == []
    assert f"Backup    {filled.name}-" in latest.stdout
    assert f"of {filled.name} on PostgreSQL" in latest.stdout


def test_what_is_damaged_or_foreign_at_the_place_is_listed_and_passed_over(filled, place, tmp_path):
    run(filled, "dbbackup", "--verify", place=place)
    name = the_one(place)
    (tmp_path / "precious").write_text("kept")
    with open(f"{place}/{name}.json") as file:
        other = json.load(file) | {
            "file": "../precious",
            "verdict": {"at": "2026-01-01T00:00:00+00:00", "server": "18", "reason": "bad"},
        }
    for odd, text in (("other", "{}"), (f"{filled.name}-20000101T000000.000000Z", json.dumps(other))):
        with open(f"{place}/{odd}.json", "w") as file:
            file.write(text)

    listed = run(filled, "dbbackup", "--list", "--prune", place=place)
    latest = run(filled, "dbrestore", "latest", place=place)

    assert (listed.returncode, latest.returncode) == (0, 0)
    assert listed.stdout.startswith(
        f"{filled.name}-20000101T000000.000000Z.json belongs to no backup, or cannot be read.\nother.json belongs"
    )
    assert name in latest.stdout
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize(
    "words", [["--into", ""], ["--into", "postgres"], ["--into", "template0"], ["--into", "x" * 64], ["--into", "x", "--yes"]]
)
def test_where_nothing_is_to_be_restored_is_refused_in_a_sentence(filled, place, words):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)

    refused = run(filled, "dbrestore", "latest", *words, place=place)

    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert rows(filled) == held


@pytest.mark.parametrize("place", ["backups", "~/backups", "ftp://host/x", "s3://"])
def test_a_place_that_is_none_is_said(filled, place):
    refused = run(filled, "dbbackup", place=place)

    assert (refused.returncode, refused.stderr.count("\n"), "BACKUP_LOCATION" in refused.stderr) == (2, 1, True)
    assert not os.path.exists("backups")


def test_looking_makes_no_folder(filled, place):
    answers = [
        run(filled, *words, place=place).returncode for words in (["dbstatus"], ["dbbackup", "--list"], ["dbrestore", "latest"])
    ]

    assert (answers, os.path.exists(place)) == ([4, 2, 2], False)


def test_a_dump_that_is_gone_is_no_backup(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    name = the_one(place)
    os.unlink(f"{place}/{name}.dump")

    checked = run(filled, "dbbackup", "--check", name, place=place)
    listed = run(filled, "dbbackup", "--list", "--prune", place=place)
    status = run(filled, "dbstatus", place=place)

    assert (checked.returncode, f"{name}.dump is not there" in checked.stderr) == (2, True)
    assert (listed.returncode, f"{name}.json belongs to no backup, or cannot be read." in listed.stdout) == (0, True)
    assert (status.returncode, f"{name}.dump is gone, and its manifest is there." in status.stdout) == (4, True)


def test_a_restore_gives_everything_back_to_its_owner_or_says_whom_it_misses(filled, place):
    role = f"{filled.name}_owner"
    filled.execute(f"CREATE ROLE {role} LOGIN; CREATE ROLE {role}_reads; ALTER TABLE notifications OWNER TO {role}")
    filled.execute(f"GRANT SELECT (email) ON users TO {role}_reads; ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    filled.execute(f"CREATE POLICY p ON users TO {role}_reads USING (true)")
    try:
        assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
        assert run(filled, "dbrestore", "latest", "--yes", place=place).returncode == 0
        owners = "SELECT tableowner FROM pg_tables WHERE tablename IN ('notifications', 'users') ORDER BY tablename"
        assert filled.execute(owners) == [(role,), ("postgres",)]
        assert filled.execute(f"SELECT has_column_privilege('{role}_reads', 'users', 'email', 'SELECT')") == [(True,)]
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')

        filled.execute(f"DROP POLICY p ON users; DROP OWNED BY {role}_reads; DROP ROLE {role}_reads")
        refused = run(filled, "dbrestore", "latest", "--yes", place=place)
        assert (refused.returncode, refused.stderr) == (
            2,
            f'The backup names roles that this server has not: run CREATE ROLE "{role}_reads" NOLOGIN; and the command again.\n',
        )
    finally:
        filled.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}; DROP ROLE IF EXISTS {role}_reads")


def test_an_owner_who_is_no_superuser_backs_up_and_restores(filled, place):
    role = f"{filled.name}_owner"
    filled.execute(f"CREATE ROLE {role} LOGIN CREATEDB; ALTER DATABASE {filled.name} OWNER TO {role}")
    tables = [name for (name,) in filled.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    filled.execute("; ".join(f'ALTER TABLE "{name}" OWNER TO {role}' for name in tables))
    url = filled.url.replace("//postgres", f"//{role}")
    held = rows(filled)
    try:
        taken = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
        filled.execute("DELETE FROM users")
        restored = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)

        assert [(answer.returncode, answer.stderr) for answer in (taken, restored)] == [(0, ""), (0, "")]
        assert rows(filled) == held
        assert filled.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == [(role,)]
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')
    finally:
        filled.execute(
            f"REASSIGN OWNED BY {role} TO postgres; ALTER DATABASE {filled.name} OWNER TO postgres; DROP ROLE {role}"
        )


def test_rows_are_hashed_whatever_the_database_calls_its_functions_and_columns(filled, place):
    filled.execute("CREATE FUNCTION md5(text) RETURNS text LANGUAGE sql AS $$ SELECT repeat('0', 32) $$")
    filled.execute(f"ALTER DATABASE {filled.name} SET search_path = public, pg_catalog")
    filled.execute("CREATE TABLE odd (\"the row\" int, secret text); INSERT INTO odd SELECT 1, 'a' FROM generate_series(1, 9)")
    filled.execute("CREATE TABLE empty_one (); INSERT INTO empty_one DEFAULT VALUES")
    first = run(filled, "dbbackup", "--verify", "--format", "json", place=place)
    filled.execute("UPDATE odd SET secret = 'b'")
    second = run(filled, "dbbackup", "--verify", "--format", "json", place=place)

    tables = [json.loads(answer.stdout)["backups"][0]["tables"] for answer in (first, second)]
    changed = {key for key in tables[0] if tables[0][key]["hash"] != tables[1][key]["hash"]}
    assert {key.replace('"', "") for key in changed} == {"public.odd"}
    assert [answer.returncode for answer in (first, second)] == [0, 0]


def test_what_is_encrypted_is_never_in_clear_at_the_place(filled, place):
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


@pytest.mark.parametrize(
    "facts",
    [
        {"bytes": "12"}, {"bytes": 10**400}, {"server": "x.y"}, {"server": 18}, {"tool": "zz"}, {"migrations": [1]}, {"file": 7},
        {"name": None}, {"roles": [["x"]]}, {"taken": "0001-01-01T00:00:00+14:00"}, {"taken": "2099-01-01T00:00:00+00:00"},
        {"tables": {"a": {"rows": "1", "hash": "1"}}}, {"verdict": {"at": "2026-01-01T00:00:00+00:00", "server": "18", "reason": None}},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_edited_by_hand_is_damaged(filled, place, facts):
    run(filled, "dbbackup", place=place)
    name = the_one(place)
    change(place, **facts)

    answers = [
        run(filled, *words, place=place) for words in (["dbbackup", "--check", name], ["dbstatus"], ["dbbackup", "--list"])
    ]

    assert [answer.returncode for answer in answers] == [2, 4, 0]
    assert ["Traceback" in answer.stderr for answer in answers] == [False] * 3
    assert "is no manifest of a backup, or is damaged" in answers[0].stderr


def test_an_empty_database_is_restored_in_place(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)
    filled.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    restored = run(filled, "dbrestore", "latest", place=place)

    assert (restored.returncode, f"Restored  into {filled.name}, compared" in restored.stdout) == (0, True)
    assert (rows(filled), databases(filled)) == (held, {filled.name})
