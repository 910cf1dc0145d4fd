"""Export and erasure of all data about a person, checked on every table that mentions them."""

import errno
import json
import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from fly2any.database.errors import Refusal
from fly2any.database.marked_databases import RESTORE, mark
from fly2any.database.migration.advisory_locks import ERASURE_LOCK
from fly2any.database.person import File, Person, Stream, erase, find, write_new
from fly2any.database.schema import read_catalog
from tests.conftest import django, manage
from tests.database.people import ANA, BOB, CANARY, EMAIL, erased, exported, fill, mentions, planned
from tests.servers import open_transaction


@pytest.fixture
def people(migrated):
    """Two people who have a row in every table that can have one of theirs; the id of the first."""
    with django(migrated) as connection:
        catalog = read_catalog(connection, schema="public")
    for number, (identity, email) in enumerate(((ANA, EMAIL), (BOB, "bob@example.com"))):
        migrated.execute(
            'INSERT INTO users (id, email, password, "updatedAt") VALUES (%s, %s, %s, now())', [identity, email, CANARY]
        )
        migrated.execute("INSERT INTO auth_group (id, name) VALUES (%s, %s)", [number + 90, identity])
        fill(migrated, catalog, identity, email, number)
    return ANA


def test_everything_about_a_person_is_exported_without_secrets_or_other_people(migrated, people, tmp_path):
    path = tmp_path / "ana.json"

    result = manage("dbperson", "export", EMAIL.lower(), "--output", str(path), url=migrated.url)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    held = json.loads(path.read_text())
    assert (held["person"], f"{path.stat().st_mode & 0o777:o}") == ({"id": ANA, "email": EMAIL}, "600")
    counts = {table: len(rows) for table, rows in held["tables"].items() if rows}
    expected = mentions(migrated, ANA) | mentions(migrated, EMAIL)
    below = {"ai_messages", "django_otp_webauthn_webauthnattestation", "otp_static_statictoken", "axes_accessattemptexpiration"}
    by_id_alone = {"auth_group", "auth_permission", "django_content_type", "fly2any_accesses"}
    assert counts.keys() >= {*expected, *below} - by_id_alone
    assert len(counts) >= 25
    assert CANARY not in path.read_text()
    assert BOB not in path.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["ana.json"]


@pytest.mark.parametrize("parent", ["users", "sessions"])
def test_tables_that_inherit_from_ours_are_exported_without_secrets(migrated, parent, tmp_path):
    migrated.execute(f"CREATE TABLE between () INHERITS ({parent}); CREATE TABLE theirs () INHERITS (between)")
    people = "theirs" if parent == "users" else "users"
    migrated.execute(
        f'INSERT INTO {people} (id, email, password, "updatedAt") VALUES (%s, %s, %s, now())', [ANA, EMAIL, CANARY]
    )
    if parent == "sessions":
        migrated.execute('ALTER TABLE theirs ADD FOREIGN KEY ("userId") REFERENCES users ON DELETE CASCADE')
        migrated.execute(
            'INSERT INTO theirs (id, "sessionToken", "userId", expires) VALUES (%s, %s, %s, now())', [ANA, CANARY, ANA]
        )

    written = manage("dbperson", "export", EMAIL, url=migrated.url)

    assert (written.returncode, written.stderr) == (0, "")
    assert CANARY not in written.stdout
    tables = json.loads(written.stdout)["tables"]
    assert {name: [row["id"] for row in rows] for name, rows in tables.items()} == {people: [ANA], "theirs": [ANA]}


@pytest.mark.slow
def test_an_erasure_removes_every_row_of_a_person_and_no_other(migrated, people):
    before = mentions(migrated, BOB)
    foreseen = planned(migrated)
    assert foreseen.obstacles == ()
    assert ANA in str(migrated.execute("SELECT id FROM users"))

    certificate = erased(migrated)

    assert mentions(migrated, EMAIL) == {}
    assert mentions(migrated, ANA) == {"auth_group": 1, "fly2any_accesses": 1}
    assert (certificate["person"], certificate["state"], EMAIL in str(certificate)) == (ANA, "committed", False)
    assert certificate["removed"] == foreseen.removed
    assert certificate["removed"]["users"] == 1
    assert {"user_activities", "verification_tokens", "ai_messages", "axes_accessattempt"} <= certificate["removed"].keys()
    assert {(place["table"], place["column"], place["holds"]) for place in certificate["remaining"]} == {
        ("auth_group", "name", "id"),
        ("fly2any_accesses", "person_id", "id"),
    }
    assert [place.table for place in foreseen.remaining] == ["auth_group", "fly2any_accesses"]
    assert mentions(migrated, BOB) == before
    with pytest.raises(
        Refusal, match=f"No person has the e-mail address or the ID {EMAIL}: check the spelling, or search in the admin"
    ):
        erased(migrated)


