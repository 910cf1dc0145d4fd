"""Tables that a trigger of the site writes to: a role that may add triggers or foreign keys to one runs no code by that."""

import re
from contextlib import contextmanager

import pytest
from django.db import transaction
from psycopg.errors import LockNotAvailable

from fly2any.database.errors import Refusal
from fly2any.database.schema.untrusted_code import read_untrusted_code, refuse_untrusted_code
from tests.conftest import django
from tests.database.other_roles import other_role

SITE = """
    CREATE SCHEMA site; GRANT USAGE ON SCHEMA site TO PUBLIC;
    CREATE TABLE site.audit (id text); CREATE TABLE site.profiles (id text PRIMARY KEY);
    CREATE FUNCTION site.writes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO site.audit VALUES (OLD.id); DELETE FROM site.profiles WHERE id = OLD.id; RETURN NULL; END $$;
    CREATE TRIGGER aud AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION site.writes();
"""
RAN = "CREATE FUNCTION mal.ran() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$"
CODE = (
    "CREATE FUNCTION mal.one(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1",
    "CREATE FUNCTION mal.yes(text) RETURNS bool LANGUAGE sql IMMUTABLE RETURN true",
    "CREATE OPERATOR mal.~~~ (RIGHTARG = text, FUNCTION = mal.yes)",
    "CREATE DOMAIN mal.words AS text CHECK (mal.yes(VALUE))",
    "CREATE TYPE mal.words_pair AS (a mal.words)",
    "CREATE TYPE mal.kind AS ENUM ('k')",
    "CREATE TABLE mal.rows (a int)",
)
PLANTED = "CREATE TRIGGER zz AFTER INSERT ON site.audit FOR EACH ROW EXECUTE FUNCTION mal.ran()"
BY = "a table that the trigger aud ON public.users may write to"
PRIVILEGES = "the privileges of the role that writes to users"


@contextmanager
def site(database, *statements):
    database.execute(SITE)
    with other_role(database, RAN) as role:
        database.execute(f"GRANT TRIGGER ON site.audit TO {role}; GRANT REFERENCES, SELECT ON site.profiles TO {role}")
        for statement in statements:
            database.execute(f"SET ROLE {role}; {statement}")
        try:
            yield role
        finally:
            database.execute("DROP SCHEMA mal CASCADE; DROP SCHEMA site CASCADE")


def found(database, **wanted):
    with django(database) as connection:
        return [one.sentence for one in read_untrusted_code(connection, schema="public", tables=["users"], **wanted)]


def refused(database):
    with django(database) as connection, transaction.atomic(using=connection.alias), pytest.raises(Refusal) as refusal:
        refuse_untrusted_code(connection, ["users"], deletes=True)
    return str(refusal.value)


def test_a_trigger_on_a_table_that_a_trigger_of_the_site_writes_to_is_refused(migrated):
    with site(migrated, PLANTED) as role:
        sentences = found(migrated)
        refusal = refused(migrated)
        inserts = found(migrated, deletes=False, updates=())

    assert sentences == [f"Trigger zz ON site.audit, on {BY}, runs code of the role {role} with {PRIVILEGES}"]
    assert refusal.startswith(f"Nothing was changed. {sentences[0]}. DROP TRIGGER zz ON site.audit; ")
    assert inserts == []


@pytest.mark.parametrize("column", ["", "(id)"])
def test_a_table_that_refers_to_one_that_a_trigger_of_the_site_writes_to_is_refused(migrated, column):
    table = "CREATE TABLE mal.more (id text REFERENCES site.profiles ON DELETE CASCADE)"
    trigger = "CREATE TRIGGER zz AFTER DELETE ON mal.more FOR EACH ROW EXECUTE FUNCTION mal.ran()"
    with site(migrated, table) as role:
        migrated.execute(f"REVOKE ALL ON site.profiles FROM {role}; GRANT REFERENCES {column} ON site.profiles TO {role}")
        plain = found(migrated)
        with django(migrated) as connection, transaction.atomic(using=connection.alias):
            refuse_untrusted_code(connection, ["users"], deletes=True)
            for change in (trigger, PLANTED, table.replace("mal.more", "mal.new")):
                with migrated.connect() as client:
                    client.execute(f"SET lock_timeout = '50ms'; SET ROLE {role}")
                    with pytest.raises(LockNotAvailable):
                        client.execute(change)
        migrated.execute(f"SET ROLE {role}; {trigger}")
        sentences = found(migrated)

    assert plain == []
    assert sentences == [
        f"Table mal.more, which foreign keys connect with {BY}, may run code of the role {role} with {PRIVILEGES}, because it has a trigger"
    ]


