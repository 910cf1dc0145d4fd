"""Before PostgreSQL 18, tables of other roles that refer to ours are locked before they are checked, or the write is refused."""

import dataclasses
from contextlib import contextmanager

import pytest
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F, OuterRef, Subquery
from psycopg.errors import LockNotAvailable

from accounts.models import User
from fly2any.database.errors import Refusal
from fly2any.database.schema.checked_writes import Write, checked_writes, read_write, refuse_before_writes
from fly2any.database.schema.untrusted_code import read_untrusted_code, refuse_untrusted_code
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.people import ANA, EMAIL, erased, exported, planned, refused

LOGS = """
    CREATE TABLE mal.log (who text);
    CREATE FUNCTION mal.logs() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO mal.log VALUES (current_user); RETURN NULL; END $$;
"""
# An immutable function that writes to a table whose deferred trigger runs at the COMMIT, before PostgreSQL 18 as the role of the DELETE.
DEFERS = """
    CREATE TABLE mal.queue ();
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mal.queue INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mal.logs();
    CREATE FUNCTION mal.put() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
    CREATE FUNCTION mal.one(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN mal.put(); END $$;
"""
PUTS = """
    CREATE OR REPLACE FUNCTION mal.put() RETURNS int LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO mal.queue DEFAULT VALUES; RETURN 1; END $$;
"""


@contextmanager
def two_roles(database):
    """Yield the database as the site's role sees it, and the name of a role that has a schema of its own and may refer to users."""
    stranger = f"{database.name}_stranger"
    with database.role("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"):
        database.execute(
            f"CREATE ROLE {stranger}; CREATE SCHEMA mal AUTHORIZATION {stranger}; GRANT REFERENCES, SELECT ON users TO {stranger};"
            f"GRANT USAGE ON SCHEMA mal TO {database.name}_role; SET ROLE {stranger}; {LOGS}"
            f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {database.name}_role"
        )
        try:
            yield dataclasses.replace(database, user=f"{database.name}_role"), stranger
        finally:
            database.execute(f"DROP OWNED BY {stranger} CASCADE; DROP ROLE {stranger}")


def is_before_18(database):
    return database.execute("SELECT current_setting('server_version_num')::int < 180000") == [(True,)]


