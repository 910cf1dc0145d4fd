"""Verdicts on a backup: verified, bad or not verified."""

import dataclasses
import json
import re
from datetime import UTC, datetime
from io import FileIO

import pytest

from fly2any.database.backup import render, tools, trial_server
from fly2any.database.backup.inventory import backups
from fly2any.database.backup.manifest import Verdict, from_json
from fly2any.database.backup.restore import restore_into
from fly2any.database.backup.row_hashes import Content
from fly2any.database.backup.store import Folder
from fly2any.database.backup.toc_entries import without_owner
from fly2any.database.backup.trial_restore import Failure, TrialResult, check, decide, unknown_failures
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import RecordedProgress


@pytest.mark.slow
def test_the_verdict_says_why_there_is_no_server_for_a_trial(taken, monkeypatch):
    monkeypatch.setattr(trial_server.TrialServer, "LOCALE", ("--locale=none_such",))

    manifest = taken()

    assert manifest.state == "unverified"
    assert manifest.verdict.reason == (
        'The server for the trial restore could not be started: initdb: error: invalid locale name "none_such".'
    )


def test_an_entry_is_named_without_its_owner():
    owners = ("role", "my role", "other")

    named = [without_owner(f"TABLE users {owner}", owners) for owner in (*owners, "(no owner)", "unknown", "")]

    assert named == ["TABLE users"] * 6


@pytest.mark.slow
def test_the_embedded_servers_extension_does_not_prevent_verification(taken):
    """It is named, because a role that is no superuser cannot restore it."""
    manifest = taken("CREATE EXTENSION pg_stat_statements")

    left_out = ("EXTENSION pg_stat_statements (42501)",)
    assert (manifest.state, manifest.verdict.reason, manifest.verdict.left_out) == ("good", "", left_out)
    assert re.search(
        r"the rows of every table hashed and compared, .*; not tried: EXTENSION pg_stat_statements \(only a superuser may create it\)$",
        render.verdict(manifest),
    )


@pytest.mark.slow
def test_values_may_name_roles_that_own_nothing(taken, migrated):
    """As in a table of an audit, with the default CURRENT_USER::regrole."""
    role = f"{migrated.name}_guest"
    manifest = taken(
        f"CREATE ROLE {role}; CREATE DOMAIN guests AS regrole[]; CREATE TABLE audit (who guests); INSERT INTO audit VALUES ('{{{role}, postgres}}')"
    )
    migrated.execute(f"DROP ROLE {role}")

    assert (manifest.state, manifest.verdict.reason) == ("good", "")


@pytest.mark.slow
def test_a_table_with_a_missing_dependency_is_not_verified(taken):
    manifest = taken(
        "CREATE FUNCTION sums(int, int) RETURNS int LEAKPROOF LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';"
        " CREATE TABLE needy (a int, b int GENERATED ALWAYS AS (sums(a, 1)) STORED)"
    )

    assert (manifest.state, manifest.verdict.reason) == (
        "unverified",
        '"public"."needy" is missing; FUNCTION sums(integer, integer) (42501) was left out; TABLE needy (42883) was left out',
    )


@pytest.mark.slow
def test_a_materialized_view_is_not_tried_because_policies_apply_to_its_owner(taken):
    """A restore leaves one empty that cannot be refreshed: that makes no backup bad."""
    manifest = taken(
        "CREATE TABLE rows_of AS SELECT 1 AS a; CREATE MATERIALIZED VIEW seen AS SELECT 1 / a AS b FROM rows_of; UPDATE rows_of SET a = 0"
    )

    left_out = ("rows of materialized view public.seen",)
    assert (manifest.state, manifest.verdict.reason, manifest.verdict.left_out) == ("good", "", left_out)


