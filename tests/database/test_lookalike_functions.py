"""Look-alikes of what the site's functions call, in the search path: no write runs them with our privileges."""

import json

import pytest
from django.db import transaction

from fly2any.database.errors import Refusal
from fly2any.database.schema.untrusted_code import refuse_untrusted_code
from fly2any.database.verification import verify
from tests.conftest import django, manage
from tests.database.other_roles import other_role

TRIGGER = """
    CREATE FUNCTION public.site_event() RETURNS trigger LANGUAGE plpgsql {} AS $$ BEGIN PERFORM json_build_object('id', NEW.id); RETURN NULL; END $$;
    CREATE TRIGGER site_event AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION public.site_event()
"""
SLUG = "CREATE FUNCTION public.site_slug(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE {} AS $$ BEGIN RETURN lower(t) || json_build_object('a', t)::text; END $$; "
INDEX = f"{SLUG}CREATE INDEX site_slugs ON users (public.site_slug(name))"
LOOT = (
    "CREATE TABLE mal.loot (who text); GRANT USAGE ON SCHEMA mal TO PUBLIC; GRANT ALL ON mal.loot TO PUBLIC",
    "CREATE FUNCTION mal.json_build_object(text, text) RETURNS json LANGUAGE plpgsql AS $$ BEGIN INSERT INTO mal.loot VALUES (current_user); RETURN '{}'; END $$",
)
IN_PUBLIC = "ALTER FUNCTION mal.json_build_object SET SCHEMA public"
OPERATOR = (
    "CREATE FUNCTION mal.joined(text, text) RETURNS text LANGUAGE sql RETURN $1",
    "CREATE OPERATOR mal.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = mal.joined)",
)
FUNCTION = "function json_build_object(text,text)"


def refusal(database):
    """Why an update of users is refused, "" if it is not, and the findings of `dbstatus`."""
    with django(database) as connection:
        findings = [one.message for one in verify(connection).findings if one.code == "tables.untrusted"]
        try:
            with transaction.atomic(using=connection.alias):
                refuse_untrusted_code(connection, ["users"], updates=["name"])
        except Refusal as error:
            return str(error), findings
    return "", findings


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("site", "caller", "statements", "moved", "named"),
    [
        (TRIGGER.format(""), "site_event()", LOOT, IN_PUBLIC, "function public.json_build_object(text,text)"),
        (INDEX.format(""), "site_slug(text)", LOOT, IN_PUBLIC, "function public.json_build_object(text,text)"),
        (f"{SLUG.format('')}ALTER TABLE users ADD CHECK (public.site_slug(name) <> '')", "site_slug(text)", LOOT, IN_PUBLIC,
         "function public.json_build_object(text,text)"),
        (INDEX.format('SET search_path = "$user", mal'), "site_slug(text)", LOOT, "", "function mal.json_build_object(text,text)"),
        (INDEX.format(""), "site_slug(text)", OPERATOR, "ALTER OPERATOR mal.|| (text, text) SET SCHEMA public", "operator public.||(text,text)"),
    ],
    ids=["a trigger", "an index", "a check", "the function's own path", "an operator"],
)  # fmt: skip
def test_a_lookalike_of_what_a_function_of_the_site_calls_is_refused(migrated, site, caller, statements, moved, named):
    migrated.execute(site)
    with other_role(migrated, *statements) as role:
        migrated.execute(moved or "SELECT 1")
        said, findings = refusal(migrated)
        migrated.execute(f"DROP OWNED BY {role} CASCADE")

    sentence = (
        f"The function public.{caller} may run code of the role {role} with the privileges of the role that writes to users,"
        f" because {named} may be called in place of the one that it names."
    )
    assert findings == [sentence]
    assert said.startswith(
        f'Nothing was changed. {sentence} Ask "{role}" to drop the {named}; REVOKE CREATE ON its schema FROM "{role}", PUBLIC;'
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("site", "statements", "moved"),
    [
        (TRIGGER.format("SET search_path = pg_catalog, pg_temp"), LOOT, IN_PUBLIC),
        ("CREATE FUNCTION public.site_slug(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(t); CREATE INDEX ON users (public.site_slug(name))",
         LOOT, IN_PUBLIC),
        (INDEX.format(""), LOOT, ""),
        (INDEX.format(""), LOOT, f"{IN_PUBLIC}; ALTER FUNCTION public.json_build_object RENAME TO their_own"),
        ("SELECT 1", LOOT, IN_PUBLIC),
    ],
    ids=["a path of PostgreSQL's own", "a tree", "outside the path", "another name", "no function of the site"],
)  # fmt: skip
def test_what_a_function_of_the_site_cannot_call_by_mistake_is_not_refused(migrated, site, statements, moved):
    migrated.execute(site)
    with other_role(migrated, *statements) as role:
        migrated.execute(moved or "SELECT 1")
        refused = refusal(migrated)
        migrated.execute(f"DROP OWNED BY {role} CASCADE")

    assert refused == ("", [])


def test_maintenance_runs_no_lookalike(migrated):
    """Before PostgreSQL 17, ANALYZE evaluates the expressions of indexes with the search path of the session."""
    migrated.execute(INDEX.format(""))
    migrated.execute(
        "INSERT INTO users (id, email, name, \"updatedAt\") VALUES ('a', 'a@example.com', 'Ana', now()); DELETE FROM users"
    )
    migrated.execute("INSERT INTO users (id, email, name, \"updatedAt\") VALUES ('b', 'b@example.com', 'Bea', now())")
    with other_role(migrated, *LOOT) as role:
        migrated.execute(IN_PUBLIC)
        result = manage("dbmaintain", "monthly", "--format", "json", url=migrated.url)
        found = migrated.execute("SELECT who FROM mal.loot")
        migrated.execute(f"DROP OWNED BY {role} CASCADE")

    assert (found, "users" in json.loads(result.stdout)["vacuumed"]) == ([], True)
