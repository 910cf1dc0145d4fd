"""Backups and restores of one object of each kind, as each role: what the verification says is what the restore does."""

import dataclasses
import re
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from fly2any.database.backup.creatable_extensions import require_extensions
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from fly2any.database.roles import roles_sql
from fly2any.postgres.embedded import bin_folder
from tests.conftest import django, manage
from tests.database.sites import OURS
from tests.database.taken import databases, described

# What a role can create that owns the database and its tables.
OWN = """
    CREATE SCHEMA crm; CREATE TABLE crm.notes (id int PRIMARY KEY, body text, day date);
    INSERT INTO crm.notes VALUES (1, 'a', '2026-01-01');
    CREATE DOMAIN crm.code AS text CHECK (VALUE ~ '^[A-Z]+$'); CREATE TYPE crm.mood AS ENUM ('sad', 'ok'); CREATE TYPE crm.pair AS (a int, b text);
    CREATE TYPE crm.span AS RANGE (subtype = date);
    CREATE FUNCTION crm.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
    CREATE PROCEDURE crm.nothing() LANGUAGE plpgsql AS 'BEGIN END';
    CREATE AGGREGATE crm.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
    CREATE OPERATOR crm.@@@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int);
    CREATE CAST (crm.mood AS crm.code) WITH INOUT;
    CREATE COLLATION crm.plain (provider = libc, locale = 'C');
    CREATE TABLE crm.kinds (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code crm.code DEFAULT 'A', mood crm.mood, pair crm.pair,
        twice int GENERATED ALWAYS AS (crm.twice(1)) STORED, name text COLLATE crm.plain, note int REFERENCES crm.notes, span crm.span,
        EXCLUDE USING gist (span WITH &&));
    INSERT INTO crm.kinds (mood, pair, name, note, span) VALUES ('ok', '(1,x)', 'n', 1, '[2026-01-01,2026-02-01)');
    CREATE VIEW crm.shown WITH (security_barrier) AS SELECT * FROM crm.kinds;
    CREATE MATERIALIZED VIEW crm.counted AS SELECT count(*) AS number FROM crm.kinds; CREATE UNIQUE INDEX ON crm.counted (number);
    CREATE SEQUENCE crm.invoices START 7; SELECT nextval('crm.invoices');
    CREATE FUNCTION crm.changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER changed BEFORE UPDATE ON crm.kinds FOR EACH ROW EXECUTE FUNCTION crm.changed();
    ALTER TABLE crm.kinds DISABLE TRIGGER changed;
    CREATE RULE kept AS ON DELETE TO crm.notes DO INSTEAD NOTHING;
    ALTER TABLE crm.notes ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON crm.notes USING (id > 0);
    CREATE STATISTICS crm.both (ndistinct) ON body, day FROM crm.notes;
    ALTER DEFAULT PRIVILEGES IN SCHEMA crm GRANT SELECT ON TABLES TO pg_monitor;
    COMMENT ON TABLE crm.notes IS 'it''s ours'; COMMENT ON COLUMN crm.notes.body IS 'text';
    GRANT SELECT (id), UPDATE ON crm.notes TO pg_monitor; GRANT USAGE ON SCHEMA crm TO PUBLIC;
    CREATE TABLE crm.parts (day date NOT NULL, n int) PARTITION BY RANGE (day);
    CREATE TABLE crm.parts_2026 PARTITION OF crm.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE TABLE crm.parts_rest PARTITION OF crm.parts DEFAULT; CREATE INDEX ON crm.parts (n);
    INSERT INTO crm.parts VALUES ('2026-05-01', 1), ('2025-01-01', 2);
    CREATE TABLE crm.parent (a int); CREATE TABLE crm.child (b int) INHERITS (crm.parent); INSERT INTO crm.child VALUES (1, 2);
    CREATE UNLOGGED TABLE crm.fast (a int); INSERT INTO crm.fast VALUES (1);
    CREATE TABLE crm.typed OF crm.pair; ALTER TABLE crm.typed REPLICA IDENTITY FULL; ALTER TABLE crm.notes CLUSTER ON notes_pkey;
    CREATE TEXT SEARCH DICTIONARY crm.words (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION crm.search (COPY = english);
    ALTER TEXT SEARCH CONFIGURATION crm.search ALTER MAPPING FOR word WITH crm.words;
    CREATE CONVERSION crm.converted FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
    CREATE PUBLICATION chosen FOR TABLE crm.kinds; CREATE EXTENSION hstore;
    SELECT lo_from_bytea(4242, 'large'); GRANT SELECT ON LARGE OBJECT 4242 TO pg_monitor
"""


