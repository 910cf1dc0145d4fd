"""Hashing tables by COPY, which runs no code of other roles."""

import dataclasses
from contextlib import suppress

import pytest
from django.db import Error as DatabaseError
from django.db import transaction
from psycopg import OperationalError
from psycopg.errors import DivisionByZero

from fly2any.database.backup.inventory import backups
from fly2any.database.backup.restore import compare
from fly2any.database.backup.row_hashes import BY_COPY, BY_SELECT, Content, differences, read_contents, rows_of
from fly2any.database.backup.store import Folder, store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.migration.advisory_locks import MIGRATION_LOCK
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import RecordedProgress
from tests.servers import Database, open_transaction, wait_until

# The index's function is evaluated by the planner of any SELECT, as the role that selects.
BAIT = """
    CREATE TABLE armed ();
    CREATE FUNCTION trap(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
        AS $$ BEGIN IF EXISTS (SELECT FROM public.armed) THEN RAISE 'ran as %', current_user; END IF; RETURN $1; END $$;
    CREATE TABLE bait (id int);
    CREATE INDEX ON bait (trap(7), id);
    INSERT INTO bait VALUES (1);
    INSERT INTO armed DEFAULT VALUES
"""


def contents(connection, **options):
    with transaction.atomic(using=connection.alias):
        found = read_contents(connection, lambda table, percent: None, **options)
    return {name.replace('"', "").removeprefix("public."): content for name, content in found.items()}


def test_each_way_in_which_tables_differ_is_a_clause():
    expected = {"same": Content(2, "5"), "changed": Content(2, "5"), "fewer": Content(2, "5"), "gone": Content(0, "0")}
    found = {"same": Content(2, "5"), "changed": Content(2, "6"), "fewer": Content(1, "5"), "new": Content(0, "0")}

    assert differences(expected, found, {}) == [
        "gone is missing", "new is not in the backup", "changed has different rows", "fewer has 1 row instead of 2",
    ]  # fmt: skip
    assert differences(expected, expected, {}) == []


def test_taking_a_backup_runs_no_code_of_the_tables(migrated, place):
    migrated.execute(BAIT)

    with django(migrated) as connection:
        manifest = take(connection, Folder(place), Progress())

    assert manifest.tables['"public"."bait"'].rows == 1


@pytest.mark.slow
def test_a_restore_does_not_trust_a_role_that_may_have_created_users_first(migrated, place):
    role = f"{migrated.name}_mallory"
    migrated.execute(
        f"CREATE ROLE {role}; GRANT CREATE ON DATABASE {migrated.name} TO {role}; ALTER TABLE users OWNER TO {role}"
    )
    with django(migrated) as connection:
        anybody = take(connection, Folder(place), Progress()).trusted
        migrated.execute(f"GRANT CREATE ON SCHEMA public TO {role} WITH GRANT OPTION")
        given = take(connection, Folder(place), Progress()).trusted
    migrated.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}")

    assert (anybody, given) == (("postgres",), (role, "postgres"))


MEMBERS = {
    "ALTER EXTENSION pg_trgm ADD TABLE price_history": ("public.price_history", "TABLE"),
    "ALTER TABLE price_history RENAME TO plain; CREATE TABLE price_history (LIKE plain) PARTITION BY RANGE (timestamp);"
    " CREATE SCHEMA parts; CREATE TABLE parts.p2026 PARTITION OF price_history DEFAULT;"
    " ALTER EXTENSION pg_trgm ADD TABLE parts.p2026": ("parts.p2026", "TABLE"),
    "ALTER EXTENSION pg_trgm ADD SEQUENCE auth_group_id_seq": ("public.auth_group_id_seq", "SEQUENCE"),
}


