"""Triggers whose functions no other role owns, created by a role with TRIGGER to run its own code."""

from contextlib import contextmanager

import pytest
from django.db import transaction

from fly2any.database.errors import Refusal
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Progress
from fly2any.database.schema.untrusted_code import read_untrusted_code, refuse_untrusted_code
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.other_roles import other_role

EVIL = (
    "CREATE FUNCTION mal.evil() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$",
    "CREATE FUNCTION mal.yes(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$",
    "CREATE DOMAIN mal.checked AS text CHECK (mal.yes(VALUE))",
    "CREATE TYPE mal.kind AS ENUM ('k')",
    "CREATE FUNCTION mal.to_json(mal.kind) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$",
    "CREATE CAST (mal.kind AS json) WITH FUNCTION mal.to_json(mal.kind)",
    "CREATE FUNCTION mal.key(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'",
    "CREATE TABLE mal.parted (a text) PARTITION BY HASH ((a || mal.key('')))",
)
TRIGGER = (
    "CREATE TRIGGER zz BEFORE UPDATE ON users FOR EACH ROW WHEN ({}) EXECUTE FUNCTION suppress_redundant_updates_trigger()"
)
REWRITE = "ts_rewrite('a'::tsquery, 'SELECT mal.evil()::tsquery, ''b''::tsquery') IS NOT NULL"
CONDITIONS = {  # What PostgreSQL calls, and why it is refused.
    REWRITE: "its condition calls ts_rewrite",
    "OLD.name IS NULL OR CASE WHEN OLD.name = '' THEN true ELSE " + REWRITE + " END": "its condition calls ts_rewrite",
    "query_to_xml('SELECT mal.evil()', false, false, '') IS NOT NULL": "its condition calls query_to_xml",
    "domain_in('x', {domain}, -1) IS NOT NULL": "its condition calls domain_in",
    "satisfies_hash_partition({parted}, 1, 0, OLD.id)": "its condition calls satisfies_hash_partition",
    "set_config('search_path', 'mal', false) = ''": "its condition calls set_config",
    "nextval('mal.numbers') = 1": "its condition calls nextval",
}
FROM_16 = {"pg_input_is_valid('x', 'mal.checked')": "its condition calls pg_input_is_valid"}
FROM_17 = {"json_value(jsonb '\"x\"', '$' RETURNING mal.checked) IS NULL": "its condition contains JSONBEHAVIOR"}
HARMLESS = (
    "OLD.* IS DISTINCT FROM NEW.*",
    "to_jsonb(OLD) - 'updatedAt' <> to_jsonb(NEW) - 'updatedAt'",
    "OLD.email::varchar COLLATE \"C\" IN ('a', 'b') AND lower(NEW.email) LIKE ANY (ARRAY['a%', NEW.name || '%'])",
    "pg_trigger_depth() = 0 AND current_setting('a.b', true) IS NULL AND current_user <> 'a' AND NOT OLD.\"isStaff\"",
    "CASE OLD.name WHEN 'a' THEN random() < 0.5 ELSE COALESCE(GREATEST(OLD.name, NEW.name), NULLIF(NEW.name, '')) IS NULL END",
    '(OLD.id, OLD.name) < (NEW.id, NEW.name) OR ROW(OLD.id, 1)::text IS NULL AND (OLD."isStaff" IS NOT TRUE)',
    "NEW.\"updatedAt\" < now() - interval '1 day' AND clock_timestamp() > CURRENT_TIMESTAMP AND gen_random_uuid() IS NOT NULL",
    "to_tsvector('english', NEW.name) @@ to_tsquery('simple', 'a') AND (ARRAY[now()])[1] > now() - make_interval(days => 1)",
    "(string_to_array(NEW.name, ',')::varchar(3)[])[1] = 'a' AND public.own(NEW.name)",
)
UNKNOWN = "may run code of the role that created it, which PostgreSQL does not record, with the privileges of the role that writes to users"
OWN = "CREATE FUNCTION public.own(text) RETURNS bool LANGUAGE sql RETURN true"


def found(database, **wanted):
    with django(database) as connection:
        return [(one.finding.message, one.cure) for one in read_untrusted_code(connection, schema="public", **wanted)]


def version(database):
    with django(database) as connection:
        connection.ensure_connection()
        return connection.pg_version


@contextmanager
def holder(database, *statements):
    """A role with a schema, which may create triggers on users; it runs the statements."""
    with other_role(database, *EVIL) as role:
        database.execute(f"GRANT TRIGGER ON users TO {role}")
        with database.connect() as client:
            client.execute(f"SET ROLE {role}")
            for statement in statements:
                client.execute(statement)
        try:
            yield role
        finally:
            database.execute("DROP TRIGGER IF EXISTS zz ON users; DROP SCHEMA mal CASCADE")