@pytest.mark.slow
def test_generated_columns_that_a_restore_computes_anew_are_named(migrated, taken, place):
    """Their function may have been replaced since the rows were written."""
    manifest = taken(
        "CREATE FUNCTION rank(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 10';"
        " CREATE TABLE ranked (a int, b int GENERATED ALWAYS AS (rank(a)) STORED); INSERT INTO ranked VALUES (1), (2);"
        " CREATE TABLE parts (a int, b int GENERATED ALWAYS AS (a) STORED) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parts DEFAULT;"
        " CREATE OR REPLACE FUNCTION rank(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 1000'"
    )
    progress = RecordedProgress()
    into = f"{migrated.name}_anew"
    with django(migrated) as connection:
        restore_into(connection, into, Folder(place), manifest, progress)
    restored = dataclasses.replace(migrated, name=into)
    values = restored.execute("SELECT b FROM ranked ORDER BY a")
    migrated.execute(f"DROP DATABASE {into} WITH (FORCE)")

    named = ('generated columns of "public"."parts"', 'generated columns of "public"."ranked"')
    assert (manifest.state, manifest.verdict.reason, manifest.verdict.left_out, values) == (
        "good",
        "",
        named,
        [(1000,), (2000,)],
    )
    assert render.verdict(manifest).endswith(f"; not compared: {', '.join(named)}, which a restore recomputes")
    assert progress.sentences == [
        'Not compared: generated columns of "public"."parts", "public"."ranked". The backup does not contain them; the restore recomputed them, and'
        " their values differ if a function that they use was replaced after the rows had been written."
    ]