@pytest.mark.parametrize("done", MEMBERS, ids=["table", "partition", "sequence"])
def test_a_backup_is_refused_if_an_extension_owns_a_table_of_ours(migrated, place, done):
    name, kind = MEMBERS[done]
    migrated.execute(done)

    with django(migrated) as connection, pytest.raises(Refusal) as refused:
        take(connection, store_at(place), Progress())

    assert str(refused.value) == (
        f"{name} is a member of the extension pg_trgm, so pg_dump leaves it out, and no backup was taken."
        f' Remove it from the extension: ALTER EXTENSION "pg_trgm" DROP {kind} {name};'
    )
    assert backups(store_at(place)).manifests == ()


def test_rows_of_extensions_that_are_not_backed_up_are_named(migrated, place):
    migrated.execute("CREATE TABLE side AS SELECT 1 AS n; ALTER EXTENSION pg_trgm ADD TABLE side")
    recorded = RecordedProgress()

    with django(migrated) as connection:
        take(connection, store_at(place), recorded)

    assert recorded.sentences == [
        "Not in the backup: the rows of public.side of pg_trgm, because pg_dump leaves out the tables of an extension."
    ]


@pytest.mark.slow
def test_options_of_user_mappings_that_are_not_backed_up_are_named(migrated, place):
    role, plain, of_superuser = f"{migrated.name}_plain", RecordedProgress(), RecordedProgress()
    migrated.execute(
        f"CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}; CREATE FOREIGN DATA WRAPPER far; CREATE SERVER north FOREIGN DATA WRAPPER far;"
        " CREATE SERVER south FOREIGN DATA WRAPPER far; CREATE USER MAPPING FOR PUBLIC SERVER north OPTIONS (password 'x');"
        f" CREATE USER MAPPING FOR postgres SERVER south OPTIONS (password 'x'); GRANT USAGE ON FOREIGN SERVER south TO {role};"
        f" CREATE USER MAPPING FOR {role} SERVER south OPTIONS (password 'x')"
    )
    try:
        with django(dataclasses.replace(migrated, user=role)) as connection:
            take(connection, store_at(place), plain)
        with django(migrated) as connection:
            take(connection, store_at(place), of_superuser)
    finally:
        migrated.execute(f"DROP FOREIGN DATA WRAPPER far CASCADE; DROP OWNED BY {role}; DROP ROLE {role}")

    assert plain.sentences == [
        "Not in the backup: the options of user mappings, such as a password, which this role cannot see (public for north, postgres for"
        " south). Keep them elsewhere, or take the backup as a superuser."
    ]
    assert of_superuser.sentences == []


@pytest.mark.slow
def test_a_backup_of_a_standby_lacks_the_rows_of_unlogged_tables(own_server, tmp_path_factory, place):
    primary = own_server()
    primary.execute(
        "CREATE TABLE users (id int); CREATE UNLOGGED TABLE plain AS SELECT 1 AS n; CREATE UNLOGGED SEQUENCE numbers"
    )
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    database = Database(str(standby.home / "data"), str(standby.port), "postgres", "", "fly2any")
    recorded = RecordedProgress()
    try:
        primary.execute("INSERT INTO users VALUES (1)")
        wait_until(database, "SELECT 1 FROM users")
        with django(database) as connection:
            manifest = take(connection, store_at(place), recorded)
            primary.execute("CREATE SCHEMA parts; DROP TABLE users; CREATE TABLE users (id int) PARTITION BY LIST (id)")
            primary.execute("CREATE UNLOGGED TABLE parts.one PARTITION OF users DEFAULT")
            wait_until(database, "SELECT 1 FROM pg_class WHERE relname = 'one'")
            with pytest.raises(Refusal) as refused:
                take(connection, store_at(place), Progress())
    finally:
        standby.remove()

    assert {name: content.rows for name, content in manifest.tables.items()} == {'"public"."plain"': 0, '"public"."users"': 1}
    assert recorded.sentences == ["Not in the backup: the rows of public.plain, because a standby has none of UNLOGGED tables."]
    assert str(refused.value) == (
        "parts.one is UNLOGGED, and this server is a standby, which has none of its rows, so no backup was taken: take it on the"
        " primary, or run there: ALTER TABLE parts.one SET LOGGED;"
    )