def test_a_condition_that_runs_any_code_is_refused(migrated):
    conditions = dict(CONDITIONS)
    if (running := version(migrated)) >= 16_00_00:
        conditions |= FROM_16
    if running >= 17_00_00:
        conditions |= FROM_17
    seen = {}
    with holder(migrated, "CREATE SEQUENCE mal.numbers") as role:
        [(domain, parted)] = migrated.execute("SELECT 'mal.checked'::regtype::oid, 'mal.parted'::regclass::oid")
        for condition in conditions:
            trigger = TRIGGER.format(condition.replace("{domain}", str(domain)).replace("{parted}", str(parted)))
            if "xml" in condition and running >= 18_00_00:
                trigger = trigger.replace("IS NOT NULL", "::text <> ''")
            migrated.execute(f"SET ROLE {role}; {trigger}")
            seen[condition] = [message for message, _ in found(migrated)]
            migrated.execute("DROP TRIGGER zz ON users")

    assert seen == {
        condition: [f"Trigger zz ON public.users {UNKNOWN}, because {why}."] for condition, why in conditions.items()
    }


def test_a_condition_that_casts_an_enum_of_another_role_to_json_is_refused(migrated):
    with holder(migrated, TRIGGER.format("to_json('k'::mal.kind) IS NOT NULL")) as role:
        messages = [message for message, _ in found(migrated)]

    assert messages == [
        f"Trigger zz of users runs code of the role {role} with the privileges of the role that writes to users."
    ]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ["mal.kind", "mal.kind[]", "public.pair"])
@pytest.mark.parametrize("condition", ["to_jsonb(OLD) IS DISTINCT FROM to_jsonb(NEW)", "to_json(OLD.made) IS NOT NULL"])
def test_a_condition_that_converts_a_column_of_another_roles_enum_to_json_is_refused(migrated, kind, condition):
    with holder(migrated) as role:
        migrated.execute("DROP CAST (mal.kind AS json)")  # Its owner may create it again at any time.
        migrated.execute(f"CREATE TYPE public.pair AS (a mal.kind); ALTER TABLE users ADD made {kind}")
        migrated.execute(TRIGGER.format(condition))
        messages = [message for message, _ in found(migrated)]
        migrated.execute(f"DROP TRIGGER zz ON users; {TRIGGER.format('OLD.made IS DISTINCT FROM NEW.made')}")
        compared = found(migrated)

    assert messages == [
        f"Trigger zz of users runs code of the role {role} with the privileges of the role that writes to users."
    ]
    assert compared == []


@pytest.mark.parametrize("granted", [True, False])
def test_the_condition_is_refused_whether_its_creator_may_still_create_triggers(migrated, granted):
    with holder(migrated, TRIGGER.format(REWRITE)) as role:
        if not granted:
            migrated.execute(f"REVOKE TRIGGER ON users FROM {role}")
        with django(migrated) as connection, transaction.atomic(using=connection.alias), pytest.raises(Refusal) as refusal:
            refuse_untrusted_code(connection, ["users"], updates=["name"])
        [cure] = [one.cure for one in verified(migrated)]

    revoke = f" REVOKE TRIGGER ON public.users FROM {role};" if granted else ""
    assert cure == (
        f"DROP TRIGGER zz ON public.users;{revoke} or, if the owner of the table created it, let the owner create it again without WHEN,"
        " and test the condition in its function."
    )
    assert (
        str(refusal.value)
        == f"Nothing was changed. Trigger zz ON public.users {UNKNOWN}, because its condition calls ts_rewrite. {cure}"
    )


def verified(database):
    with django(database) as connection:
        return [one for one in verify(connection).findings if one.code == "tables.untrusted"]


def test_a_condition_on_a_table_that_a_foreign_key_leads_to_is_refused(migrated):
    migrated.execute(
        "CREATE SCHEMA site; CREATE TABLE site.notes (id text REFERENCES users ON DELETE SET NULL ON UPDATE CASCADE)"
    )
    with holder(migrated) as role:
        migrated.execute(f"GRANT USAGE ON SCHEMA site TO {role}; GRANT TRIGGER ON site.notes TO {role}")
        migrated.execute(f"SET ROLE {role}; {TRIGGER.format(REWRITE).replace('ON users', 'ON site.notes')}")
        messages = [message for message, _ in found(migrated, tables=["users"])]
        inserts = found(migrated, tables=["users"], deletes=False, updates=())
        migrated.execute("DROP SCHEMA site CASCADE")

    assert messages == [
        f"Trigger zz ON site.notes, whose foreign key references users, {UNKNOWN}, because its condition calls ts_rewrite."
    ]
    assert inserts == []


