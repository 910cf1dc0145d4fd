"""Everything that is held about a person is given out, and erased: proved on every table that has a word about them."""

import json
import re
from pathlib import Path

import pytest

from fly2any.database.catalog import read_catalog
from fly2any.database.person import WITHOUT_KEY
from fly2any.database.roles import SECRETS
from tests.conftest import django, manage

EMAIL = "Ana.Silva@Example.com"
CANARY = "canary-9f3a"
ANA, BOB = "u-alpha", "u-beta"


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


def fill(database, catalog, identity, email, number):
    """Put a row into each table that hangs on users, and into those that know a person without a foreign key."""
    made, todo = {"users": identity}, ["users"]
    for table, (column, what) in WITHOUT_KEY.items():
        made[table] = insert(database, catalog, table, {column: identity if what == "id" else email.upper()}, number)
        todo.append(table)
    while todo:
        parent = todo.pop(0)
        for key in catalog.foreign_keys:
            if key.target == parent and key.table not in made and key.table != parent:
                made[key.table] = insert(database, catalog, key.table, {key.columns[0]: made[parent]}, number)
                todo.append(key.table)
    admin_log = {"user_id": identity, "object_id": identity, "object_repr": email, "content_type_id": content_type(database)}
    insert(database, catalog, "django_admin_log", admin_log, number)


def content_type(database):
    return database.execute("SELECT id FROM django_content_type WHERE app_label = 'accounts' AND model = 'user'")[0][0]


def insert(database, catalog, table, values, number):
    """Insert a row with something in each column that must have something; return its primary key."""
    wanted = {column.name: column for column in catalog.columns if column.table == table}
    unique = f"{number}-{table}"
    for name, column in wanted.items():
        if name in values or (column.nullable and name not in SECRETS.get(table, ())) or column.default or column.identity:
            continue
        kind = column.type
        text = CANARY + unique if name in SECRETS.get(table, ()) else unique[:36]
        references = next((key for key in catalog.foreign_keys if key.table == table and key.columns == (name,)), None)
        if references:
            [(values[name],)] = database.execute(f'SELECT max("{references.target_columns[0]}") FROM "{references.target}"')
        elif re.match("timestamp", kind):
            values[name] = "2026-05-01T00:00:00Z"
        elif kind in ("integer", "bigint", "smallint", "double precision", "numeric"):
            values[name] = number + 1
        elif kind == "boolean":
            values[name] = True
        elif kind in ("jsonb", "json"):
            values[name] = "{}"
        elif kind == "inet":
            values[name] = "192.0.2.1"
        elif kind == "bytea":
            values[name] = unique.encode()
        elif kind.endswith("[]"):
            values[name] = []
        else:
            length = re.search(r"\((\d+)\)", kind)
            values[name] = text[: int(length[1])] if length else text
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(["%s"] * len(values))
    key = next(key.columns[0] for key in catalog.keys if key.table == table and key.primary)
    [(made,)] = database.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks}) RETURNING "{key}"', list(values.values()))
    return made