def test_a_function_that_relies_on_the_search_path_prevents_no_backup(migrated, place):
    migrated.execute("CREATE FUNCTION plain(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT lower($1) || 'x' $$")
    make = "CREATE OR REPLACE FUNCTION folded(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT {}plain($1) $$"
    migrated.execute(make.format("public."))
    migrated.execute("CREATE TABLE words (word text); CREATE INDEX ON words (folded(word)); INSERT INTO words VALUES ('Ä')")
    migrated.execute(make.format(""))  # From PostgreSQL 17 on, indexes are built with another search path.

    with django(migrated) as connection:
        take(connection, Folder(place), Progress())

    assert len(backups(Folder(place)).manifests) == 1


@pytest.mark.slow
def test_rows_in_other_hash_partitions_after_a_restore_are_equal(migrated, place):
    """Enums are hashed by the OIDs of their labels, which differ in a restored database."""
    make = f"""
        CREATE TYPE mood AS ENUM ({", ".join(f"'{number}'" for number in range(20))});
        CREATE TABLE moods (mood mood, note text) PARTITION BY LIST (note);
        CREATE TABLE moods_a PARTITION OF moods FOR VALUES IN ('a') PARTITION BY HASH (mood);
        CREATE TABLE moods_a_0 PARTITION OF moods_a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE moods_a_1 PARTITION OF moods_a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE moods_b PARTITION OF moods FOR VALUES IN ('b');
        INSERT INTO moods SELECT unnest(enum_range(NULL::mood)), 'a'; INSERT INTO moods VALUES ('1', 'b')
    """
    migrated.execute(make)
    with django(migrated) as connection:
        manifest = take(connection, Folder(place), Progress())
        migrated.execute(f"DROP TABLE moods; DROP TYPE mood; {make}")
        same = compare(connection, manifest, Progress())
        migrated.execute("DELETE FROM moods WHERE mood = '7'")
        fewer = compare(connection, manifest, Progress())

    assert (same, fewer) == ("", '"public"."moods" has 19 rows instead of 20')


@pytest.mark.slow
def test_hashes_do_not_depend_on_the_connected_role(migrated, place):
    """As in a backup during a migration, whose lock no session holds in the restored database."""
    migrated.execute(
        "DELETE FROM django_migrations WHERE app = 'ai_consultant' AND name = '0004_roles';"
        " INSERT INTO fly2any_migration_runs (migration, direction, started, person, code)"
        " VALUES ('ai_consultant.0004_roles', 'forwards', now(), '', '')"
    )
    with django(migrated) as connection:
        with open_transaction(migrated, f"SELECT pg_advisory_lock({MIGRATION_LOCK})"):
            manifest = take(connection, Folder(place), Progress())
        later = compare(connection, manifest, Progress())
        migrated.execute('DROP INDEX "price_history_origin_destination_departDate_idx"')
        without = compare(connection, manifest, Progress())

    assert (manifest.findings, later) == ((), "")
    assert without == "dbstatus finds index.missing at price_history.price_history_origin_destination_departDate_idx"


@pytest.mark.slow
def test_a_missing_column_may_look_renamed_after_a_restore(migrated, place):
    """The gap that a dropped column leaves in attnum is gone."""
    migrated.execute("ALTER TABLE price_history DROP COLUMN provider, ADD COLUMN provider2 text NOT NULL")
    with django(migrated) as connection:
        manifest = take(connection, Folder(place), Progress())
        migrated.execute("CREATE TABLE copy (LIKE price_history INCLUDING ALL)")
        migrated.execute("DROP TABLE price_history; ALTER TABLE copy RENAME TO price_history")
        found = compare(connection, manifest, Progress())

    assert ("column.missing at price_history.provider" in manifest.findings, "column" in found) == (True, False)