def may_run(role, user, table="mal.orders"):
    return (
        f"Nothing was changed. Table {table}, whose foreign key refers to users, may run code of the role {role} with the privileges"
        f' of the role that writes to users. Its owner can add a trigger before the write, because "{user}" does not lock it: GRANT'
        f' DELETE ON {table} TO "{user}"; and USAGE on its schema, make the owner of users its owner, or upgrade to PostgreSQL 18. If'
        " that was done, try again."
    )


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_before_18_a_table_that_its_owner_can_change_meanwhile_stops_an_erasure(two, action):
    with two_roles(two) as (site, stranger):
        two.execute(
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {site.user}; ALTER ROLE {site.user} BYPASSRLS;"
            f"SET ROLE {stranger}; CREATE TABLE mal.orders (u text REFERENCES users ON DELETE {action})"
        )
        assert exported(site)["users"][0]["id"] == ANA
        if is_before_18(two):
            assert refused(site) == (
                f"Nothing was changed. The foreign key orders_u_fkey (ON DELETE {action}) could run code of the role {stranger} as"
                f" {site.user}: before PostgreSQL 18, {site.user} must lock mal.orders, so that its owner adds no trigger meanwhile."
                f' GRANT DELETE ON "mal"."orders" TO "{site.user}"; or make the owner of users the owner of the table.'
            )
            two.execute(f"GRANT DELETE ON mal.orders TO {site.user}")
        planned(site).require()
        assert erased(site, EMAIL)["removed"]["users"] == 1


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_before_18_a_deletion_requires_a_lock_against_new_code(migrated, action):
    changes = (
        "CREATE TRIGGER zz AFTER DELETE ON mal.orders EXECUTE FUNCTION mal.logs()",
        "CREATE STATISTICS mal.zz ON (lower(u)), u FROM mal.orders",
        "CREATE INDEX ON mal.orders (lower(u))",
        "ALTER TABLE mal.orders ATTACH PARTITION mal.part DEFAULT",
        "CREATE TABLE mal.lines (o text REFERENCES mal.orders (u) ON DELETE CASCADE)",
    )
    with two_roles(migrated) as (site, stranger):
        migrated.execute(
            f"SET ROLE {stranger}; CREATE TABLE mal.orders (u text UNIQUE REFERENCES users ON DELETE {action}) PARTITION BY LIST (u);"
            "CREATE TABLE mal.part (u text); CREATE TABLE mal.below (u text REFERENCES mal.orders (u) ON DELETE CASCADE)"
        )
        is_old = is_before_18(migrated)
        with django(site) as connection:
            if is_old:
                with pytest.raises(Refusal) as refusal, transaction.atomic(using=connection.alias):
                    refuse_untrusted_code(connection, ["users"], deletes=True)
                below = "mal.orders" if action == "NO ACTION" else "mal.below"
                assert str(refusal.value).startswith(may_run(stranger, site.user, below))
                migrated.execute(f"GRANT DELETE ON mal.orders, mal.below TO {site.user}")
            refuse_untrusted_code(connection, ["users"])
            with transaction.atomic(using=connection.alias):
                refuse_untrusted_code(connection, ["users"], deletes=True)
                for change in changes if is_old else ():
                    with migrated.connect() as client:
                        client.execute(f"SET lock_timeout = '50ms'; SET ROLE {stranger}")
                        with pytest.raises(LockNotAvailable):
                            client.execute(change)


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE mal.orders (u text REFERENCES users); CREATE INDEX ON mal.orders (u) WHERE mal.one(1) = 1",
        "CREATE TABLE mal.orders (u text REFERENCES users); CREATE STATISTICS mal.s ON (mal.one(1)), u FROM mal.orders",
        "CREATE TABLE mal.orders (u text REFERENCES users ON DELETE SET NULL, CHECK (mal.put() = 1))",
        "CREATE TABLE mal.orders (u text DEFAULT CASE mal.put() WHEN 1 THEN NULL END REFERENCES users ON DELETE SET DEFAULT)",
        "CREATE TYPE mal.kind AS (a text); CREATE FUNCTION mal.cast(mal.kind) RETURNS text LANGUAGE sql AS $$ SELECT mal.put()::text $$;"
        "CREATE CAST (mal.kind AS text) WITH FUNCTION mal.cast(mal.kind) AS IMPLICIT; CREATE TABLE mal.orders (u mal.kind REFERENCES users)",
    ],
)
def test_before_18_a_deletion_runs_no_expression_of_a_table_that_refers_to_ours(migrated, made):
    """The expressions run as the owner of the table, and what they write to may have deferred triggers."""
    is_old = is_before_18(migrated)
    if "CAST" in made and not is_old:
        return  # Such a key is not possible from PostgreSQL 18 on.
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('ana', 'ana@example.com', now())")
    with two_roles(migrated) as (_, stranger):
        value = "'ana'" if "ON DELETE" in made else "NULL"
        migrated.execute(f"SET ROLE {stranger}; {DEFERS} {made}; INSERT INTO mal.orders VALUES ({value}); {PUTS}")
        with django(migrated) as connection:
            found = [one.what for one in read_untrusted_code(connection, schema="public", tables=["users"], updates=())]
        migrated.execute("DELETE FROM users")
        said = {who for (who,) in migrated.execute("SELECT who FROM mal.log")}

    assert found == (["Table mal.orders, whose foreign key refers to users,"] if is_old else [])
    assert said == ({migrated.user} if is_old else {stranger})  # As whom it would run.


def test_before_18_only_an_update_of_a_column_that_is_referred_to_is_refused(migrated):
    with two_roles(migrated) as (site, stranger):
        migrated.execute(
            f"GRANT REFERENCES ON users TO {stranger}; SET ROLE {stranger};"
            "CREATE TABLE mal.orders (u text REFERENCES users (email) ON UPDATE CASCADE, id text REFERENCES users)"
        )
        with django(site) as connection:
            for columns in ({"name"}, {"name", "email"}, {"id"}, None):
                with transaction.atomic(using=connection.alias):
                    if is_before_18(migrated) and columns != {"name"}:
                        with pytest.raises(Refusal) as refusal:
                            refuse_untrusted_code(connection, ["users"], updates=columns)
                        assert str(refusal.value) == may_run(stranger, site.user)
                    else:
                        refuse_untrusted_code(connection, ["users"], updates=columns)


def test_columns_that_change_with_others_count_as_updated(migrated):
    with two_roles(migrated) as (site, stranger):
        migrated.execute(
            "ALTER TABLE users ADD lowered text GENERATED ALWAYS AS (lower(name)) STORED UNIQUE; GRANT REFERENCES ON users TO "
            f"{stranger}; SET ROLE {stranger}; CREATE TABLE mal.orders (u text REFERENCES users (lowered))"
        )
        with django(site) as connection:
            expected = [stranger] if is_before_18(migrated) else []
            assert [one.role for one in _found(connection, {"name"})] == expected
            migrated.execute("ALTER TABLE users DROP lowered CASCADE")
            migrated.execute(f"SET ROLE {stranger}; ALTER TABLE mal.orders ADD FOREIGN KEY (u) REFERENCES users (email)")
            assert [one.role for one in _found(connection, {"name"})] == []
            migrated.execute(
                "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.email = lower(NEW.name); RETURN NEW; END';"
                "CREATE TRIGGER own BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION own()"
            )
            assert [one.role for one in _found(connection, {"name"})] == expected


