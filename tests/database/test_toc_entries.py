"""Objects of other roles that prevent verifying or restoring a backup, and are left out by owner."""

import dataclasses

import pytest

from fly2any.database.backup import render, tools
from fly2any.database.backup.restore import restore_into
from fly2any.database.backup.script import statements_of
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import RecordedProgress, databases

# Rows that violate their own check, in tables with unprintable names, and code on a table of ours.
HOSTILE = """
    CREATE FUNCTION public.fx(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE TABLE public.mm (a int CHECK (public.fx(a))); INSERT INTO public.mm VALUES (1);
    CREATE TABLE public.{lines} (LIKE public.mm INCLUDING ALL); INSERT INTO public.{lines} VALUES (1);
    CREATE TABLE public."a""."".""b é" (LIKE public.mm INCLUDING ALL); INSERT INTO public."a""."".""b é" VALUES (1);
    CREATE FUNCTION public.tf() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$;
    CREATE TRIGGER zz BEFORE INSERT ON public.users FOR EACH ROW EXECUTE FUNCTION public.tf();
    CREATE OR REPLACE FUNCTION public.fx(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
    SELECT lo_create(0);
""".replace("{lines}", '"x\\n\\u2028;\\v7; 0 0 TABLE é"')
COUNT = "SELECT count(*) FROM {}"


@pytest.fixture
def mallory(migrated):
    """A role that may create in `public`, and triggers on `users`."""
    role = f"{migrated.name}_mallory"
    migrated.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}; GRANT TRIGGER ON users TO {role}")
    yield role
    migrated.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.slow
def test_objects_of_another_role_prevent_neither_verification_nor_restore(migrated, mallory, place):
    name = f"{migrated.name}_copy"
    migrated.execute("CREATE TABLE trips (id int); INSERT INTO trips VALUES (1), (2)")
    dataclasses.replace(migrated, user=mallory).execute(HOSTILE)
    try:
        with django(migrated) as connection:
            store, recorded = store_at(place), RecordedProgress()
            manifest = check(connection, store, take(connection, store, Progress()), Progress())
            with pytest.raises(Refusal, match=rf"if you trust it, add --trust {mallory}\.$") as refused:
                restore_into(connection, name, store, manifest, recorded)
            restore_into(connection, name, store, manifest, recorded, without=[mallory])

        assert (manifest.state, manifest.verdict.reason) == ("good", "")
        assert f": leave out the objects of that role with --without {mallory}; or check " in str(refused.value)
        [left_out] = manifest.verdict.left_out
        assert left_out.startswith(f"objects of {mallory} (FUNCTION public fx(integer), ")
        assert "the rows of every restored table hashed and compared" in render.verdict(manifest)
        assert left_out.endswith(f"; code of {mallory} may have run in the trial restore)")
        assert [sentence.partition(": ")[0] for sentence in recorded.sentences] == [
            f"Left out, because it belongs to {mallory} or depends on such an object"
        ]
        copy = dataclasses.replace(migrated, name=name)
        assert copy.execute(COUNT.format("trips")) == [(2,)]
        owners = "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert (copy.execute(owners), copy.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")) == (
            [("postgres",)],
            [],
        )
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.mark.slow
def test_objects_that_are_not_only_another_roles_are_not_left_out(migrated, mallory, place):
    made = f"CREATE TYPE mood AS ENUM ('a'); ALTER TYPE mood OWNER TO {mallory}; CREATE TABLE moods (mood mood)"
    copy, store = f"{migrated.name}_copy", store_at(place)
    with django(migrated) as connection:
        for statement, table in (
            (made, "moods"),
            (f"DROP TABLE moods; ALTER TABLE price_history OWNER TO {mallory}", "price_history"),
        ):
            migrated.execute(statement)
            manifest = take(connection, store, Progress())
            with pytest.raises(Refusal, match=rf"^Table public\.{table} cannot be left out with the objects of {mallory}: "):
                restore_into(connection, copy, store, manifest, Progress(), without=[mallory])
        with pytest.raises(Refusal, match=r"^Nothing in .* belongs to nobody: omit --without nobody\.$"):
            restore_into(connection, copy, store, manifest, Progress(), without=["nobody"])
    assert copy not in databases(migrated)


INTERNAL = "ALTER TABLE ONLY public.x ALTER COLUMN y SET (pg_attver=1);"


def test_texts_that_look_like_statements_do_not_prevent_a_backup(migrated, place):
    text = f"\n{INTERNAL}\n"
    migrated.execute(f"""CREATE SCHEMA theirs; COMMENT ON SCHEMA theirs IS '{text}'; CREATE TABLE theirs."{text[:60]}" (id int);
                         CREATE FUNCTION theirs.f() RETURNS text LANGUAGE plpgsql AS $f$BEGIN /*{text}*/ RETURN ''; END$f$""")
    with django(migrated) as connection:
        manifest = take(connection, store_at(place), Progress())

    assert manifest.name.startswith(f"{migrated.name}-")


def test_statements_end_outside_quotations_only():
    texts = ["'a;''\n'", r"E'\';\n'", '"a;""\n"', "$$;\n'$$", "$_1$;$$\n$_1$"]
    script = "\n".join(f"-- a comment; 'of\n\\connect x\nSELECT {text}, x;" for text in [*texts, "1"])

    assert list(statements_of(script + "\nSELECT 'without an end; SELECT 2;")) == [
        f"SELECT {text}, x" for text in [*texts, "1"]
    ]
    [internal] = statements_of(INTERNAL)
    assert tools.INTERNAL.fullmatch(internal)