def test_a_hash_does_not_depend_on_the_order_of_rows_and_columns(database):
    database.execute("CREATE TABLE a (x int, y text); INSERT INTO a VALUES (1, 'one'), (2, NULL), (2, NULL)")
    database.execute("CREATE TABLE b (y text, x int, gone int, made int GENERATED ALWAYS AS (x + 1) STORED)")
    database.execute("ALTER TABLE b DROP gone; INSERT INTO b (x, y) VALUES (2, NULL), (1, 'one'), (2, NULL)")
    database.execute("CREATE TABLE c (x int, y text); INSERT INTO c VALUES (1, 'one'), (2, NULL)")
    database.execute("CREATE TABLE none (); INSERT INTO none DEFAULT VALUES")

    with django(database) as connection:
        found = contents(connection)

    assert found["a"] == found["b"]
    assert (found["a"].rows, found["c"].rows, found["none"].rows) == (3, 2, 1)
    assert found["a"].hash != found["c"].hash


@pytest.mark.slow
def test_an_earlier_manifest_is_compared_by_its_own_hash(filled, place):
    with django(filled) as connection:
        manifest = take(connection, Folder(place), Progress())
        with transaction.atomic(using=connection.alias):
            before = read_contents(connection, lambda table, percent: None, how=BY_SELECT)
        old = dataclasses.replace(manifest, tables=before, hashing=BY_SELECT)

        assert before.keys() == manifest.tables.keys()
        assert (before != manifest.tables, manifest.hashing) == (True, BY_COPY)
        assert compare(connection, old, Progress()) == compare(connection, manifest, Progress()) == ""


MANY = "SELECT repeat(chr(97 + i % 26), i % 5000) FROM generate_series(1, 20000) AS i"


def test_rows_of_a_copy_are_those_that_the_driver_reads_and_the_connection_is_free_again(database):
    with database.connect() as client, client.cursor() as cursor:
        with cursor.copy(f"COPY ({MANY}) TO STDOUT") as copy:
            usual = [bytes(row) for row in copy]
        with cursor.copy(f"COPY ({MANY}) TO STDOUT") as copy:
            found = [bytes(row) for row in rows_of(copy)]
        after = cursor.execute("SELECT 1").fetchall()

    assert found == usual
    assert (len(found), after) == (20000, [(1,)])


def test_an_error_in_the_middle_of_a_copy_is_raised_and_the_connection_is_free_again(database):
    with database.connect() as client, client.cursor() as cursor:
        seen = []
        with (
            pytest.raises(DivisionByZero),
            cursor.copy("COPY (SELECT 1 / (5 - i) FROM generate_series(1, 9) AS i) TO STDOUT") as copy,
        ):
            seen.extend(rows_of(copy))

        assert [bytes(row) for row in seen] == [b"0\n", b"0\n", b"0\n", b"1\n"]
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]


def test_an_abandoned_or_interrupted_copy_ends(database):
    with database.connect() as client, client.cursor() as cursor:
        with suppress(ZeroDivisionError), cursor.copy(f"COPY ({MANY}) TO STDOUT") as copy:
            next(rows_of(copy))
            raise ZeroDivisionError
        after = cursor.execute("SELECT 1").fetchall()
        with (
            pytest.raises(OperationalError),
            cursor.copy("COPY (SELECT pg_terminate_backend(pg_backend_pid())) TO STDOUT") as copy,
        ):
            list(rows_of(copy))

    assert after == [(1,)]