# What only a superuser can create: the role that owns the database cannot restore it. Those after SET ROLE belong to that role.
OF_A_SUPERUSER = {
    "EXTENSION amcheck": "CREATE EXTENSION amcheck",
    "EXTENSION pg_stat_statements": "CREATE EXTENSION pg_stat_statements",
    "FUNCTION is_a(text)": "SET ROLE {role}; CREATE FUNCTION public.is_a(text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
    " RESET ROLE; ALTER FUNCTION public.is_a(text) LEAKPROOF",
    "SERVER far": "CREATE EXTENSION postgres_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {role}; SET ROLE {role};"
    " CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE FOREIGN TABLE public.away (a int) SERVER far",
    "EVENT TRIGGER seen": "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
    " CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION seen()",
    "PUBLICATION everything": "CREATE PUBLICATION everything FOR ALL TABLES",
    "OPERATOR CLASS other": "CREATE OPERATOR CLASS public.other FOR TYPE int4 USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int4)",
}

# Those that belong to the superuser itself: the command names it before it restores anything.
OF_POSTGRES = ("EVENT TRIGGER seen", "PUBLICATION everything", "OPERATOR CLASS other")

BELONG = (
    "Objects in the backup belong to postgres, and this role cannot give objects to them: connect as a superuser, or leave out"
    " their objects with --without postgres\n"
)

EXTENSIONS = (
    r"Extensions of the backup cannot be created on this server: \S+ \(permission denied to create extension .*\)\. Fix the cause, or restore as a"
    r" superuser; or leave them out, with the rows of their tables: --without-extension \S+( --without-extension \S+)*\.$"
)


def schema_of(database, *, without_owner=None):
    """The definitions of all objects, as pg_dump prints them, without the default privileges that `without_owner` set."""
    pg_dump = [str(bin_folder() / "pg_dump"), "--schema-only", "--no-sync", f"--dbname={database.url}"]
    text = subprocess.run(pg_dump, check=True, capture_output=True, text=True).stdout
    text = text.partition("--\n-- PostgreSQL database dump complete")[0]
    entries = re.split(r"^--\n(?=-- Name: )", re.sub(r"^\\.*\n", "", text, flags=re.M), flags=re.M)
    others = re.compile(f"Type: DEFAULT ACL; Schema: [^;]+; Owner: {without_owner}$", re.M)
    return [one for one in entries if not others.search(one)]


def url_of(database, role):
    return database.url.replace(f"//{database.user}", f"//{role}", 1)


@contextmanager
def connected_as(database, kind):
    """The URL of a role of this kind, which owns the database and its tables, or of a superuser."""
    if kind == "superuser":
        yield database.url
        return
    role = f"{database.name}_{'migrate' if kind == 'dbroles' else 'owner'}"
    if kind == "dbroles":
        with django(database) as connection:
            database.execute(roles_sql(connection, sorted(OURS), prefix=database.name))
        database.execute(f"ALTER ROLE {role} CREATEDB")
    else:
        database.execute(f"CREATE ROLE {role} LOGIN CREATEDB")
        database.give_tables(role)
    database.execute(f"ALTER DATABASE {database.name} OWNER TO {role}; GRANT pg_signal_backend, pg_read_all_data TO {role}")
    try:
        yield url_of(database, role)
    finally:
        database.execute(f"ALTER DATABASE {database.name} OWNER TO CURRENT_USER; REASSIGN OWNED BY {role} TO CURRENT_USER")
        for end in ("migrate", "owner", "app", "read"):
            if database.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [f"{database.name}_{end}"]):
                database.execute(f"DROP OWNED BY {database.name}_{end}; DROP ROLE {database.name}_{end}")


def drop_others(database):
    for name in databases(database) - {database.name}:
        database.execute(f'DROP DATABASE "{name}"')


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["superuser", "owner", "dbroles"])
def test_what_a_role_can_create_is_verified_and_restored(migrated, place, kind):
    with connected_as(migrated, kind) as url:
        role = re.search(r"//(\w+)", url)[1]
        with migrated.connect() as client:
            client.execute(f"SET SESSION AUTHORIZATION {role}")
            client.execute(OWN)
        # Only a superuser may set the default privileges of another role: the command says so.
        left_out = "postgres" if kind == "dbroles" else None
        before = schema_of(migrated, without_owner=left_out)
        try:
            taken = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
            restored = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)

            assert (taken.returncode, taken.stderr, re.findall("not tried: (.*)", taken.stdout)) == (
                0,
                "",
                [
                    'rows of materialized view crm.counted; not compared: generated columns of "crm"."kinds", which a restore recomputes'
                ],
            )
            assert (restored.returncode, re.split(r" that postgres will create|\. The backup does", restored.stderr)[0]) == (
                0,
                "Default privileges for objects" if left_out else 'Not compared: generated columns of "crm"."kinds"',
            )
            assert schema_of(migrated, without_owner=left_out) == before
            assert migrated.execute("SELECT number FROM crm.counted") == [(1,)]
            assert migrated.execute("SELECT nextval('crm.invoices'), convert_from(lo_get(4242), 'UTF8')") == [(8, "large")]
        finally:
            drop_others(migrated)