@pytest.mark.slow
def test_policies_for_roles_are_verified(migrated, taken):
    role = f"{migrated.name}_reads"
    migrated.execute(f"CREATE ROLE {role}")
    try:
        manifest = taken(
            f"ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY;"
            f" CREATE POLICY p ON users TO {role} USING (false)"
        )
        assert (manifest.state, manifest.verdict.reason) == ("good", "")
    finally:
        migrated.execute(f"DROP POLICY IF EXISTS p ON users; DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.slow
def test_rows_that_break_a_constraint_of_their_own_are_bad_and_the_constraint_is_named(taken):
    same = taken(
        "CREATE TABLE limits (top int); INSERT INTO limits VALUES (9);"
        " CREATE TABLE parts (id int); INSERT INTO parts VALUES (1), (1);"
        " CREATE UNIQUE INDEX parts_once ON parts (id) WHERE id > 1;"
        " UPDATE pg_index SET indpred = NULL WHERE indexrelid = 'parts_once'::regclass"
    )

    if same.verdict.server == same.server:
        assert (same.state, same.verdict.reason) == ("bad", "INDEX parts_once (23505) cannot be restored")
    else:  # A newer server verified it.
        assert same.state == "unverified"


@pytest.mark.slow
def test_an_index_that_was_invalid_when_a_backup_was_taken_does_not_make_it_bad(migrated, taken):
    """pg_dump leaves it out."""
    name = "price_history_origin_destination_departDate_idx"
    manifest = taken(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '\"{name}\"'::regclass")

    assert (manifest.state, manifest.verdict.reason) == ("good", "")
    assert f"index.weaker at price_history.{name}" in manifest.findings


@pytest.mark.slow
def test_tables_are_looked_for_in_the_configured_schema(migrated, taken, place):
    missing = "ALTER TABLE fly2any.users DROP CONSTRAINT users_email_key"
    moved = (
        "ALTER SCHEMA public RENAME TO fly2any; CREATE SCHEMA public; CREATE TABLE public.django_migrations AS"
        " SELECT 1 AS id, 'shop'::text AS app, '0001_initial'::text AS name, now() AS applied;"
        f" ALTER DATABASE {migrated.name} SET search_path = fly2any"
    )

    good = taken(moved)
    found = taken(missing, edit=lambda manifest: dataclasses.replace(manifest, findings=()))

    assert (good.schema, good.state, good.verdict.reason) == ("fly2any", "good", "")
    assert found.state == "bad"
    assert "dbstatus finds" in found.verdict.reason
    assert "users_email_key" in found.verdict.reason


RESTORED = TrialResult((), (), ())


@pytest.mark.parametrize(
    ("found", "facts", "expected"),
    [
        (RESTORED, {}, ("", "good")),
        (RESTORED, {"readable": False}, ("pg_restore cannot read the whole dump.", "bad")),
        (TrialResult((), (), (), "it counted 1"), {}, ("it counted 1", "unverified")),
        (
            TrialResult((), ("t has 1 row instead of 2",), (), "it counted 1"),
            {},
            ("t has 1 row instead of 2; it counted 1", "unverified"),
        ),
        (TrialResult((Failure("EXTENSION x", "0A000"),), (), (), "it counted 2"), {}, ("it counted 2", "unverified")),
        (TrialResult((), ("t has 1 row instead of 2",), ()), {}, ("t has 1 row instead of 2", "bad")),
        (
            TrialResult((), ("t has 1 row instead of 2",), ()),
            {"unlike": ("another locale",)},
            ("t has 1 row instead of 2", "bad"),
        ),
        (TrialResult((), (), ("t is missing",)), {}, ("t is missing", "bad")),
        (
            TrialResult((), (), ("t is missing",)),
            {"unlike": ("another locale",)},
            ("t is missing; it was tried with another locale", "unverified"),
        ),
        (TrialResult((Failure("EXTENSION postgis", "0A000"),), (), ()), {}, ("", "good")),
        (
            TrialResult((Failure("EXTENSION x", "0A000", 7), Failure("COMMENT EXTENSION x", "42704", 8, (7,))), (), ()),
            {},
            ("", "good"),
        ),
        (
            TrialResult(
                (Failure("FUNCTION f()", "42501", 7), Failure("VIEW w", "42P01", 9, (8,)), Failure("VIEW v", "42883", 8, (7,))),
                (),
                (),
            ),
            {},
            ("", "good"),
        ),
        (
            TrialResult((Failure("FUNCTION f()", "42501", 7), Failure("INDEX i", "23505", 8, (7,))), (), ()),
            {},
            ("INDEX i (23505) cannot be restored; FUNCTION f() (42501) was left out", "unverified"),
        ),
        (
            TrialResult((Failure("TABLE DATA t", "42501"),), ("t has 0 rows instead of 2",), ()),
            {},
            ("TABLE DATA t (42501) could not be restored here", "unverified"),
        ),
        (TrialResult((Failure("INDEX i", "0A000"),), (), ()), {}, ("INDEX i (0A000) could not be restored here", "unverified")),
        (
            TrialResult((Failure("CONSTRAINT c", "58P01"),), (), ()),
            {},
            ("CONSTRAINT c (58P01) could not be restored here", "unverified"),
        ),
        (
            TrialResult((Failure("TABLE DATA t", "53100"),), ("t has 0 rows instead of 2",), ()),
            {},
            ("TABLE DATA t (53100) could not be restored here", "unverified"),
        ),
        (
            TrialResult((Failure("INDEX i", "53400"),), (), ("dbstatus finds index.missing at i",)),
            {},
            ("INDEX i (53400) could not be restored here", "unverified"),
        ),
        (
            TrialResult((Failure("TABLE DATA t", "22P02"),), ("t has 0 rows instead of 2",), ()),
            {},
            ("TABLE DATA t (22P02) cannot be restored; t has 0 rows instead of 2", "bad"),
        ),
        (
            TrialResult((), ("t has 1 row instead of 2",), ()),
            {"untrusted": ("mallory",)},
            ("t has 1 row instead of 2; code of mallory may have run in the trial restore", "unverified"),
        ),
        (
            TrialResult((), (), ("1", "2", "3", "4", "5", "6")),
            {"untrusted": ("mallory", "bob")},
            ("1; 2; 3; 4; 5; and 1 more; code of mallory, bob may have run in the trial restore", "unverified"),
        ),
        (RESTORED, {"untrusted": ("mallory",), "readable": False}, ("pg_restore cannot read the whole dump.", "bad")),
        (RESTORED, {"untrusted": ("mallory",)}, ("", "good")),
    ],
)
def test_a_verdict_follows_from_states_and_comparison(found, facts, expected):
    assert decide(found, **{"readable": True, "unlike": (), "by_copy": True, "untrusted": (), **facts}) == expected


COUNTS = "warning: errors ignored on restore: "


@pytest.mark.parametrize(
    ("code", "last", "named", "logged", "expected"),
    [
        (0, "finished", 0, 0, ""),
        (1, f"{COUNTS}2", 2, 2, ""),
        (1, f"{COUNTS}2", 1, 1, "pg_restore counted 2 failures, named 1, and the server logged 1"),
        (1, f"{COUNTS}2", 1, 2, "pg_restore counted 2 failures, named 1, and the server logged 2"),
        (1, "error: server closed the connection", 1, 1, "pg_restore exited with 1 and gave no reason"),
        (0, "finished", 0, 1, "pg_restore counted 0 failures, named 0, and the server logged 1"),
    ],
)
def test_failures_are_known_where_pg_restore_counts_no_others(code, last, named, logged, expected):
    assert unknown_failures(code, last, named=named, logged=logged) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "left_out",
    ["SELECT 1", "CREATE FUNCTION quiet(int) RETURNS int LEAKPROOF LANGUAGE sql AS 'SELECT 1'"],
    ids=["a comment", "a comment and a function"],
)
def test_a_failure_that_pg_restore_counts_but_does_not_name_prevents_verification(taken, tmp_path, monkeypatch, left_out):
    choose = tools.choose

    def counting_one_more(server, **wanted):
        real = choose(server, **wanted)
        for program in ("pg_dump", "pg_restore"):
            script = tmp_path / program
            script.write_text(
                f'#!/bin/bash\n"{real.folder / program}" "$@" 2> >(awk \'/errors ignored/ {{$NF += 1}} {{print}}\' >&2)\n'
            )
            script.chmod(0o755)
        return tools.Tools(tmp_path, real.version)

    monkeypatch.setattr(tools, "choose", counting_one_more)

    manifest = taken(f"CREATE EXTENSION pg_stat_statements; COMMENT ON EXTENSION pg_stat_statements IS 'ours'; {left_out}")

    assert manifest.state == "unverified"
    assert re.fullmatch(r"pg_restore counted \d+ failures, named \d+, and the server logged \d+", manifest.verdict.reason)


@pytest.mark.slow
def test_a_verdict_without_an_outcome_is_read_as_before(taken, migrated, place):
    manifest = taken()
    path = f"{place}/{manifest.name}.json"
    with open(path) as file:
        data = json.load(file)
    verdict = {"at": "2026-01-01T00:00:00+00:00", "server": "18.6", "reason": "cut short"}
    del data["hashing"]

    old = from_json(json.dumps(data | {"format": 1, "verdict": verdict}), where=f"{manifest.name}.json")

    assert (old.state, old.verdict) == ("bad", Verdict(datetime(2026, 1, 1, tzinfo=UTC), "18.6", "cut short"))


@pytest.mark.slow
def test_a_bad_backup_stays_bad_if_it_cannot_be_tried_again(taken, migrated, place, monkeypatch):
    manifest = taken(
        edit=lambda manifest: dataclasses.replace(manifest, tables={**manifest.tables, '"public"."users"': Content(3, "1")})
    )
    monkeypatch.setattr("fly2any.database.backup.tools.FOLDERS", ())
    monkeypatch.setattr("fly2any.database.backup.tools.embedded_folder", lambda: None)

    with django(migrated) as connection:
        again = check(connection, Folder(place), manifest, Progress())

    assert (manifest.state, again.state, [one.state for one in backups(Folder(place)).manifests]) == (
        "bad",
        "unverified",
        ["bad"],
    )


@pytest.mark.slow
def test_a_verified_backup_stays_verified_if_it_cannot_be_tried_again(taken, migrated, place, monkeypatch):
    manifest = taken()
    monkeypatch.setattr("fly2any.database.backup.tools.FOLDERS", ())
    monkeypatch.setattr("fly2any.database.backup.tools.embedded_folder", lambda: None)

    with django(migrated) as connection:
        # Also an older manifest, read before another run verified it.
        again = [
            check(connection, Folder(place), one, Progress()) for one in (manifest, dataclasses.replace(manifest, verdict=None))
        ]
        assert [one.state for one in backups(Folder(place)).manifests] == ["good"]
        Folder(place).delete(f"{manifest.name}.json")
        with pytest.raises(Refusal, match=rf"^{manifest.name} was removed during its verification: no verdict was stored\.$"):
            check(connection, Folder(place), manifest, Progress())

    assert (manifest.state, *(one.state for one in again)) == ("good", "unverified", "unverified")
    assert "needs the server programs of PostgreSQL" in again[0].verdict.reason
    assert backups(Folder(place)).manifests == ()


@pytest.mark.slow
def test_different_rows_are_bad_and_their_table_is_named(taken):
    def lose(manifest):
        return dataclasses.replace(manifest, tables={**manifest.tables, '"public"."users"': Content(3, "1")})

    manifest = taken(edit=lose)

    assert (manifest.state, manifest.verdict.reason) == ("bad", '"public"."users" has 0 rows instead of 3')


def test_a_dump_whose_reading_is_interrupted_is_not_called_damaged(tmp_path):
    program = tools.choose(15, tls=False).folder / "pg_restore"
    (tmp_path / "damaged").write_text("no dump")
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)

    with FileIO(tmp_path / "damaged") as dump:
        assert tools.read(program, dump, "--list") is None
        with pytest.raises(
            Refusal, match=r"^pg_restore was terminated by signal 9 while it read the dump: run the command again\.$"
        ):
            tools.read(killed, dump, "--list")
