"""Restores and roles: owners, code that runs, and settings that are copied."""

import dataclasses

import pytest
from django.db import connection, transaction

from fly2any.database.backup.properties import copy_grants, copy_properties, create, creation, literals
from fly2any.database.backup.restore import require_name, restore_into
from fly2any.database.backup.restore_connections import connection_to
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import read_roles, take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django, manage
from tests.database.taken import RecordedProgress, databases, rows, run

# One object of each kind that pg_dump dumps with its owner, created by the server's first role.
KINDS = (
    "CREATE TABLE t (a int)", "CREATE VIEW v AS SELECT 1", "CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE SEQUENCE s",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN END'",
    "CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)", "CREATE TYPE mood AS ENUM ('sad')", "CREATE TYPE pair AS (a int)",
    "CREATE DOMAIN code AS text", "CREATE TYPE span AS RANGE (subtype = date)", "CREATE TYPE later", "CREATE SCHEMA crm",
    "CREATE PUBLICATION everything", "CREATE OPERATOR @@@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)",
    "CREATE OPERATOR FAMILY many USING hash",
    "CREATE COLLATION plain (provider = libc, locale = 'C')", "CREATE CONVERSION c FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple)", "CREATE TEXT SEARCH CONFIGURATION search (COPY = english)",
    "CREATE FOREIGN DATA WRAPPER w", "SELECT lo_create(4242)", "CREATE LANGUAGE other HANDLER plpgsql_call_handler",
)  # fmt: skip
# An object of another role, and one of the first role that depends on it.
BESIDE = {
    "CREATE FOREIGN DATA WRAPPER w": "CREATE SERVER far FOREIGN DATA WRAPPER w",
    "CREATE SERVER far FOREIGN DATA WRAPPER w": "CREATE FOREIGN TABLE away (a int) SERVER far",
    "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'": "CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION seen()",
    "CREATE OPERATOR FAMILY many USING hash": "CREATE OPERATOR CLASS other FOR TYPE int4 USING hash FAMILY many AS OPERATOR 1 =",
    "CREATE TABLE t (a int, b int)": "CREATE STATISTICS both_columns ON a, b FROM t",
}