def mentions(database, word):
    """The tables in which `word` stands anywhere, with how many rows."""
    tables = [name for (name,) in database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")]
    counts = {
        name: database.execute(f'SELECT count(*) FROM "{name}" AS t WHERE t::text ILIKE %s', [f"%{word}%"])[0][0]
        for name in tables
    }
    return {name: count for name, count in counts.items() if count}


def test_everything_about_a_person_is_given_out_without_secrets_and_nobody_elses(migrated, people, tmp_path):
    path = tmp_path / "ana.json"

    result = manage("dbperson", "export", EMAIL.lower(), "--output", str(path), url=migrated.url)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    held = json.loads(path.read_text())
    assert (held["person"], f"{path.stat().st_mode & 0o777:o}") == ({"id": ANA, "email": EMAIL}, "600")
    counts = {table: len(rows) for table, rows in held["tables"].items() if rows}
    expected = mentions(migrated, ANA) | mentions(migrated, EMAIL)
    below = {"ai_messages", "django_otp_webauthn_webauthnattestation", "otp_static_statictoken", "axes_accessattemptexpiration"}
    assert counts.keys() >= {*expected, *below} - {"auth_group", "auth_permission", "django_content_type"}
    assert len(counts) >= 25
    assert CANARY not in path.read_text()
    assert BOB not in path.read_text()
    assert manage("dbperson", "export", EMAIL, url=migrated.url).stdout.count("\n") == path.read_text().count("\n")


def test_an_erasure_removes_every_row_of_a_person_and_no_other(migrated, people):
    before = mentions(migrated, BOB)
    planned = manage("dbperson", "erase", EMAIL, url=migrated.url)
    assert (planned.returncode, planned.stdout.startswith("Nothing was changed. --yes erases these rows")) == (0, True)
    assert ANA in str(migrated.execute("SELECT id FROM users"))

    result = manage("dbperson", "erase", EMAIL, "--yes", url=migrated.url)

    assert (result.returncode, result.stderr) == (0, "")
    certificate = json.loads(result.stdout)
    assert mentions(migrated, EMAIL) == {}
    assert mentions(migrated, ANA) == {"auth_group": 1, "fly2any_accesses": 1}
    assert (certificate["person"], certificate["kept"], EMAIL in result.stdout) == (ANA, {"fly2any_accesses": 1}, False)
    assert certificate["removed"]["users"] == 1
    assert {"user_activities", "verification_tokens", "ai_messages", "axes_accessattempt"} <= certificate["removed"].keys()
    assert mentions(migrated, BOB) == before
    again = manage("dbperson", "erase", EMAIL, "--yes", url=migrated.url)
    assert (again.returncode, again.stderr) == (
        2,
        f"Nobody has the e-mail address {EMAIL}: correct it, or look in the admin.\n",
    )


def test_what_others_did_to_them_no_longer_names_them(migrated, people):
    migrated.execute("UPDATE django_admin_log SET user_id = 'u-beta'")

    certificate = json.loads(manage("dbperson", "erase", EMAIL, "--yes", url=migrated.url).stdout)

    assert certificate["unnamed"] == 1
    assert ("(erased)",) in migrated.execute("SELECT object_repr FROM django_admin_log")
    assert mentions(migrated, EMAIL) == {}


def test_staff_nobody_and_several_are_refused(migrated, people):
    migrated.execute("UPDATE users SET \"isStaff\" = true WHERE id = 'u-beta'")
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('ana2', 'ana.silva@example.com', now())")

    answers = [
        manage("dbperson", "erase", email, "--yes", url=migrated.url)
        for email in ("bob@example.com", "x", "ANA.SILVA@example.com")
    ]

    assert [(answer.returncode, answer.stdout, answer.stderr.count("\n")) for answer in answers] == [(2, "", 1)] * 3
    assert "one of the staff" in answers[0].stderr
    assert "2 people have the e-mail address" in answers[2].stderr
    assert manage("dbperson", "erase", EMAIL, "--yes", url=migrated.url).returncode == 0
    assert migrated.execute("SELECT id FROM users ORDER BY id") == [("ana2",), (BOB,)]


def test_nothing_is_erased_where_the_certificate_cannot_be_written(migrated, people, tmp_path):
    (tmp_path / "there").touch()

    answers = [
        manage("dbperson", "erase", EMAIL, "--yes", "--output", str(path), url=migrated.url)
        for path in (tmp_path / "there", tmp_path / "no" / "where", Path("/dev"))
    ]

    assert [(answer.returncode, answer.stderr.count("\n")) for answer in answers] == [(2, 1)] * 3
    assert migrated.execute("SELECT count(*) FROM users") == [(2,)]


def test_a_foreign_key_that_keeps_rows_stops_the_erasure(migrated, people):
    migrated.execute('ALTER TABLE "users" DISABLE TRIGGER ALL')

    result = manage("dbperson", "erase", EMAIL, "--yes", url=migrated.url)

    assert (result.returncode, "Rows of the person would stay in" in result.stderr) == (2, True)
    assert migrated.execute("SELECT count(*) FROM users") == [(2,)]
