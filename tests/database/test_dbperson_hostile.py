"""Erasures on databases with unusual objects: they report what they did, or refuse and change nothing."""

import dataclasses
import io
import json
import threading

import pytest

from fly2any.database.errors import Refusal
from fly2any.database.person import Stream, erase, export, find
from tests.conftest import django
from tests.database.people import ANA, BOB, EMAIL, erased, exported, mentions, planned, refused
from tests.servers import wait_until


def test_an_export_has_no_character_that_a_terminal_obeys(two):
    name = "\\\x9b31m\x7f\u202eAna\u2066"
    two.execute("CREATE TABLE theirs (note text, person text REFERENCES users ON DELETE CASCADE)")
    two.execute("UPDATE users SET name = %s WHERE id = %s", [name, ANA])
    two.execute("INSERT INTO theirs VALUES (%s, %s)", [name, ANA])

    with django(two) as connection:
        text = "".join(export(connection, find(connection, EMAIL)))

    tables = json.loads(text)["tables"]
    assert [tables["users"][0]["name"], tables["theirs"][0]["note"]] == [name] * 2
    assert [one for one in text if not one.isprintable() and one != "\n"] == []


@pytest.mark.slow
def test_keys_of_other_schemas_of_several_columns_and_to_the_address_are_followed(two):
    two.execute(
        "CREATE SCHEMA crm;"
        "ALTER TABLE users ADD CONSTRAINT both_key UNIQUE (id, email);"
        "CREATE TABLE crm.leads (id int PRIMARY KEY, email text REFERENCES users (email) ON UPDATE CASCADE ON DELETE CASCADE);"
        "CREATE TABLE crm.deals (who text, mail text, no int UNIQUE, FOREIGN KEY (who, mail) REFERENCES users (id, email) ON DELETE CASCADE);"
        "CREATE TABLE crm.lines (a int, b int REFERENCES crm.deals (no) ON DELETE CASCADE) PARTITION BY RANGE (a);"
        "CREATE TABLE crm.lines_1 PARTITION OF crm.lines FOR VALUES FROM (0) TO (10);"
        'CREATE TABLE "100% odd" ("%s" text REFERENCES users ON DELETE CASCADE, loop int UNIQUE, "to" int REFERENCES "100% odd" (loop) ON DELETE CASCADE);'
        f"INSERT INTO crm.leads VALUES (1, '{EMAIL}'), (2, 'bob@example.com');"
        f"INSERT INTO crm.deals VALUES ('{ANA}', '{EMAIL}', 1), ('{BOB}', 'bob@example.com', 2), ('{BOB}', NULL, 3);"
        "INSERT INTO crm.lines VALUES (1, 1), (2, 1), (3, 2);"
        f"INSERT INTO \"100% odd\" VALUES ('{ANA}', 1, 2), (NULL, 2, 1), ('{BOB}', 3, 3)"
    )
    expected = {"users": 1, "crm.leads": 1, "crm.deals": 1, "crm.lines": 2, "100% odd": 2}

    given, foreseen = exported(two), planned(two)
    certificate = erased(two)

    assert {name: len(rows) for name, rows in given.items()} == foreseen.removed == certificate["removed"] == expected
    assert two.execute(
        "SELECT (SELECT count(*) FROM crm.leads), (SELECT count(*) FROM crm.deals), (SELECT count(*) FROM crm.lines)"
    ) == [(1, 2, 1)]
    assert (mentions(two, EMAIL), mentions(two, ANA), certificate["remaining"]) == ({}, {}, [])


@pytest.mark.slow
def test_rows_that_only_lose_a_reference_are_not_reported_as_removed(two):
    two.execute(
        "CREATE TABLE reviews (id int, who text REFERENCES users ON DELETE SET NULL, body text);"
        "CREATE TABLE visits (id int, who text DEFAULT 'u-beta' REFERENCES users ON DELETE SET DEFAULT, body text);"
        f"INSERT INTO reviews VALUES (1, '{ANA}', 'write to {EMAIL.upper()}'), (2, '{BOB}', 'fine');"
        f"INSERT INTO visits VALUES (1, '{ANA}', 'came');"
    )

    given, foreseen = exported(two), planned(two)
    certificate = erased(two)

    assert certificate["removed"] == foreseen.removed == {"users": 1}
    assert certificate["changed"] == [
        {"table": "reviews", "constraint": "reviews_who_fkey", "action": "SET NULL", "columns": ["who"], "rows": 1},
        {"table": "visits", "constraint": "visits_who_fkey", "action": "SET DEFAULT", "columns": ["who"], "rows": 1},
    ]
    remaining = {
        "table": "reviews",
        "column": "body",
        "holds": "address",
        "rows": 1,
        "reason": "the foreign key reviews_who_fkey keeps the row (ON DELETE SET NULL)",
    }
    assert certificate["remaining"] == [remaining]
    assert [one.column for one in foreseen.remaining] == ["body"]
    assert [len(given[name]) for name in ("reviews", "visits")] == [1, 1]
    assert two.execute("SELECT id, who FROM reviews ORDER BY id") == [(1, None), (2, BOB)]