def owners_with(connection, *statements, tool=14):
    """The owners that a pg_dump of this version dumps after these statements, which are rolled back."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        owners = read_roles(connection, tool)["owners"]
        transaction.set_rollback(True, using=connection.alias)
    return owners


def test_the_owner_of_each_object_is_known_also_if_it_is_the_servers_first_role(database):
    """PostgreSQL records no dependency on that role."""
    role = f"{database.name}_owner"
    database.execute(f"CREATE ROLE {role} SUPERUSER")
    try:
        with django(database) as connection:
            assert {kind: owners_with(connection, kind) for kind in KINDS} == dict.fromkeys(KINDS, ("postgres",))
            for kind, beside in BESIDE.items():
                needed = ["CREATE FOREIGN DATA WRAPPER w"] if " SERVER far F" in kind else []
                theirs = [f"SET LOCAL ROLE {role}", *needed, kind]
                assert owners_with(connection, *theirs) == (role,)
                assert owners_with(connection, *theirs, "RESET ROLE", beside) == (role, "postgres"), beside
    finally:
        database.execute(f"DROP ROLE {role}")


def test_what_is_dumped_without_an_owner_names_none(database):
    """The members of extensions, the schema `public`, and what PostgreSQL creates beside a table or a type."""
    role = f"{database.name}_owner"
    database.execute(f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}")
    made = (
        "CREATE TYPE span AS RANGE (subtype = date); CREATE TYPE mood AS ENUM ('sad');"
        " CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number serial, long text)"
    )
    try:
        with django(database) as connection:
            for name in ("pg_stat_statements", "hstore", "pg_trgm", "postgres_fdw"):
                assert owners_with(connection, f"CREATE EXTENSION {name}") == ()
            assert owners_with(connection, f"SET LOCAL ROLE {role}", made, "RESET ROLE") == (role,)
            unassigned = (
                f"{made}; ALTER TABLE t OWNER TO {role}; ALTER TYPE span OWNER TO {role}; ALTER TYPE mood OWNER TO {role}"
            )
            assert owners_with(connection, unassigned) == (role,)
            public = "ALTER SCHEMA public OWNER TO postgres"
            assert [owners_with(connection, public, tool=tool) for tool in (14, 15)] == [(), ("postgres",)]
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.slow
def test_a_restore_gives_objects_back_to_their_owners_or_names_missing_roles(filled, place):
    role = f"{filled.name}_owner"
    filled.execute(f"CREATE ROLE {role} LOGIN; CREATE ROLE {role}_reads; ALTER TABLE notifications OWNER TO {role}")
    filled.execute(f"GRANT SELECT (email) ON users TO {role}_reads; ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    filled.execute(f"CREATE POLICY p ON users TO {role}_reads USING (true)")
    try:
        assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
        shown = run(filled, "dbrestore", "latest", place=place)  # The preview promises only what --yes does.
        assert (shown.returncode, f" would run code of {role} as this role: " in shown.stderr) == (2, True)
        assert run(filled, "dbrestore", "latest", "--yes", "--trust", role, place=place).returncode == 0
        owners = "SELECT tableowner FROM pg_tables WHERE tablename IN ('notifications', 'users') ORDER BY tablename"
        assert filled.execute(owners) == [(role,), ("postgres",)]
        assert filled.execute(f"SELECT has_column_privilege('{role}_reads', 'users', 'email', 'SELECT')") == [(True,)]
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')

        filled.execute(f"DROP POLICY IF EXISTS p ON users; DROP OWNED BY {role}_reads; DROP ROLE {role}_reads")
        refused = run(filled, "dbrestore", "latest", "--yes", place=place)
        assert (refused.returncode, refused.stderr) == (
            2,
            f'The backup names roles that do not exist on this server: run CREATE ROLE "{role}_reads" NOLOGIN; and the command again.\n',
        )
    finally:
        filled.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}; DROP ROLE IF EXISTS {role}_reads")


@pytest.mark.slow
def test_an_owner_who_is_no_superuser_backs_up_and_restores(filled, place):
    """Also what belongs to another role of which it is a member, as the role that migrates is made by dbroles."""
    role, other = f"{filled.name}_owner", f"{filled.name}_migrate"
    filled.execute(f"CREATE ROLE {role} LOGIN CREATEDB; ALTER DATABASE {filled.name} OWNER TO {role}")
    filled.execute(f"CREATE ROLE {other}; GRANT {other} TO {role}; GRANT CREATE ON SCHEMA public TO {other}")
    filled.give_tables(role)
    filled.execute(f"ALTER TABLE users OWNER TO {other}")
    # What a superuser or a provider sets: the limit of statements is shorter than creating or analysing this index takes.
    filled.execute(
        f"ALTER DATABASE {filled.name} SET log_min_duration_statement = '5s'; ALTER ROLE {other} IN DATABASE {filled.name} SET work_mem = '8MB';"
        f" ALTER ROLE {role} SET statement_timeout = '2s'; CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_catalog.pg_sleep(2.2); RETURN 1; END'; CREATE TABLE slow (id int); INSERT INTO slow VALUES (1);"
        f" ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {other};"
        f" CREATE INDEX ON slow (slow(id)); ALTER TABLE slow OWNER TO {role}; ALTER FUNCTION slow(int) OWNER TO {role}"
    )
    url = filled.url.replace("//postgres", f"//{role}")
    held = rows(filled)
    try:
        taken = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
        filled.execute("DELETE FROM users")
        restored = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)

        assert [(answer.returncode, answer.stderr) for answer in (taken, restored)] == [
            (0, ""),
            (
                0,
                "Default privileges for objects that postgres will create were not restored, because only postgres or a superuser may set them: run"
                " `manage.py dbroles` again, and its SQL as postgres.\n"
                + "".join(
                    f"The setting {name} was not copied (this role may not set it): after the restore, run ALTER {of} SET {name} TO … as a"
                    " role that may, with the value of the old database (\\drds in psql).\n"
                    for of, name in (
                        (f'DATABASE "{filled.name}"', "log_min_duration_statement"),
                        (f'ROLE "{other}" IN DATABASE "{filled.name}"', "work_mem"),
                    )
                ),
            ),
        ]
        assert rows(filled) == held
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY tableowner"
        assert filled.execute(owners) == [(other,), (role,)]
        assert filled.execute(f"SELECT has_schema_privilege('{other}', 'public', 'CREATE')") == [(True,)]
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')
    finally:
        filled.execute(
            f"REASSIGN OWNED BY {role}, {other} TO postgres; ALTER DATABASE {filled.name} OWNER TO postgres;"
            f"DROP OWNED BY {other}; DROP ROLE {role}, {other}"
        )


@pytest.mark.slow
def test_a_role_that_the_owner_created_is_named_before_the_restore(filled, place):
    """Its creator is no member of it, or from 16 on one that may neither give it objects nor set its default privileges."""
    role, site = f"{filled.name}_owner", f"{filled.name}_site"
    filled.execute(f"CREATE ROLE {role} LOGIN CREATEDB CREATEROLE BYPASSRLS; GRANT pg_read_all_data TO {role}")
    filled.execute(f"ALTER DATABASE {filled.name} OWNER TO {role}")
    filled.give_tables(role)
    as_owner = dataclasses.replace(filled, user=role)
    try:
        as_owner.execute(f"CREATE ROLE {site} LOGIN")
        filled.execute(f"GRANT CREATE ON SCHEMA public TO {site}")
        dataclasses.replace(filled, user=site).execute(
            f"CREATE TABLE trips (id text); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}"
        )
        assert manage("dbbackup", "--verify", url=as_owner.url, BACKUP_LOCATION=place).returncode == 0
        fully = " WITH INHERIT TRUE, SET TRUE" if connection.pg_version >= 160000 else ""
        grant = f'GRANT "{site}" TO "{role}"{fully};'
        restore = ["dbrestore", "latest", "--yes", "--trust", site]
        before = databases(filled)

        refused = manage(*restore, url=as_owner.url, BACKUP_LOCATION=place)
        unchanged = databases(filled)
        filled.execute(grant)
        restored = manage(*restore, url=as_owner.url, BACKUP_LOCATION=place)

        sentence = f"Objects in the backup belong to {site}, and this role cannot give objects to them: connect as a superuser, leave out their objects with --without {site}, or run {grant}\n"
        assert (refused.returncode, refused.stderr, unchanged) == (2, sentence, before)
        assert (restored.returncode, restored.stderr) == (0, "")
        assert filled.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'trips'") == [(site,)]
    finally:
        for name in databases(filled) - {filled.name}:
            if name.startswith(f"{filled.name}_"):
                filled.execute(f'DROP DATABASE "{name}"')
        filled.execute(f"REASSIGN OWNED BY {role}, {site} TO postgres; ALTER DATABASE {filled.name} OWNER TO postgres")
        filled.execute(f"DROP OWNED BY {role}, {site}; DROP ROLE {site}; DROP ROLE {role}")


@pytest.mark.slow
def test_code_of_other_roles_runs_as_the_restoring_role_only_if_it_trusts_them(migrated, place):
    role, name = f"{migrated.name}_mallory", f"{migrated.name}_copy"
    migrated.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA mal AUTHORIZATION {role}; CREATE ROLE {role}_trusted")
    migrated.execute(f"REVOKE CONNECT ON DATABASE {migrated.name} FROM PUBLIC; ALTER TABLE users OWNER TO {role}_trusted")
    migrated.execute(f"GRANT CREATE ON SCHEMA public TO {role}_trusted WITH GRANT OPTION")
    datacl = "SELECT ARRAY(SELECT a::text FROM unnest(datacl) AS a ORDER BY 1) FROM pg_database WHERE datname = %s"
    try:
        migrated.execute(
            "CREATE FUNCTION mal.is_fine(int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
            f" CREATE TABLE mal.checked (a int CHECK (mal.is_fine(a))); INSERT INTO mal.checked VALUES (1);"
            f" ALTER FUNCTION mal.is_fine(int) OWNER TO {role}"
        )
        with django(migrated) as connection:
            store = store_at(place)
            manifest = take(connection, store, Progress())
            with pytest.raises(Refusal, match=rf" would run code of {role} as this role: .* add --trust {role}\.$"):
                restore_into(connection, name, store, manifest, Progress())
            assert name not in databases(migrated)

            restore_into(connection, name, store, manifest, Progress(), trust=[role])
            with pytest.raises(Refusal, match="is the database in use: leave out --into"):
                require_name(connection, migrated.name)

        assert migrated.execute(datacl, [name]) == migrated.execute(datacl, [migrated.name])
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {name}")
        migrated.execute(
            f"REASSIGN OWNED BY {role}_trusted TO postgres; DROP OWNED BY {role}, {role}_trusted CASCADE; DROP ROLE {role}, {role}_trusted"
        )


EMPTY = (
    "The materialized view public.seen is empty, because it could not be refreshed (pg_restore exited with 1: could not execute query: ERROR: "
    ' unrecognized configuration parameter "app.tenant"): as its owner, run REFRESH MATERIALIZED VIEW.'
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "seen", "said"),
    [("a > 1", [(2,)], []), ("a > 1 AND current_setting('app.tenant') = 'x'", None, [EMPTY])],
    ids=["refreshed", "not refreshed"],
)
def test_a_materialized_view_over_rows_with_policies_does_not_prevent_a_restore(migrated, place, policy, seen, said):
    role, name, recorded = f"{migrated.name}_viewer", f"{migrated.name}_copy", RecordedProgress()
    migrated.execute(
        f"CREATE ROLE {role}; CREATE TABLE rows_of AS SELECT * FROM (VALUES (1), (2)) AS v (a); GRANT SELECT ON rows_of TO {role};"
        f" GRANT CREATE ON SCHEMA public TO {role}; CREATE MATERIALIZED VIEW seen AS SELECT a FROM rows_of;"
        f" ALTER MATERIALIZED VIEW seen OWNER TO {role}; ALTER TABLE rows_of ENABLE ROW LEVEL SECURITY"
    )
    migrated.execute(f"CREATE POLICY few ON rows_of USING ({policy})")
    copy = dataclasses.replace(migrated, name=name)
    try:
        with django(migrated) as connection:
            store = store_at(place)
            restore_into(connection, name, store, take(connection, store, Progress()), recorded, trust=[role])
        populated = copy.execute("SELECT ispopulated FROM pg_matviews")

        assert (populated, recorded.sentences) == ([(seen is not None,)], said)
        assert seen is None or copy.execute("SELECT a FROM seen") == seen
        assert copy.execute("SELECT a FROM rows_of ORDER BY a") == [(1,), (2,)]
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {name}")
        migrated.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.slow
def test_a_predefined_role_that_was_given_objects_is_an_owner_like_any_other(migrated, place):
    """Each of its members may give it objects; as its only member, the owner of the database gives some to pg_database_owner."""
    role = f"{migrated.name}_mallory"
    migrated.execute(f"CREATE ROLE {role} LOGIN; GRANT pg_monitor TO {role}; GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        dataclasses.replace(migrated, user=role).execute(
            "CREATE FUNCTION is_fine(int) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE TABLE checked (a int CHECK (is_fine(a)));"
            "INSERT INTO checked VALUES (1); ALTER FUNCTION is_fine OWNER TO pg_monitor; ALTER TABLE checked OWNER TO pg_monitor"
        )
        migrated.execute(
            "CREATE TABLE of_owner (); ALTER TABLE of_owner OWNER TO pg_database_owner; GRANT SELECT ON users TO pg_signal_backend"
        )

        taken = run(migrated, "dbbackup", "--verify", place=place)
        with django(migrated) as connection:
            named = read_roles(connection, 18)
        refused = run(migrated, "dbrestore", "latest", "--into", f"{migrated.name}_copy", place=place)

        assert (taken.returncode, named["owners"], named["roles"]) == (0, ("pg_monitor", "postgres"), ())
        assert (refused.returncode, " would run code of pg_monitor as this role: " in refused.stderr) == (2, True)
    finally:
        migrated.execute(
            f"DROP TABLE IF EXISTS checked; DROP FUNCTION IF EXISTS is_fine; DROP OWNED BY {role}; DROP ROLE {role}"
        )


def test_a_database_that_is_being_restored_admits_no_other_role(migrated):
    name = f"{migrated.name}_copy"
    try:
        with django(migrated) as connection:
            create(connection, name)
            public = f"SELECT has_database_privilege('pg_monitor', '{name}', 'CONNECT')"
            closed = migrated.execute(public)
            copy_grants(connection, name)
        assert (closed, migrated.execute(public)) == ([(False,)], [(True,)])
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.mark.django_db
def test_the_rules_of_an_icu_collation_are_copied():
    if connection.pg_version < 160000:
        return  # They are new in PostgreSQL 16.
    locale = "datlocale" if connection.pg_version >= 170000 else "daticulocale"
    with connection.cursor() as cursor:  # Rolled back. The embedded server has no ICU to create such a database with.
        cursor.execute(
            f"UPDATE pg_database SET datlocprovider = 'i', {locale} = 'und', daticurules = '& V << w' WHERE datname = current_database()"
        )

    statement = creation(connection, "copy").as_string(connection.connection)

    assert statement.endswith("LOCALE_PROVIDER icu ICU_LOCALE 'und' ICU_RULES '& V << w'")


def test_settings_are_copied_as_values_and_run_no_sql_of_the_role_that_set_them(migrated):
    role, new = f"{migrated.name}_mallory", f"{migrated.name}_new"
    migrated.execute(f"CREATE ROLE {role} LOGIN")
    migrated.execute(f"CREATE DATABASE {new} TEMPLATE template0")
    theirs = dataclasses.replace(migrated, user=role)
    hostile = f"x;ALTER/**/ROLE/**/{role}/**/SUPERUSER"
    kept = f"""SELECT s.setconfig FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
               WHERE d.datname = '{new}' ORDER BY s.setrole"""
    try:
        theirs.execute(
            f"SELECT set_config('search_path', '{hostile}', false), set_config('local_preload_libraries', '\"; {hostile}', false);"
            f"ALTER ROLE {role} IN DATABASE {migrated.name} SET search_path FROM CURRENT;"
            f"ALTER ROLE {role} IN DATABASE {migrated.name} SET local_preload_libraries FROM CURRENT"
        )
        migrated.execute(
            f"""ALTER DATABASE {migrated.name} SET search_path = "$user", public, "a "", b";
                ALTER DATABASE {migrated.name} SET DateStyle = 'ISO, DMY'; ALTER DATABASE {migrated.name} SET "my.own" = 'it''s; \\ so'"""
        )
        recorded = RecordedProgress()
        with django(migrated) as connection, connection_to(connection, "postgres") as elsewhere:
            copy_properties(connection, elsewhere, new, recorded)

        assert migrated.execute(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'") == [(False,)]
        assert migrated.execute(kept) == [
            (['search_path="$user", public, "a "", b"', "DateStyle=ISO, DMY", "my.own=it's; \\ so"],),
            ([f'search_path="{hostile.lower()}"'],),
        ]
        assert recorded.sentences == [
            f"The setting local_preload_libraries of the role {role} is not a valid list and was not copied: set it again with ALTER … SET."
        ]
    finally:
        migrated.execute(f"DROP DATABASE {new}")
        migrated.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("public", "'public'"),
        ('"$user", Public', "'$user', 'public'"),
        ('""', "''"),
        ("", "''"),
        ("a b", None),
        ("a,", None),
        ('"a', None),
        ("x;DROP/**/ROLE/**/r", "'x;drop/**/role/**/r'"),
    ],
)
def test_a_list_is_read_as_postgresql_reads_it(value, expected):
    shown = literals("search_path", value)

    assert (shown and shown.as_string(None)) == expected
