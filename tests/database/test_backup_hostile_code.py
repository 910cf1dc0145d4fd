"""Verifying a backup with hostile code: the code has no effect, ends in time, and decides no verdict."""

import dataclasses
import shutil

import pytest

from fly2any.database.backup import trial_server
from tests.servers import let_through

# Code of a role that may create things in one schema: as a superuser it makes a file, as any other it changes its password.
HOSTILE = """
    CREATE FUNCTION evil.act() RETURNS void LANGUAGE plpgsql AS $f$
    DECLARE attempt text;
    BEGIN
        FOREACH attempt IN ARRAY ARRAY[
            'RESET SESSION AUTHORIZATION', 'RESET ROLE', 'SET ROLE postgres',
            'COPY (SELECT 1) TO PROGRAM ''touch {file}''', 'COPY (SELECT 1) TO ''{file}''',
            format('ALTER ROLE %I PASSWORD %L', session_user, 'stolen'), 'CREATE ROLE {role}_2 SUPERUSER', 'CREATE DATABASE {role}_2'
        ] LOOP
            BEGIN EXECUTE attempt; EXCEPTION WHEN OTHERS THEN NULL; END;
        END LOOP;
    END $f$;
    CREATE FUNCTION evil.f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN PERFORM evil.act(); RETURN $1; END $f$;
    CREATE TABLE evil.checked (id int CHECK (evil.f(id) > 0) DEFAULT evil.f(1), made int GENERATED ALWAYS AS (evil.f(id)) STORED);
    CREATE INDEX ON evil.checked (evil.f(id), evil.f(7));
    INSERT INTO evil.checked DEFAULT VALUES;
    CREATE VIEW evil.seen AS SELECT evil.f(id) FROM evil.checked;
    CREATE MATERIALIZED VIEW evil.kept AS SELECT evil.f(id) FROM evil.checked
"""
# Only roles that the code could become or create, because other tests' roles come and go.
PASSWORDS = (
    "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = current_user OR starts_with(rolname, '{name}') ORDER BY 1"
)


@pytest.mark.slow
def test_code_of_another_role_does_nothing_when_a_backup_is_verified(migrated, taken, tmp_path):
    role, file, passwords = f"{migrated.name}_evil", tmp_path / "made", PASSWORDS.format(name=migrated.name)
    let_through(tmp_path)
    tmp_path.chmod(0o1777)
    migrated.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA evil AUTHORIZATION {role}")
    try:
        dataclasses.replace(migrated, user=role).execute(HOSTILE.format(role=role, file=file))
        before = migrated.execute(passwords)

        manifest = taken()

        assert (manifest.verdict.reason, manifest.state) == ("", "good")
        assert (file.exists(), migrated.execute(passwords)) == (False, before)
        assert manifest.tables['"evil"."checked"'].rows == 1
    finally:
        migrated.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