def test_an_erasure_that_would_delete_other_people_is_refused(two):
    two.execute(
        "CREATE TABLE teams (id int PRIMARY KEY, owner text REFERENCES users ON DELETE CASCADE);"
        "ALTER TABLE users ADD invited_by text REFERENCES users ON DELETE CASCADE, ADD team int REFERENCES teams ON DELETE CASCADE;"
        f"INSERT INTO teams VALUES (1, '{ANA}');"
        f"UPDATE users SET invited_by = '{ANA}', team = 1"
    )

    assert refused(two) == (
        "Nothing was changed. The foreign key users_invited_by_fkey of users (ON DELETE CASCADE) would delete 1 other person:"
        " change its action, or clear that reference. The foreign key users_team_fkey of users (ON DELETE CASCADE) would delete"
        " 1 other person: change its action, or clear that reference."
    )


@pytest.mark.parametrize("action", ["RESTRICT", "NO ACTION", "NO ACTION DEFERRABLE INITIALLY DEFERRED"])
def test_a_key_that_prevents_the_erasure_is_reported_in_advance(two, action):
    two.execute(
        f"CREATE TABLE invoices (who text CONSTRAINT invoices_who_fkey REFERENCES users ON DELETE {action});"
        f"INSERT INTO invoices VALUES ('{ANA}'), ('{ANA}')"
    )

    assert refused(two) == (
        "Nothing was changed. The foreign key invoices_who_fkey of invoices"
        f" (ON DELETE {action.partition(' DEFERRABLE')[0]}) prevents the erasure because of 2 rows: remove or change them first."
    )


def test_a_key_that_cannot_clear_its_column_is_reported_in_advance(two):
    two.execute(
        "CREATE TABLE notes (who text NOT NULL REFERENCES users ON DELETE SET NULL);" + f"INSERT INTO notes VALUES ('{ANA}')"
    )

    assert refused(two) == (
        "Nothing was changed. The foreign key notes_who_fkey (ON DELETE SET NULL) would clear notes.who, which is NOT NULL, in"
        " 1 row: change its action."
    )


def test_a_default_that_no_row_has_is_refused_without_row_data(two):
    two.execute(
        "CREATE TABLE notes (who text DEFAULT 'nobody' REFERENCES users ON DELETE SET DEFAULT);"
        f"INSERT INTO notes VALUES ('{ANA}')"
    )

    with pytest.raises(Refusal) as refusal:
        erased(two)

    assert str(refusal.value) == (
        "Nothing was changed. The constraint notes_who_fkey of public.notes prevents the erasure:"
        " change that constraint (the ON DELETE action of a foreign key), or remove the person's rows from that table first."
    )


def test_rows_that_are_removed_anyway_do_not_prevent_the_erasure(two):
    two.execute(
        "CREATE TABLE a_trips (id int PRIMARY KEY, who text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE b_stops (trip int REFERENCES a_trips ON DELETE RESTRICT, who text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE _stays (trip int REFERENCES a_trips ON DELETE RESTRICT, who text REFERENCES users ON DELETE CASCADE);"
        f"INSERT INTO a_trips VALUES (1, '{ANA}'); INSERT INTO b_stops VALUES (1, '{ANA}'); INSERT INTO _stays VALUES (1, '{ANA}')"
    )

    assert planned(two, searched=False).obstacles == ()
    assert erased(two)["removed"] == {"users": 1, "a_trips": 1, "b_stops": 1, "_stays": 1}