def test_triggers_added_before_the_right_was_revoked_are_refused(migrated):
    with site(migrated, PLANTED) as role:
        migrated.execute(f"REVOKE ALL ON site.audit, site.profiles FROM {role}")
        sentences = found(migrated)

    assert sentences == [f"Trigger zz ON site.audit, on {BY}, runs code of the role {role} with {PRIVILEGES}"]


PARTS = (
    "CREATE INDEX made ON {} (mal.one(id))",
    "CREATE STATISTICS {}_made ON (mal.one(id)), id FROM {}",
    "ALTER TABLE {} ADD CHECK (OPERATOR(mal.~~~) id)",
    "ALTER TABLE {} ALTER id SET DEFAULT mal.one('')",
    "CREATE POLICY made ON {} USING (mal.one(id) = '')",
    "CREATE RULE made AS ON INSERT TO {} WHERE mal.one(NEW.id) = '' DO ALSO SELECT 1",
    "ALTER TABLE {} ADD made mal.words_pair[]",
    "CREATE DOMAIN {}_own AS text CHECK (mal.one(VALUE) <> ''); ALTER TABLE {} ADD made {}_own",
    "CREATE FUNCTION {}_own(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN mal.one($1); ALTER TABLE {} ADD CHECK ({}_own(id) <> '')",
    "DROP TABLE {}; CREATE TABLE {} (id text) PARTITION BY LIST (mal.one(id))",
    "ALTER TABLE {} ADD made mal.kind, ADD CHECK (to_jsonb(made) IS NOT NULL)",
    "CREATE TYPE {}_kinds AS (a mal.kind); ALTER TABLE {} ADD made {}_kinds[], ADD CHECK (to_jsonb(made) IS NOT NULL)",
    "CREATE TABLE {}_kinds (a mal.kind); ALTER TABLE {} ADD made {}_kinds, ADD CHECK (to_jsonb(made) IS NOT NULL)",
    "ALTER TABLE {} ADD made mal.rows, ADD CHECK (to_jsonb(made) IS NOT NULL)",
)


def test_a_part_of_a_table_that_only_a_trigger_of_the_site_writes_to_is_refused(migrated):
    with site(migrated, *CODE) as role:
        migrated.execute(f"REVOKE ALL ON site.audit, site.profiles FROM {role}")
        tables = [f"site.part{number:02}" for number in range(len(PARTS))]
        for table, part in zip(tables, PARTS, strict=True):
            migrated.execute(f"CREATE TABLE {table} (id text)")
            migrated.execute(part.replace("{}", table).replace("INDEX made", f"INDEX {table.partition('.')[2]}_made"))
        sentences = found(migrated)
        refusal = refused(migrated)

    assert sorted({re.search(r"site\.part\d+", sentence)[0] for sentence in sentences}) == tables
    assert {sentence.partition(" runs ")[2] for sentence in sentences} == {f"code of the role {role} with {PRIVILEGES}"}
    assert refusal.startswith(f"Nothing was changed. {sentences[0]}. Ask the owner of ")


def test_a_rule_counts_as_a_trigger(migrated):
    with site(migrated, PLANTED):
        migrated.execute(
            "DROP TRIGGER aud ON users; CREATE RULE aud AS ON DELETE TO users DO ALSO INSERT INTO site.audit VALUES (OLD.id)"
        )
        sentences = found(migrated)

    assert [sentence.partition(" may ")[0] for sentence in sentences] == [
        "Trigger zz ON site.audit, on a table that the rule aud ON public.users"
    ]


@pytest.mark.parametrize(
    "changed",
    [
        "ALTER TABLE users DISABLE TRIGGER aud",
        "DROP TRIGGER aud ON users",
        """DROP TRIGGER aud ON users; CREATE FUNCTION site.stamps() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN NEW."updatedAt" = now(); NEW.name := CURRENT_TIMESTAMP; RETURN NEW; END; $$;
           CREATE TRIGGER aud BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION site.stamps()""",
        "DROP TRIGGER aud ON users; CREATE TRIGGER aud BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ],
)
def test_a_trigger_that_writes_nothing_else_hides_nothing(migrated, changed):
    with site(migrated, PLANTED):
        migrated.execute(changed)
        assert found(migrated) == []


def test_a_key_to_a_table_of_another_role_is_not_followed_from_there(migrated):
    with site(migrated, "CREATE TABLE mal.accounts (id text PRIMARY KEY CHECK (id <> ''))") as role:
        migrated.execute("ALTER TABLE site.profiles ADD FOREIGN KEY (id) REFERENCES mal.accounts")
        sentences = found(migrated)
        migrated.execute(f"SET ROLE {role}; DROP TABLE mal.accounts CASCADE")

    assert sentences == []