def test_log_entries_of_others_no_longer_name_the_person(migrated, people):
    migrated.execute("UPDATE django_admin_log SET user_id = 'u-beta'")
    migrated.execute("UPDATE django_admin_log SET object_repr = 'ana@before.example' WHERE object_id = 'u-alpha'")

    certificate = erased(migrated)

    assert certificate["cleared"] == {"django_admin_log": 1}
    assert ("(erased)",) in migrated.execute("SELECT object_repr FROM django_admin_log")
    assert mentions(migrated, EMAIL) == {}


def test_staff_unknown_ambiguous_and_undecodable_addresses_are_refused(migrated, people):
    migrated.execute("UPDATE users SET \"isStaff\" = true WHERE id = 'u-beta'")
    migrated.execute(
        "INSERT INTO users (id, email, \"updatedAt\") VALUES ('ana2', 'ana.silva@example.com', now()), ('eve', 'ana2', now()), ('self', 'self', now())"
    )
    refusals = {
        "bob@example.com": "bob@example.com is a staff account: remove its staff status in the admin first.",
        "x": "No person has the e-mail address or the ID x: check the spelling, or search in the admin.",
        "ana2": "ana2 is the ID of one person (e-mail address: ana.silva@example.com) and the e-mail address of another (ID: eve): give an ID or"
        " address that only one of them has, or open the person in the admin.",
        "ANA.SILVA@example.com": "2 people have the e-mail address ANA.SILVA@example.com in different spellings: give the exact spelling of one of them.",
        "\udcff@example.com": "The e-mail address is not valid UTF-8: check the terminal's encoding.",
        "x\0@example.com": "The e-mail address contains a NUL character: correct it.",
    }

    said = {}
    for email in refusals:
        with pytest.raises(Refusal) as refusal:
            erased(migrated, email)
        said[email] = str(refusal.value)

    assert said == refusals
    erased(migrated)
    erased(migrated, "self")
    assert migrated.execute("SELECT id FROM users ORDER BY id") == [("ana2",), ("eve",), (BOB,)]


def test_an_argument_in_another_encoding_is_reported_in_one_sentence(migrated, tmp_path):
    output = os.fsdecode(os.fsencode(tmp_path) + b"/\xff/x")

    answers = [
        manage("dbperson", "erase", os.fsdecode(b"ana\xe9@example.com"), "--yes", url=migrated.url),
        manage("dbperson", "erase", EMAIL, "--yes", "--output", output, url=migrated.url),
    ]

    assert [(answer.returncode, answer.stdout, answer.stderr.count("\n")) for answer in answers] == [(2, "", 1)] * 2


def test_nothing_is_erased_where_the_certificate_cannot_be_written(migrated, people, tmp_path):
    (tmp_path / "there").touch()
    sentences = {
        tmp_path / "there": f"{tmp_path}/there already exists: name a new file.",
        tmp_path / "no" / "where": f"{tmp_path}/no/where cannot be written (No such file or directory): name another file.",
        Path("/dev"): "/dev already exists: name a new file.",
    }

    for path, sentence in sentences.items():
        with pytest.raises(Refusal) as refusal:
            File(path)
        assert str(refusal.value) == sentence
    answer = manage("dbperson", "erase", EMAIL, "--yes", "--output", "/dev", url=migrated.url)

    assert (answer.returncode, answer.stderr) == (2, "/dev already exists: name a new file.\n")
    assert migrated.execute("SELECT count(*) FROM users") == [(2,)]