def test_a_trigger_that_keeps_rows_stops_the_erasure(two):
    two.execute(
        "CREATE TABLE notes (who text REFERENCES users ON DELETE CASCADE);"
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER keep BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION keep();"
        f"INSERT INTO notes VALUES ('{ANA}')"
    )

    with pytest.raises(Refusal, match="A trigger or a disabled foreign key keeps rows of the person in notes"):
        erased(two)

    assert two.execute("SELECT count(*) FROM users") == [(2,)]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("notes", 'SET phone = phone, "userId" = NULL WHERE id = OLD.id'),
        ("user_activities", 'SET "eventType" = \'deleted\', "userId" = NULL WHERE id = OLD.id'),
        ("user_activities", "SET \"eventType\" = 'deleted' WHERE ctid = OLD.ctid"),
    ],
)
def test_a_trigger_that_moves_rows_instead_of_deleting_stops_the_erasure(two, name, kept):
    two.execute(
        'CREATE TABLE notes (id int, "userId" text REFERENCES users ON DELETE CASCADE, phone text);'
        f"INSERT INTO notes VALUES (1, '{ANA}', '+49 170 123456');"
        f"INSERT INTO user_activities (id, \"userId\", \"eventType\") VALUES ('a', '{ANA}', 'search');"
        f"CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE {name} {kept}; RETURN NULL; END $$;"
        f"CREATE TRIGGER soft BEFORE DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION soft();"
    )

    with pytest.raises(Refusal, match=f"A trigger or a disabled foreign key keeps rows of the person in {name}"):
        erased(two)

    assert two.execute("SELECT count(*) FROM users") == [(2,)]


def test_rows_that_triggers_write_meanwhile_are_named(two):
    two.execute(
        "CREATE TABLE bin (phone text); CREATE TABLE notes (who text REFERENCES users ON DELETE CASCADE, phone text);"
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO bin VALUES (OLD.phone);"
        " INSERT INTO notes VALUES (NULL, OLD.phone); RETURN NULL; END $$;"
        "CREATE TRIGGER keep AFTER DELETE ON notes FOR EACH ROW EXECUTE FUNCTION keep();"
        f"INSERT INTO notes VALUES ('{ANA}', '+49 170 123456'), ('{ANA}', NULL), ('{BOB}', '1')"
    )

    certificate = erased(two)

    reason = "a trigger or a rule wrote these rows during the erasure: check whether they are about the person"
    assert certificate["removed"] == {"users": 1, "notes": 2}
    assert certificate["remaining"] == [
        {"table": name, "column": "", "holds": "written", "rows": 2, "reason": reason} for name in ("bin", "notes")
    ]


def test_a_trigger_that_deletes_other_people_stops_the_erasure(two):
    two.execute(
        "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM users; RETURN NULL; END $$;"
        "CREATE TRIGGER more AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION more();"
    )

    with pytest.raises(Refusal, match="A trigger would delete 1 other person: nothing was changed"):
        erased(two)

    assert two.execute("SELECT count(*) FROM users") == [(2,)]


def test_rows_are_counted_once_if_a_deletion_is_retried(two):
    two.execute(
        "CREATE TABLE a_trips (id int PRIMARY KEY, who text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE b_stops (trip int REFERENCES a_trips ON DELETE RESTRICT, who text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE c_lines (trip int REFERENCES a_trips ON DELETE CASCADE);"
        f"INSERT INTO a_trips VALUES (1, '{ANA}'); INSERT INTO b_stops VALUES (1, '{ANA}'); INSERT INTO c_lines VALUES (1)"
    )

    assert erased(two)["removed"] == {"users": 1, "a_trips": 1, "b_stops": 1, "c_lines": 1}


def test_rows_hidden_by_row_level_security_are_not_reported_as_none(two):
    two.execute(
        "CREATE TABLE notes (who text REFERENCES users ON DELETE CASCADE);"
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        f"INSERT INTO notes VALUES ('{ANA}')"
    )
    grants = ("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", "ALTER TABLE notes OWNER TO {role}")
    sentence = (
        f"Row-level security hides rows of notes from the role {two.name}_role: connect as a superuser or a role with BYPASSRLS,"
        " or as the table's owner after ALTER TABLE … NO FORCE ROW LEVEL SECURITY."
    )

    said = []
    with two.role(*grants) as url:
        ours = dataclasses.replace(two, user=f"{two.name}_role")
        for act in (erased, planned, exported):
            with pytest.raises(Refusal) as refusal:
                act(ours)
            said.append(str(refusal.value))
        two.execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
        with pytest.raises(Refusal) as refusal:
            exported(ours)
        two.execute(f"ALTER TABLE notes OWNER TO {two.user}")
    assert url
    assert said == [sentence] * 3
    assert str(refusal.value) == sentence.replace("of notes", "of users")
    assert two.execute("SELECT count(*) FROM users") == [(2,)]