HANGS = """
    CREATE TABLE patient (id int); INSERT INTO patient VALUES (1);
    CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$
    BEGIN
        IF current_database() = 'trial' THEN
            LOOP
                BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END;
            END LOOP;
        END IF;
        RETURN $1;
    END $f$;
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        "ALTER TABLE patient ADD CONSTRAINT slowly CHECK (slow(id) > 0)",
        "CREATE INDEX slowly ON patient (slow(id))",
    ],
    ids=["check", "index"],
)
def test_code_that_never_ends_makes_a_backup_not_verified_within_the_time_limit(taken, settings, where):
    settings.BACKUPS = {**settings.BACKUPS, "verify_timeout": 2}

    manifest = taken(f"{HANGS}; {where}")

    assert (manifest.state, manifest.verdict.reason) == (
        "unverified",
        "The trial restore did not finish within 2 s: find the object in the backup that waits, or raise BACKUP_VERIFY_TIMEOUT.",
    )


FILLS = """
    CREATE TABLE filled (id int); INSERT INTO filled VALUES (1);
    CREATE FUNCTION fills(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$
    BEGIN
        IF current_database() = 'trial' THEN PERFORM count(*) FROM generate_series(1, 1000000000); END IF;
        RETURN $1;
    END $f$;
    CREATE INDEX filling ON filled (fills(id))
"""


@pytest.mark.slow
def test_code_that_fills_the_disk_makes_a_backup_not_verified_before_it_is_full(taken, settings, tmp_path, monkeypatch):
    settings.BACKUPS = {**settings.BACKUPS, "verify_timeout": 90}
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(trial_server, "SPARE", 1 - 300e6 / free)

    manifest = taken(FILLS)

    assert manifest.state == "unverified"
    assert manifest.verdict.reason.startswith("The trial restore left less than ")
    assert shutil.disk_usage(tmp_path).free > free - 2e9


@pytest.mark.slow
def test_code_that_takes_memory_makes_a_backup_not_verified_and_gets_none(taken, monkeypatch):
    monkeypatch.setattr(trial_server, "_available_memory", lambda: 0)
    hungry = FILLS.replace("count(*) FROM generate_series(1, 1000000000)", "length(repeat('x', 700000000))")
    whole = taken("CREATE TABLE wide AS SELECT repeat(md5(i::text), 1000000) AS text FROM generate_series(1, 2) AS i")

    refused = taken(hungry)

    assert (whole.state, whole.verdict.reason) == ("good", "")
    assert (refused.state, refused.verdict.reason) == ("unverified", "INDEX filling (53200) could not be restored here")


def test_three_processes_of_a_trial_restore_may_take_all_but_a_tenth_of_the_available_memory(monkeypatch):
    monkeypatch.setattr(trial_server, "_available_memory", lambda: 10 << 30)
    program, limit = trial_server._limits()

    assert (program.endswith("/prlimit"), limit) == (True, f"--as={3 << 30}")
    monkeypatch.setattr("resource.getrlimit", lambda what: (1 << 30, 2 << 30))
    assert trial_server._limits() == (program, f"--as={2 << 30}")


@pytest.mark.slow
def test_objects_that_only_a_superuser_can_create_are_omitted_and_named(taken):
    manifest = taken(
        "CREATE FUNCTION told() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;"
        " CREATE EVENT TRIGGER teller ON ddl_command_end EXECUTE FUNCTION told();"
        " CREATE PUBLICATION everything FOR ALL TABLES; CREATE FOREIGN DATA WRAPPER elsewhere;"
        " CREATE FUNCTION quiet(int) RETURNS int LEAKPROOF LANGUAGE sql AS 'SELECT 1';"
        " CREATE EXTENSION pg_stat_statements; COMMENT ON EXTENSION pg_stat_statements IS 'ours'"
    )

    assert (manifest.state, manifest.verdict.reason, sorted(manifest.verdict.left_out)) == (
        "good",
        "",
        [
            "EVENT TRIGGER teller (42501)",
            "EXTENSION pg_stat_statements (42501)",
            "FOREIGN DATA WRAPPER elsewhere (42501)",
            "FUNCTION quiet(integer) (42501)",
            "PUBLICATION everything (42501)",
        ],
    )


@pytest.mark.slow
def test_dependents_of_omitted_objects_are_omitted_too(migrated, taken):
    manifest = taken(
        "CREATE EXTENSION dblink; CREATE FUNCTION quiet(int) RETURNS int LEAKPROOF LANGUAGE sql AS 'SELECT 1';"
        " CREATE VIEW seen AS SELECT quiet(1); CREATE VIEW again AS SELECT * FROM seen; COMMENT ON VIEW again IS 'ours';"
        " CREATE SERVER far FOREIGN DATA WRAPPER dblink_fdw; CREATE USER MAPPING FOR CURRENT_USER SERVER far;"
        " CREATE FOREIGN TABLE abroad (a int) SERVER far;"
        " CREATE OPERATOR CLASS own FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,"
        " OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int); CREATE TABLE plain (a int); CREATE INDEX by_own ON plain (a own)"
    )

    assert (manifest.state, manifest.verdict.reason) == ("good", "")
    assert {one.rpartition(" (")[0] for one in manifest.verdict.left_out} >= {
        "EXTENSION dblink",
        "COMMENT EXTENSION dblink",
        "FUNCTION quiet(integer)",
        "VIEW seen",
        "VIEW again",
        "COMMENT VIEW again",
        "SERVER far",
        f"USER MAPPING USER MAPPING {migrated.user} SERVER far",
        "FOREIGN TABLE abroad",
        "OPERATOR CLASS own",
        "INDEX by_own",
    }


RAISES = """
    CREATE FUNCTION picky(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$
    BEGIN
        IF current_database() = 'trial' THEN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF;
        RETURN $1;
    END $f$;
    CREATE TABLE picked (id int); INSERT INTO picked VALUES (1);
"""


@pytest.mark.slow
@pytest.mark.parametrize("state", ["42501", "0A000", "58P01"])
@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("ALTER TABLE picked ADD CHECK (picky(id) > 0)", "TABLE DATA picked"),
        ("CREATE INDEX by_picky ON picked (picky(id))", "INDEX by_picky"),
    ],
    ids=["rows", "an index"],
)
def test_code_that_raises_42501_makes_a_backup_neither_good_nor_bad(taken, state, where, what):
    manifest = taken(f"{RAISES.format(state=state)}; {where}")

    assert (manifest.state, manifest.verdict.reason) == ("unverified", f"{what} ({state}) could not be restored here")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (
            "RAISE EXCEPTION 'no' USING ERRCODE = '22012'",
            'TABLE DATA checked (22012) cannot be restored; "zal"."checked" has 0 rows instead of 1',
        ),
        ("DELETE FROM public.precious", '"public"."precious" has 0 rows instead of 1'),
    ],
    ids=["an error", "other rows"],
)
def test_code_of_another_role_makes_no_backup_bad(migrated, taken, act, reason):
    role = f"{migrated.name}_mallory"
    migrated.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA zal AUTHORIZATION {role}")
    migrated.execute("CREATE TABLE precious (id int); INSERT INTO precious VALUES (1)")
    try:
        dataclasses.replace(migrated, user=role).execute(
            f"""CREATE FUNCTION zal.act(int) RETURNS bool LANGUAGE plpgsql AS $f$
                BEGIN IF current_database() = 'trial' THEN {act}; END IF; RETURN true; END $f$;
                CREATE TABLE zal.checked (id int CHECK (zal.act(id))); INSERT INTO zal.checked VALUES (1)"""
        )
        manifest = taken()
    finally:
        migrated.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")

    assert (manifest.state, manifest.verdict.reason) == ("good", "")
    [left_out] = manifest.verdict.left_out
    assert left_out == (
        f"objects of {role} (SCHEMA - zal, FUNCTION zal act(integer), TABLE zal checked);"
        f" with them it is not verified ({reason}; code of {role} may have run in the trial restore)"
    )