def test_rows_that_a_policy_hides_are_an_error(database):
    database.execute("CREATE TABLE t (x int); INSERT INTO t VALUES (1); ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    with database.role("GRANT SELECT ON t TO {role}", f"GRANT CONNECT ON DATABASE {database.name} TO {{role}}") as url:
        role = url.split("//")[1].split("@")[0]
        with django(dataclasses.replace(database, user=role)) as connection:
            connection.settings_dict["USER"] = role
            with pytest.raises(Exception, match="row-level security") as refused:
                contents(connection)

    assert refused.value.__cause__.sqlstate == "42501"


@pytest.mark.slow
def test_a_row_of_over_a_gigabyte_as_text_is_hashed(database):
    database.execute("CREATE TABLE big (t text); INSERT INTO big VALUES (repeat('\"', 540000000))")

    with django(database) as connection:
        assert contents(connection)["big"].rows == 1


@pytest.mark.slow
def test_the_holder_of_a_lock_that_a_backup_waits_for_is_named(migrated, place, monkeypatch):
    monkeypatch.setattr("fly2any.database.backup.take.LOCK_WAIT", 4000)
    migrated.execute("CREATE TABLE mine (a int)")
    recorded = RecordedProgress()
    with open_transaction(migrated, "LOCK TABLE mine IN ACCESS EXCLUSIVE MODE") as holder, django(migrated) as connection:
        pid = holder.info.backend_pid
        with pytest.raises((DatabaseError, Refusal)):
            take(connection, store_at(place), recorded)

    [sentence] = recorded.sentences
    assert sentence.startswith(f"Waiting for a lock on public.mine, held by pid {pid} (")
    assert sentence.endswith(f"; to end it: SELECT pg_terminate_backend({pid});")


def test_objects_of_other_roles_that_a_backup_cannot_read_are_named_with_the_cure(migrated, place):
    with migrated.role("GRANT USAGE ON SCHEMA public TO {role}", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
                       "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}") as url:  # fmt: skip
        role = f"{migrated.name}_role"
        migrated.execute(
            "CREATE SCHEMA m; CREATE TABLE m.secret (a int); CREATE SEQUENCE m.s; CREATE TABLE filtered (a int);"
            f"ALTER TABLE filtered ENABLE ROW LEVEL SECURITY; GRANT SELECT ON filtered TO {role}"
        )
        with django(dataclasses.replace(migrated, user=role)) as connection:
            with pytest.raises(Refusal) as refused:
                take(connection, store_at(place), Progress())
            migrated.execute(f"GRANT pg_read_all_data TO {role}; ALTER ROLE {role} BYPASSRLS")
            connection.close()
            assert "m.s" not in take(connection, store_at(place), Progress()).tables

    assert url
    assert str(refused.value) == (
        f"The role {role} cannot read 3 tables and sequences, so no backup was taken: m.s of postgres, m.secret of postgres,"
        f' public.filtered of postgres. As a superuser: GRANT pg_read_all_data TO "{role}"; ALTER ROLE "{role}" BYPASSRLS;'
    )


def test_a_role_that_inherits_no_privileges_is_told_how_to_get_them(migrated, place):
    role = f"{migrated.name}_role"
    with (
        migrated.role("ALTER ROLE {role} NOINHERIT", "GRANT pg_read_all_data TO {role}"),
        django(dataclasses.replace(migrated, user=role)) as connection,
    ):
        with pytest.raises(Refusal) as refused:
            take(connection, store_at(place), Progress())
        migrated.execute(str(refused.value).partition("As a superuser: ")[2])
        connection.close()
        assert take(connection, store_at(place), Progress()).state == "unverified"


@pytest.mark.parametrize(
    "cure", ["ALTER ROLE {0} SET lo_compat_privileges TO on;", "GRANT SELECT ON LARGE OBJECT 4242 TO {0};"]
)
def test_large_objects_that_a_backup_cannot_read_are_named_with_the_cure(migrated, place, cure):
    """Every role may create some, and pg_read_all_data does not include them."""
    role = f"{migrated.name}_role"
    with migrated.role("GRANT pg_read_all_data TO {role}", "ALTER ROLE {role} BYPASSRLS"):
        migrated.execute(
            f"SELECT lo_from_bytea(4242, 'x'), lo_create(4243), lo_create(4244); GRANT SELECT ON LARGE OBJECT 4243 TO PUBLIC;"
            f"ALTER LARGE OBJECT 4244 OWNER TO {role}"
        )
        with django(dataclasses.replace(migrated, user=role)) as connection:
            with pytest.raises(Refusal) as refused:
                take(connection, store_at(place), Progress())
            migrated.execute(cure.format(f'"{role}"'))
            connection.close()
            assert take(connection, store_at(place), Progress()).state == "unverified"

    assert cure.format(f'"{role}"') in str(refused.value)
    assert str(refused.value).startswith(
        f"The role {role} cannot read 1 large object, so no backup was taken: 4242 of postgres. As a "
    )
