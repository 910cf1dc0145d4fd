"""Extensions of a backup that a server lacks or refuses, and restores without them."""

import dataclasses
import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from fly2any.database.backup import tools
from fly2any.database.backup.creatable_extensions import require_extensions
from fly2any.database.backup.extension_entries import find_extensions, uncertain
from fly2any.database.backup.row_hashes import Content, Registered
from fly2any.database.backup.toc_entries import NOTHING, LeftOut, entries_in
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from tests.conftest import django, manage
from tests.database.taken import databases, described
from tests.servers import let_through

# Like pg_cron, which any database but one refuses.
SCRIPT = """
    DO $$ BEGIN IF current_database() NOT LIKE 'PATTERN' THEN RAISE EXCEPTION 'can only create extension in %', 'a'; END IF; END $$;
    CREATE SCHEMA cron; CREATE TABLE cron.job (id int, command text); CREATE SEQUENCE cron.numbers;
    SELECT pg_catalog.pg_extension_config_dump('cron.job', ''); SELECT pg_catalog.pg_extension_config_dump('cron.numbers', '');
"""
USED = """
    CREATE EXTENSION like_cron; INSERT INTO cron.job VALUES (1, 'x'), (2, 'y'); SELECT nextval('cron.numbers');
    GRANT USAGE ON SCHEMA cron TO pg_monitor; GRANT SELECT ON cron.job TO pg_monitor;
    ALTER DEFAULT PRIVILEGES IN SCHEMA cron GRANT SELECT ON TABLES TO pg_monitor
"""
LISTING = """
3; 3079 17317 EXTENSION - pg_cron 
10; 0 0 COMMENT - EXTENSION pg_cron 
;	depends on: 3
11; 0 0 ACL - SCHEMA cron postgres
;	depends on: 8
12; 0 0 ACL pg_catalog FUNCTION pg_reload_conf() postgres
;	depends on: 7
13; 0 0 TABLE DATA cron job postgres
;	depends on: 9
14; 0 0 SEQUENCE SET cron numbers postgres
;	depends on: 10000
15; 826 1 DEFAULT ACL cron DEFAULT PRIVILEGES FOR TABLES postgres
;	depends on: 3
16; 1255 1 FUNCTION public due() her
;	depends on: 3
"""  # noqa: W291
REFUSED = "Extensions of the backup cannot be created on this server: "


def test_an_extension_that_the_server_lacks_is_named_and_can_be_left_out(migrated):
    with django(migrated) as connection:
        manifest = described(read_origin(connection), datetime.now(UTC), extensions=("pg_trgm", "hstore", "nowhere"))

        refusals = []
        for names in ((), ("pg_trgm",), ("unknown",)):
            with pytest.raises(Refusal) as refused:
                require_extensions(connection, manifest, without=names)
            refusals.append(str(refused.value))
        require_extensions(connection, manifest, without=("nowhere",))

    assert refusals == [
        f"{REFUSED}nowhere (it is not available). Fix the cause; or leave them out, with the rows of their tables: --without-extension nowhere.",
        "The extension pg_trgm cannot be left out: indexes of Fly2Any need it.",
        f"{manifest.name} does not have the extension unknown: omit --without-extension unknown.",
    ]


def test_an_extension_is_tried_whatever_search_path_the_role_has(migrated):
    role = f"{migrated.name}_dba"
    migrated.execute(
        f"CREATE ROLE {role} SUPERUSER LOGIN; ALTER ROLE {role} SET search_path TO nowhere;"
        f" ALTER ROLE {role} IN DATABASE {migrated.name} SET search_path TO public"
    )
    try:
        with django(dataclasses.replace(migrated, user=role)) as connection:
            require_extensions(connection, described(read_origin(connection), datetime.now(UTC), extensions=("hstore",)))
    finally:
        migrated.execute(f"DROP ROLE {role}")


def test_an_extension_is_left_out_with_its_rows_unless_another_object_needs_it(migrated):
    with django(migrated) as connection:
        registered = {'"cron"."job"': Registered("pg_cron", ("id",)), '"cron"."numbers"': Registered("pg_cron", ())}
        manifest = described(
            read_origin(connection),
            datetime.now(UTC),
            owners=("her",),
            tables={'"cron"."job"': Content(2, "1")},
            registered=registered,
        )
    entries = tuple(entries_in(LISTING))
    older = dataclasses.replace(manifest, registered={})

    with pytest.raises(Refusal, match=r"does not have the extension pg_crom: omit --without-extension pg_crom\.$"):
        find_extensions(entries, older, ["pg_crom"], NOTHING)
    with pytest.raises(Refusal) as refused:
        find_extensions(entries, manifest, ["pg_cron"], NOTHING)
    left_out = find_extensions(entries, manifest, ["pg_cron"], LeftOut({16: ""}, frozenset()))

    assert (
        str(refused.value) == "pg_cron cannot be left out, because other objects in the backup need it: FUNCTION public due()."
    )
    assert left_out == LeftOut(
        {
            3: "EXTENSION - pg_cron",
            10: "COMMENT - EXTENSION pg_cron",
            15: "DEFAULT ACL cron DEFAULT PRIVILEGES FOR TABLES",
            16: "FUNCTION public due()",
            13: "rows of cron.job (2 rows)",
            14: "value of cron.numbers",
        },
        frozenset(registered),
    )
    assert [[one.number for one in uncertain(entries, which)] for which in (manifest, older)] == [[11], [11, 13, 14]]