def test_a_full_disk_stops_the_erasure_and_leaves_no_certificate(migrated, people, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with django(migrated) as connection:
        person = find(connection, EMAIL)
        keeper = File(tmp_path / "certificate.json")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
        try:
            with pytest.raises(Refusal) as full:
                erase(connection, person, keeper)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert str(full.value) == f"{tmp_path}/certificate.json cannot be written (File too large): name another file."
    assert list(tmp_path.iterdir()) == []
    assert migrated.execute("SELECT count(*) FROM users") == [(2,)]


def test_an_export_that_does_not_fit_on_the_disk_is_reported_and_leaves_no_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(Refusal) as full:
            write_new(tmp_path / "export.json", lambda stream: stream.write("x" * 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert str(full.value) == f"{tmp_path}/export.json cannot be written (File too large): name another file."
    assert list(tmp_path.iterdir()) == []


def test_files_are_new_and_complete_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "export.json"

    def beside(stream):
        (tmp_path / "taken.json").write_text("another's")
        stream.write("ours")

    write_new(path, lambda stream: stream.write("whole"))
    with pytest.raises(Refusal) as taken:
        write_new(tmp_path / "taken.json", beside)

    assert str(taken.value) == f"{tmp_path}/taken.json already exists: name a new file."
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"export.json": "whole", "taken.json": "another's"}
    assert f"{path.stat().st_mode & 0o777:o}" == "600"


def test_a_full_output_stops_the_erasure(migrated, people):
    full = open("/dev/full", "w")  # noqa: SIM115  Closing it fails, too.
    with django(migrated) as connection:
        person = find(connection, EMAIL)
        with pytest.raises(OSError, match="No space left on device"):
            erase(connection, person, Stream(full))
    with suppress(OSError):
        full.close()

    assert migrated.execute("SELECT count(*) FROM users") == [(2,)]


def test_a_certificate_says_committed_only_after_the_commit(migrated, people, tmp_path):
    path = tmp_path / "certificate.json"
    seen = {}

    class Watched(File):
        def confirm(self):
            seen["before"] = json.loads(path.read_text())
            super().confirm()

    with django(migrated) as connection:
        certificate = erase(connection, find(connection, EMAIL), Watched(path))

    seen["after"] = json.loads(path.read_text())
    assert (seen["before"].pop("state"), seen["after"].pop("state")) == ("pending", "committed")
    assert seen["before"] == seen["after"] == json.loads(certificate.as_json())
    assert migrated.execute("SELECT pg_xact_status(%s::text::xid8)", [certificate.transaction]) == [("committed",)]
    assert [one.name for one in tmp_path.iterdir()] == ["certificate.json"]
    assert f"{path.stat().st_mode & 0o777:o}" == "600"


def test_rows_with_an_address_that_differs_only_in_case_belong_to_another_person(migrated):
    for identity, email in (("cl_upper_case_0001", "Ann@example.com"), ("cl_lower_case_0001", "ann@example.com")):
        migrated.execute('INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())', [identity, email])
        migrated.execute(
            "INSERT INTO verification_tokens (identifier, token, expires) VALUES (%s, %s, now())", [email, f"t{email}"]
        )
    migrated.execute(
        "INSERT INTO django_admin_log (action_time, user_id, object_repr, action_flag, change_message)"
        " VALUES (now(), 'cl_lower_case_0001', 'ann@example.com and Ann@example.com', 2, '')"
    )

    tables = exported(migrated, "Ann@example.com")
    certificate = erased(migrated, "Ann@example.com")

    assert [row["identifier"] for row in tables["verification_tokens"]] == ["Ann@example.com"]
    assert certificate["removed"]["verification_tokens"] == 1
    assert migrated.execute("SELECT identifier FROM verification_tokens") == [("ann@example.com",)]
    assert migrated.execute("SELECT object_repr FROM django_admin_log") == [("ann@example.com and (erased)",)]
    assert migrated.execute("SELECT email FROM users") == [("ann@example.com",)]


def test_an_erasure_refuses_while_a_restore_is_to_replace_the_database(two):
    restored = f"{two.name}_restored_1"
    two.execute(f"CREATE ROLE {two.name}_other")
    two.execute(f"CREATE DATABASE {restored}")
    try:
        with django(two) as connection:
            mark(connection, restored, RESTORE)
        with pytest.raises(
            Refusal, match=rf"^Nothing was changed\. A restore of this database is running, into {restored}, and will "
        ):
            erased(two)
        two.execute(f"ALTER DATABASE {restored} OWNER TO {two.name}_other")
        assert erased(two)["removed"]["users"] == 1  # Any role may mark a database of its own.
    finally:
        two.execute(f"DROP DATABASE {restored}")
        two.execute(f"DROP ROLE {two.name}_other")


def test_a_second_erasure_at_the_same_time_is_refused_at_once(two):
    said = r"^Nothing was changed\. The erasure lock is held by pid \d+ .*: try again when it is released\.$"
    with open_transaction(two, f"SELECT pg_advisory_xact_lock({ERASURE_LOCK})"), pytest.raises(Refusal, match=said):
        erased(two)

    assert erased(two)["removed"]["users"] == 1


def test_an_address_that_only_looks_alike_is_another_person(migrated):
    migrated.execute(
        """INSERT INTO users (id, email, "updatedAt") VALUES ('k', '\u212aate@example.com', now())"""
    )  # The Kelvin sign.
    with django(migrated) as connection:
        with pytest.raises(Refusal, match=r"^No person has the e-mail address or the ID kate@example\.com: "):
            find(connection, "kate@example.com")
        migrated.execute("""INSERT INTO users (id, email, "updatedAt") VALUES ('a', 'kate@example.com', now())""")
        assert find(connection, "Kate@Example.com") == Person("a", "kate@example.com", has_twin=True)


def test_a_person_is_found_by_id_too(two):
    two.execute(
        "INSERT INTO users (id, email, \"updatedAt\") VALUES ('u-3', 'x@example.com', now()), ('u-4', %s, now())",
        [EMAIL.upper()],
    )

    with django(two) as connection:
        found = [find(connection, word) for word in (ANA, "u-3")]

    assert found == [Person(ANA, EMAIL, has_twin=True), Person("u-3", "x@example.com")]