@pytest.mark.slow
@pytest.mark.parametrize("what", OF_A_SUPERUSER)
def test_what_only_a_superuser_can_create_is_not_tried_and_restored_by_a_superuser(migrated, place, what):
    with connected_as(migrated, "owner") as url:
        role = re.search(r"//(\w+)", url)[1]
        migrated.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        with migrated.connect() as client:
            client.execute(OF_A_SUPERUSER[what].format(role=role))
        before = schema_of(migrated)
        try:
            taken = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
            shown = manage("dbrestore", "latest", url=url, BACKUP_LOCATION=place)
            refused = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)
            unchanged = schema_of(migrated) == before
            names = databases(migrated)
            restored = manage("dbrestore", "latest", "--yes", "--trust", role, url=migrated.url, BACKUP_LOCATION=place)

            untried = re.search(r"; not tried: (.*)", taken.stdout)[1]
            assert (taken.returncode, f"{what} (" in untried) == (0, True)
            sentence = (
                f"The verification did not create {untried}: this role may not be allowed to either, and the restore then fails and"
                " replaces nothing. Restore as a superuser."
            )
            assert f"Note      {sentence}\n" in refused.stdout
            reason = BELONG if what in OF_POSTGRES else EXTENSIONS if "EXTENSION" in untried else None
            late = refused.stderr.startswith("pg_restore exited with 1: ") and refused.stderr.endswith(f" {sentence}\n")
            planned = (0, "") if reason is None else (2, refused.stderr)
            assert late if reason is None else re.match(reason, refused.stderr)
            assert (refused.returncode, unchanged, names) == (2, True, {migrated.name})
            assert (shown.returncode, shown.stderr) == planned
            assert (restored.returncode, "Note      The verification" in restored.stdout) == (0, False)
            assert schema_of(migrated) == before
        finally:
            drop_others(migrated)


def test_extensions_that_the_verification_did_not_create_are_tried_in_a_scratch_database(migrated):
    """The machine of the verification may lack what the server has; the database may be read-only before a restore."""
    with connected_as(migrated, "owner") as url:
        role = re.search(r"//(\w+)", url)[1]
        migrated.execute(f"ALTER DATABASE {migrated.name} SET default_transaction_read_only = on")
        with django(dataclasses.replace(migrated, user=role)) as connection:
            manifest = described(read_origin(connection), datetime.now(UTC))

            def untried(*left_out):
                return dataclasses.replace(manifest, verdict=dataclasses.replace(manifest.verdict, left_out=left_out))

            require_extensions(connection, untried("EXTENSION hstore (58P01)", "EVENT TRIGGER seen (42501)"))
            with pytest.raises(Refusal, match=EXTENSIONS):
                require_extensions(connection, untried("EXTENSION hstore (58P01)", "EXTENSION amcheck (42501)"))
            with pytest.raises(
                Refusal, match=r"^Extensions of the backup cannot be created on this server: nowhere \(it is not available\)\. "
            ):
                require_extensions(connection, untried("EXTENSION nowhere (0A000)"))
        dataclasses.replace(migrated, name="postgres").execute(f"ALTER DATABASE {migrated.name} RESET ALL")
        scratch = f"SELECT 1 FROM pg_database WHERE datname LIKE 'fly2any_scratch_%' AND datdba = '{role}'::regrole"
        assert migrated.execute(scratch) == []


@pytest.mark.slow
def test_objects_of_the_first_superuser_are_named_before_the_restore_and_can_be_left_out(migrated, place):
    """Verified backups too, as a superuser restores them."""
    with connected_as(migrated, "dbroles") as url:
        migrated.execute("CREATE FUNCTION public.slug(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'")
        before = schema_of(migrated)
        try:
            taken = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
            answers = [manage("dbrestore", "latest", *options, url=url, BACKUP_LOCATION=place) for options in ([], ["--yes"])]
            unchanged = (schema_of(migrated), databases(migrated))
            left_out = manage("dbrestore", "latest", "--yes", "--without", "postgres", url=url, BACKUP_LOCATION=place)

            assert (taken.returncode, "not tried" in taken.stdout) == (0, False)
            assert [(answer.returncode, answer.stderr.startswith(BELONG)) for answer in answers] == 2 * [(2, True)]
            assert unchanged == (before, {migrated.name})
            assert (left_out.returncode, "depends on such an object: FUNCTION public slug(text)" in left_out.stderr) == (
                0,
                True,
            )
            assert migrated.execute("SELECT to_regproc('slug')::text") == [(None,)]
        finally:
            drop_others(migrated)