@contextmanager
def like_cron(database, folder):
    """The URL of a superuser whose sessions have the extension, and a function that chooses the databases that it accepts."""
    if database.execute("SHOW server_version_num") < [("180000",)]:
        pytest.skip("extension_control_path is new in PostgreSQL 18.")
    files = folder / "extension"
    files.mkdir()
    let_through(folder)
    files.chmod(0o755)
    (files / "like_cron.control").write_text("default_version = '1'\nrelocatable = false\nschema = pg_catalog\n")
    role = f"{database.name}_dba"
    database.execute(f"CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET extension_control_path = '$system:{folder}'")

    def accept(pattern):
        (files / "like_cron--1.sql").write_text(SCRIPT.replace("PATTERN", pattern))

    accept("%")
    try:
        yield database.url.replace(f"//{database.user}", f"//{role}", 1), accept
    finally:
        database.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP ROLE {role}")


@pytest.mark.slow
def test_an_extension_that_refuses_the_new_database_is_left_out_on_request_and_restored_where_it_does_not(
    migrated, place, tmp_path
):
    with like_cron(migrated, tmp_path) as (url, accept):
        role = re.search(r"//(\w+)", url)[1]
        dataclasses.replace(migrated, user=role).execute(USED)
        names = [f"{migrated.name}_{end}" for end in ("without", "with")]
        try:
            taken = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
            accept("none")
            refused = [manage("dbrestore", "latest", *options, url=url, BACKUP_LOCATION=place) for options in ([], ["--yes"])]
            options = ["--into", names[0], "--without-extension", "like_cron"]
            without = manage("dbrestore", "latest", *options, url=url, BACKUP_LOCATION=place)
            accept("%")
            restored = manage("dbrestore", "latest", "--into", names[1], url=url, BACKUP_LOCATION=place)
            rows = dataclasses.replace(migrated, name=names[1]).execute(
                "SELECT id, command, has_schema_privilege('pg_monitor', 'cron', 'USAGE'), nextval('cron.numbers') FROM cron.job WHERE id = 1"
            )
            there = dataclasses.replace(migrated, name=names[0]).execute("SELECT to_regnamespace('cron')::text")
        finally:
            for name in databases(migrated) - {migrated.name}:
                migrated.execute(f'DROP DATABASE "{name}"')
            migrated.execute("DROP EXTENSION like_cron")

    assert (taken.returncode, "rows of cron.job, value of cron.numbers" in taken.stdout) == (0, True)
    sentence = f"{REFUSED}like_cron (can only create extension in a). Fix the cause; or leave them out, with the rows of their tables: --without-extension like_cron.\n"
    assert [(answer.returncode, answer.stderr) for answer in refused] == 2 * [(2, sentence)]
    assert (without.returncode, restored.returncode, restored.stderr, there) == (0, 0, "", [(None,)])
    assert (
        f"Restored  into {names[0]} without the extension like_cron: every row of the rest was compared and matches.\n"
        in without.stdout
    )
    assert without.stderr.splitlines() == [
        "Left out with --without-extension: EXTENSION - like_cron, DEFAULT ACL cron DEFAULT PRIVILEGES FOR TABLES, rows of cron.job (2 rows), value of"
        " cron.numbers.",
        'Not restored: ACL - SCHEMA cron (pg_restore exited with 1: could not execute query: ERROR:  schema "cron" does not exist).',
        'Not restored: ACL cron TABLE job (pg_restore exited with 1: could not execute query: ERROR:  schema "cron" does not exist).',
    ]
    assert rows == [(1, "x", True, 2)]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("EXTENSION pg_cron ", "ERROR:  only in fly2any"),
        ("TABLE DATA public users owner", "the function inline_code_block raised an error"),
    ],
)
def test_the_reason_of_an_extension_is_not_hidden(tmp_path, entry, reason):
    """Unlike that of a function, which may quote a row."""
    program = tmp_path / "pg_restore"
    lines = (
        f"pg_restore: from TOC entry 3; 3079 1 {entry}",
        "pg_restore: error: could not execute query: ERROR:  only in fly2any",
        "CONTEXT:  PL/pgSQL function inline_code_block line 1 at RAISE",
    )
    program.write_text(f"#!{sys.executable}\nimport sys\nprint({chr(10).join(lines)!r}, file=sys.stderr)\nsys.exit(1)\n")
    program.chmod(0o755)

    with tools.Running(program, [], {}, lambda line: None) as restoring:
        assert restoring.failure() == f"pg_restore exited with 1: could not execute query: {reason}"