def test_a_row_added_meanwhile_to_a_table_without_a_key_is_removed_too(two):
    insert = f"INSERT INTO user_activities (id, \"userId\", \"eventType\") VALUES ('late', '{ANA}', 'search')"
    waits = """SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database()
        AND NOT granted AND relation = 'user_activities'::regclass AND mode = 'ShareRowExclusiveLock'"""
    with two.connect() as site:
        site.execute("BEGIN")
        site.execute(insert)
        result = []
        thread = threading.Thread(target=lambda: result.append(erased(two, searched=False)))
        thread.start()
        wait_until(two, waits)
        site.execute("COMMIT")
        thread.join()

    assert [one["removed"] for one in result] == [{"users": 1, "user_activities": 1}]
    assert mentions(two, ANA) == {}


def test_a_person_whose_address_changes_meanwhile_is_not_erased(two):
    with django(two) as connection:
        person = find(connection, EMAIL)
        two.execute("UPDATE users SET email = 'ana@new.example' WHERE id = %s", [ANA])
        with pytest.raises(Refusal, match="The person was changed in the meantime: nothing was erased; try again"):
            erase(connection, person, Stream(io.StringIO()))

    assert two.execute("SELECT count(*) FROM users") == [(2,)]


def test_people_in_an_inheriting_table_are_other_people(two):
    two.execute(
        "CREATE TABLE guests (host text REFERENCES users ON DELETE CASCADE) INHERITS (users);"
        f"INSERT INTO guests (id, email, \"updatedAt\", host) VALUES ('guest', 'g@example.com', now(), '{ANA}')"
    )

    assert "The foreign key guests_host_fkey of guests (ON DELETE CASCADE) would delete 1 other person" in refused(two)


@pytest.mark.parametrize("crm", [False, True], ids=["tables of ours", "tables of another role"])
def test_an_export_leaves_out_rows_about_other_people_and_what_depends_on_them(two, crm):
    role = f"{two.name}_crm"
    two.execute(
        "CREATE TABLE tours (id int PRIMARY KEY, owner text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE members (id int PRIMARY KEY, tour int REFERENCES tours ON DELETE CASCADE, who text REFERENCES users ON DELETE SET NULL,"
        " phone text);"
        "CREATE TABLE payments (id int PRIMARY KEY, member int REFERENCES members ON DELETE CASCADE);"
        "CREATE TABLE letters (id int, sender text REFERENCES users ON DELETE CASCADE, receiver text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE bookings (id int, who text REFERENCES users ON DELETE CASCADE, tour int REFERENCES tours ON DELETE SET NULL);"
        "ALTER TABLE users ADD invited_by text REFERENCES users ON DELETE SET NULL;"
        f"INSERT INTO tours VALUES (1, '{ANA}'), (2, '{BOB}');"
        f"INSERT INTO members VALUES (1, 1, '{ANA}', '1'), (2, 1, '{BOB}', '2'), (3, 1, NULL, '3'), (4, 2, '{ANA}', '4');"
        "INSERT INTO payments VALUES (1, 1), (2, 2), (3, 3), (4, 4);"
        f"INSERT INTO letters VALUES (1, '{ANA}', '{BOB}'), (2, '{BOB}', '{ANA}');"
        f"INSERT INTO bookings VALUES (1, '{ANA}', 1), (2, '{BOB}', 1); UPDATE users SET invited_by = '{ANA}' WHERE id = '{BOB}'"
    )
    two.execute(f"CREATE ROLE {role}")
    try:
        for table in ("tours", "members", "payments", "bookings") if crm else ():
            two.execute(f"ALTER TABLE {table} OWNER TO {role}")
        with django(two) as connection:
            given = json.loads("".join(export(connection, find(connection, EMAIL))))
    finally:
        two.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}")

    held = {
        name: sorted(row["id"] if name == "users" else int(row["id"]) for row in rows) for name, rows in given["tables"].items()
    }
    assert held == {
        "users": [ANA], "tours": [1], "members": [1, 3, 4], "payments": [1, 3], "letters": [1, 2], "bookings": [1],
    }  # fmt: skip
    assert given["left_out"] == {"users": 1, "members": 1, "bookings": 1}
    assert planned(two).removed == {"users": 1, "tours": 1, "members": 3, "payments": 3, "letters": 2, "bookings": 1}