def _found(connection, columns):
    return list(read_untrusted_code(connection, schema="public", tables=["users"], deletes=False, updates=columns))


def test_before_18_dbstatus_reports_a_table_that_its_role_may_not_lock(migrated):
    with two_roles(migrated) as (site, stranger):
        migrated.execute(f"SET ROLE {stranger}; CREATE TABLE mal.orders (u text REFERENCES users ON DELETE CASCADE)")
        messages = []
        for one in (site, migrated):
            with django(one) as connection:
                messages.append([found.message for found in verify(connection).findings if found.code == "tables.untrusted"])

    sentence = (
        f"Table mal.orders, whose foreign key refers to users, may run code of the role {stranger} with the privileges of the role"
        " that writes to users."
    )
    assert messages == [[sentence] if is_before_18(migrated) else [], []]


def test_the_table_and_the_columns_that_a_statement_of_djangos_writes_to_are_known(migrated):
    seen = []

    def watch(execute, statement, *rest):
        seen.append(read_write(statement))
        return execute(statement, *rest)

    with django(migrated) as connection, connection.execute_wrapper(watch):
        users = User.objects.using(connection.alias)
        ana = users.create(email="ana@example.com")
        ana.name = "Ana"
        ana.save(update_fields=["name"])
        users.filter(name=Subquery(users.filter(pk=OuterRef("pk")).values("email"))).update(
            name=Subquery(users.filter(email=OuterRef("email")).values("name")), email=F("email")
        )
        users.bulk_create([ana], update_conflicts=True, unique_fields=["email"], update_fields=["name"])
        users.filter(name="Ana")._raw_delete(connection.alias)

    assert [one for one in seen if one] == [
        Write("INSERT", "users", frozenset()),
        Write("UPDATE", "users", frozenset({"name"})),
        Write("UPDATE", "users", frozenset({"name", "email"})),
        Write("INSERT", "users", frozenset({"name"})),
        Write("DELETE", "users", frozenset()),
    ]
    assert read_write('UPDATE "users" SET "na""me" = %s') == Write("UPDATE", "users", frozenset({'na"me'}))
    assert read_write("update users set email = ''") == Write("UPDATE", None, None)
    assert read_write('DELETE FROM "app"."users"') == Write("DELETE", None, frozenset())
    assert read_write("SELECT 1") is None


def test_a_write_of_a_command_is_checked_in_its_transaction_each_time(migrated):
    seen = []

    def watch(execute, statement, *rest):
        if statement.startswith("UPDATE"):
            seen.append(connection.in_atomic_block)
        return execute(statement, *rest)

    with two_roles(migrated) as (_, stranger):
        migrated.execute(f"GRANT TRIGGER ON django_session TO {stranger}")
        with django(migrated) as connection:
            refuse_before_writes(connection)
            rows = Session.objects.using(connection.alias)
            with connection.execute_wrapper(watch):
                rows.update(session_data="")
                migrated.execute(f"SET ROLE {stranger}; {_trigger('django_session')}")
                with pytest.raises(Refusal, match=f"Trigger zz of django_session runs code of the role {stranger}"):
                    rows.update(session_data="")
        migrated.execute("DROP TRIGGER zz ON django_session")

    assert seen == [True]


def test_a_write_is_checked_again_after_a_rollback_to_a_savepoint_released_its_locks(migrated):
    with two_roles(migrated) as (_, stranger):
        migrated.execute(f"GRANT TRIGGER ON django_session TO {stranger}")
        with django(migrated) as connection, connection.execute_wrapper(checked_writes(connection)):
            rows = Session.objects.using(connection.alias)
            with transaction.atomic(using=connection.alias):
                inner = transaction.atomic(using=connection.alias)
                inner.__enter__()
                rows.all().delete()
                inner.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
                migrated.execute(f"SET ROLE {stranger}; {_trigger('django_session')}")
                with pytest.raises(Refusal, match=f"Trigger zz of django_session runs code of the role {stranger}"):
                    rows.all().delete()
        migrated.execute("DROP TRIGGER zz ON django_session")


def _trigger(table):
    return f"CREATE TRIGGER zz AFTER DELETE ON {table} EXECUTE FUNCTION mal.logs()"