def test_the_usual_conditions_are_accepted(migrated):
    migrated.execute(OWN)
    for number, condition in enumerate(HARMLESS):
        migrated.execute(TRIGGER.replace("zz", f"t{number}").format(condition))

    assert found(migrated) == []


# The function of a trigger, what it needs, and how a role that may create triggers can misuse it.
MISUSED = {
    "RI_FKey_cascade_del": ("", 'EXECUTE FUNCTION "RI_FKey_cascade_del"()', "its function is PostgreSQL's own"),
    "arguments": ("", "EXECUTE FUNCTION public.note('name')", "it passes arguments to its function"),
    "a function for another table": (
        """CREATE FUNCTION public.promotes() RETURNS trigger LANGUAGE plpgsql
           AS 'BEGIN UPDATE users SET "isStaff" = true WHERE id = NEW.id; RETURN NEW; END'""",
        "EXECUTE FUNCTION public.promotes()",
        "its function does more than set columns to the current time",
    ),
    "a function in the condition": (
        OWN,
        "WHEN (public.own(OLD.name)) EXECUTE FUNCTION public.note()",
        "its condition calls own",
    ),
}
NOTE = "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
ROWS = "CREATE TRIGGER zz BEFORE UPDATE ON users FOR EACH ROW"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("grantee", ["role", "PUBLIC"])
@pytest.mark.parametrize("misused", MISUSED)
def test_a_function_that_can_be_misused_is_refused_while_another_role_may_create_triggers(migrated, misused, grantee):
    made, trigger, why = MISUSED[misused]
    migrated.execute(f"{NOTE}; {made}")
    with holder(migrated, f"{ROWS if misused != 'RI_FKey_cascade_del' else ROWS.replace('BEFORE', 'AFTER')} {trigger}") as role:
        name = role
        if grantee == "PUBLIC":
            migrated.execute(f"REVOKE TRIGGER ON users FROM {role}; GRANT TRIGGER ON users TO PUBLIC")
            name = "PUBLIC"
        seen = found(migrated)
        migrated.execute(f"REVOKE TRIGGER ON users FROM {name}")
        of_the_site = found(migrated)

    assert seen == [
        (
            f"Trigger zz ON public.users {UNKNOWN}, because {name} may create triggers there, and {why}.",
            f"Unless the site created it, DROP TRIGGER zz ON public.users; then, in both cases, REVOKE TRIGGER ON public.users FROM {name};"
            " which removes no trigger.",
        )
    ]
    assert of_the_site == []


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "trigger",
    [
        "EXECUTE FUNCTION public.note()",
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION public.note()",
        "EXECUTE FUNCTION tsvector_update_trigger('words', 'pg_catalog.english', 'name')",
    ],
)
def test_a_function_that_cannot_be_misused_is_accepted(migrated, trigger):
    migrated.execute(NOTE)
    with holder(migrated, f"{ROWS} {trigger}"):
        assert found(migrated) == []


def test_a_function_of_an_extension_that_another_role_installed_is_refused(migrated):
    if not migrated.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'lo'"):
        pytest.skip("The server has no extension lo.")
    migrated.execute(f"GRANT CREATE ON DATABASE {migrated.name} TO PUBLIC")
    trigger = "CREATE TRIGGER zz BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION mal.lo_manage('name')"
    with holder(migrated, "CREATE EXTENSION lo SCHEMA mal", trigger) as role:
        migrated.execute("CREATE EXTENSION moddatetime")
        migrated.execute(
            f"SET ROLE {role}; CREATE TRIGGER at BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION moddatetime('updatedAt')"
        )
        messages = [message for message, _ in found(migrated)]

    assert messages == [
        f"Trigger zz ON public.users {UNKNOWN}, because {role} may create triggers there, and its function belongs to the extension lo."
    ]


def run(connection):
    with migrating(connection.alias, patience=1, progress=Progress()):
        pass


def test_a_run_of_migrations_looks_before_it_revokes(migrated):
    migrated.execute(NOTE)
    with holder(migrated, f"{ROWS} EXECUTE FUNCTION public.note('name')") as role, django(migrated) as connection:
        for _ in range(2):
            with pytest.raises(
                Refusal, match=rf"^Nothing was changed\. Trigger zz ON public\.users .* because {role} may create"
            ):
                run(connection)
        assert migrated.execute(f"SELECT has_table_privilege('{role}', 'users', 'TRIGGER')") == [(True,)]
        migrated.execute("DROP TRIGGER zz ON users")
        run(connection)
        assert migrated.execute(f"SELECT has_table_privilege('{role}', 'users', 'TRIGGER')") == [(False,)]
