"""Tables of other roles that foreign keys connect with ours: each is plain and locked, or the write is refused."""

import dataclasses
from contextlib import contextmanager

import pytest
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F, OuterRef, Subquery
from psycopg.errors import LockNotAvailable

from accounts.models import User
from fly2any.database.errors import Refusal
from fly2any.database.schema.untrusted_code import read_untrusted_code, refuse_untrusted_code
from fly2any.database.schema.write_refusals import Write, checked_writes, read_write, refuse_before_writes
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.people import ANA, EMAIL, erased, exported, planned, refused

LOGS = """
    CREATE TABLE mal.log (who text);
    CREATE FUNCTION mal.logs() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO mal.log VALUES (current_user); RETURN NULL; END $$;
"""
FUNCTIONS = """
    CREATE FUNCTION mal.one(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1;
    CREATE FUNCTION mal.less(text, text) RETURNS bool LANGUAGE sql IMMUTABLE RETURN $1 < $2;
    CREATE TYPE mal.kind AS ENUM ('a'); CREATE DOMAIN mal.texts AS text CHECK (VALUE <> 'x'); CREATE TYPE mal.pair AS (a text);
    CREATE COLLATION mal.c (provider = libc, locale = 'C');
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


def may_run(role, user, table="mal.orders"):
    return (
        f"Nothing was changed. Table {table}, which foreign keys connect with users, may run code of the role {role} with the privileges"
        f' of the role that writes to users. Its owner can add a trigger before the write, because "{user}" does not lock it: GRANT'
        f' DELETE ON {table} TO "{user}"; and USAGE on its schema, or give the table to the owner of users. If "{user}" already has these privileges, try again.'
    )


@pytest.mark.slow
@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_a_table_that_its_owner_can_change_meanwhile_stops_an_erasure(two, action):
    with two_roles(two) as (site, stranger):
        two.execute(
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {site.user}; ALTER ROLE {site.user} BYPASSRLS;"
            f"SET ROLE {stranger}; CREATE TABLE mal.orders (u text REFERENCES users ON DELETE {action})"
        )
        assert exported(site)["users"][0]["id"] == ANA
        assert refused(site) == may_run(stranger, site.user)
        two.execute(f"GRANT DELETE ON mal.orders TO {site.user}")
        planned(site).require()
        assert erased(site, EMAIL)["removed"]["users"] == 1


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_a_deletion_requires_a_lock_against_new_code(migrated, action):
    changes = (
        "CREATE TRIGGER zz AFTER DELETE ON mal.orders EXECUTE FUNCTION mal.logs()",
        "CREATE RULE zz AS ON DELETE TO mal.orders DO ALSO SELECT 1",
        "CREATE POLICY zz ON mal.orders",
        "CREATE STATISTICS mal.zz ON (lower(u)), u FROM mal.orders",
        "CREATE INDEX ON mal.orders (lower(u))",
        "CREATE INDEX CONCURRENTLY ON mal.orders (lower(u))",
        "ALTER TABLE mal.orders ADD CHECK (u <> '') NOT VALID",
        "ALTER TABLE mal.orders ADD more text GENERATED ALWAYS AS (lower(u)) STORED",
        "ALTER TABLE mal.orders ALTER u SET DATA TYPE varchar",
        "ALTER TABLE mal.orders INHERIT mal.parent",
        "ALTER TABLE mal.parted ATTACH PARTITION mal.orders DEFAULT",
        "CREATE TABLE mal.child () INHERITS (mal.orders)",
        "CREATE TABLE mal.lines (o text REFERENCES mal.orders (u) ON DELETE CASCADE)",
    )
    with two_roles(migrated) as (site, stranger):
        migrated.execute(
            f"SET ROLE {stranger}; CREATE TABLE mal.orders (u text UNIQUE REFERENCES users ON DELETE {action});"
            "CREATE TABLE mal.parent (u text); CREATE TABLE mal.parted (u text UNIQUE) PARTITION BY LIST (u);"
            "CREATE TABLE mal.below (u text REFERENCES mal.orders (u) ON DELETE CASCADE)"
        )
        with django(site) as connection:
            with pytest.raises(Refusal) as refusal, transaction.atomic(using=connection.alias):
                refuse_untrusted_code(connection, ["users"], deletes=True)
            below = "mal.orders" if action == "NO ACTION" else "mal.below"
            assert str(refusal.value).startswith(may_run(stranger, site.user, below))
            migrated.execute(f"GRANT DELETE ON mal.orders, mal.below TO {site.user}")
            with transaction.atomic(using=connection.alias):
                refuse_untrusted_code(connection, ["users"], deletes=True)
                for change in changes:
                    with migrated.connect() as client:
                        client.execute(f"SET lock_timeout = '50ms'; SET ROLE {stranger}")
                        with pytest.raises(LockNotAvailable):
                            client.execute(change)


ORDERS = "CREATE TABLE mal.orders (u text REFERENCES users ON DELETE CASCADE"
NOT_POSTGRESQLS = "that is not PostgreSQL's own"
INDEX = f"it has an index with an expression, a condition, or an operator class or collation {NOT_POSTGRESQLS}"
CODE = {
    f"{ORDERS}) PARTITION BY LIST (mal.one(u))": "it is partitioned or inherits",
    f"{ORDERS}) PARTITION BY LIST (u); CREATE TABLE mal.part PARTITION OF mal.orders DEFAULT": "it is partitioned or inherits",
    f"{ORDERS}); CREATE TABLE mal.child () INHERITS (mal.orders)": "it is partitioned or inherits",
    f"CREATE TABLE mal.parent (); {ORDERS}) INHERITS (mal.parent)": "it is partitioned or inherits",
    f"{ORDERS}); CREATE CONSTRAINT TRIGGER late AFTER DELETE ON mal.orders INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mal.logs()": "it has a trigger",
    f"{ORDERS}); CREATE TRIGGER zz AFTER INSERT ON mal.orders EXECUTE FUNCTION mal.logs(); ALTER TABLE mal.orders DISABLE TRIGGER zz": "it has a trigger",
    f"{ORDERS}); CREATE RULE zz AS ON UPDATE TO mal.orders DO ALSO SELECT 1": "it has a rule",
    f"{ORDERS}); ALTER TABLE mal.orders ENABLE ROW LEVEL SECURITY": "it has row-level security",
    f"{ORDERS}); CREATE POLICY zz ON mal.orders USING (mal.one(u) = '')": "it has row-level security",
    f"{ORDERS}, CHECK (mal.one(u) = ''))": "it has a check",
    f"CREATE TABLE mal.keys (k text PRIMARY KEY); {ORDERS}, k text REFERENCES mal.keys ON DELETE SET DEFAULT)": "it has a foreign key with SET DEFAULT",
    f"{ORDERS}, more text GENERATED ALWAYS AS (mal.one(u)) STORED)": "it has a generated column",
    **{
        f"{ORDERS}, more {kind})": "it has a column whose type or collation is not PostgreSQL's own"
        for kind in ("mal.kind", "mal.kind[]", "mal.texts", "mal.pair", "mal.log", 'text COLLATE mal.c')
    },
    f"{ORDERS}); CREATE INDEX ON mal.orders (mal.one(u))": INDEX,
    f"{ORDERS}); CREATE INDEX ON mal.orders (u) WHERE mal.one(u) = ''": INDEX,
    f"{ORDERS}); CREATE INDEX ON mal.orders (u COLLATE mal.c)": INDEX,
    f"{ORDERS}); CREATE STATISTICS mal.zz ON (mal.one(u)), u FROM mal.orders": "it has statistics of an expression",
    f"{ORDERS.replace('TABLE', 'UNLOGGED TABLE')})": "it is not stored as an ordinary table",
}  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("made", CODE)
def test_a_table_that_may_run_code_of_its_owner_is_refused(migrated, made):
    with two_roles(migrated) as (_, stranger):
        migrated.execute(f"SET ROLE {stranger}; {FUNCTIONS}")
        migrated.execute(f"SET ROLE {stranger}; {made}")
        with django(migrated) as connection:
            found = {
                one.sentence: one.cure for one in read_untrusted_code(connection, schema="public", tables=["users"], updates=())
            }
            with pytest.raises(Refusal), transaction.atomic(using=connection.alias):
                refuse_untrusted_code(connection, ["users"], deletes=True)

    sentence = (
        f"Table mal.{{}}, which foreign keys connect with users, may run code of the role {stranger} with the privileges of the role that"
        f" writes to users, because {CODE[made]}"
    )
    places = ["orders"] + [name for name in ("part", "child") if f"mal.{name} " in made]
    assert found == {
        sentence.format(
            place
        ): "Ask its owner to remove what makes the table run code (the reason above), or drop the foreign key."
        for place in places
    }


def test_an_operator_class_that_is_not_postgresqls_own_is_refused(migrated):
    with two_roles(migrated) as (_, stranger):
        migrated.execute(f"SET ROLE {stranger}; {FUNCTIONS} {ORDERS})")
        migrated.execute(
            "CREATE FUNCTION mal.hash(text) RETURNS int LANGUAGE sql IMMUTABLE RETURN 1;"
            "CREATE OPERATOR CLASS mal.class FOR TYPE text USING hash AS OPERATOR 1 =, FUNCTION 1 mal.hash(text);"
            "CREATE INDEX ON mal.orders USING hash (u mal.class)"
        )
        with django(migrated) as connection:
            found = [one.reason for one in read_untrusted_code(connection, schema="public", tables=["users"], updates=())]
        migrated.execute("DROP OPERATOR FAMILY mal.class USING hash CASCADE")

    assert found == [INDEX]


def test_a_check_outside_the_transaction_of_the_deletion_is_an_error(migrated):
    with django(migrated) as connection, pytest.raises(transaction.TransactionManagementError):
        refuse_untrusted_code(connection, ["users"], deletes=True)


def test_a_plain_table_is_written_to(migrated):
    with two_roles(migrated) as (_, stranger):
        migrated.execute(
            f"SET ROLE {stranger}; CREATE TABLE mal.orders (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, u text NOT NULL"
            " REFERENCES users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, data jsonb DEFAULT '{}', tags text[] COLLATE \"C\","
            " at timestamptz DEFAULT now(), during tstzrange, UNIQUE (u, at) DEFERRABLE, EXCLUDE USING gist (during WITH &&));"
            "CREATE INDEX ON mal.orders USING gin (data jsonb_path_ops); CREATE STATISTICS mal.zz ON u, at FROM mal.orders;"
            "ALTER TABLE mal.orders ADD gone mal.log; ALTER TABLE mal.orders DROP gone;"
            "CREATE TABLE mal.lines (o bigint REFERENCES mal.orders ON DELETE SET NULL ON UPDATE CASCADE)"
        )
        migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('ana', 'ana@example.com', now())")
        migrated.execute("INSERT INTO mal.orders VALUES (1, 'ana'); INSERT INTO mal.lines VALUES (1)")
        with django(migrated) as connection:
            with transaction.atomic(using=connection.alias):
                refuse_untrusted_code(connection, ["users"], deletes=True, updates=None)
                User.objects.using(connection.alias).all().delete()
            found = [one.code for one in verify(connection).findings if one.code == "tables.untrusted"]
        rest = migrated.execute("SELECT (SELECT count(*) FROM mal.orders), o FROM mal.lines")

    assert (found, rest) == ([], [(0, None)])


def test_a_table_that_a_changed_row_refers_to_is_refused_too(migrated):
    """PostgreSQL looks for the new value in the table that a key of the changed row refers to, as the owner of that table."""
    with two_roles(migrated) as (_, stranger):
        migrated.execute(
            f"SET ROLE {stranger}; {FUNCTIONS} CREATE TABLE mal.keys (k text PRIMARY KEY); CREATE INDEX ON mal.keys (mal.one(k));"
            "CREATE TABLE mal.orders (u text REFERENCES users (email) ON UPDATE CASCADE REFERENCES mal.keys)"
        )
        with django(migrated) as connection:
            found = [[one.what for one in _found(connection, columns)] for columns in ({"name"}, {"email"})]

    assert found == [[], ["Table mal.keys, which foreign keys connect with users,"]]


def test_only_an_update_of_a_column_that_is_referred_to_is_refused(migrated):
    with two_roles(migrated) as (site, stranger):
        migrated.execute(
            f"GRANT REFERENCES ON users TO {stranger}; SET ROLE {stranger};"
            "CREATE TABLE mal.orders (u text REFERENCES users (email) ON UPDATE CASCADE, id text REFERENCES users)"
        )
        with django(site) as connection:
            for columns in ({"name"}, {"name", "email"}, {"id"}, None):
                with transaction.atomic(using=connection.alias):
                    if columns == {"name"}:
                        refuse_untrusted_code(connection, ["users"], updates=columns)
                        continue
                    with pytest.raises(Refusal) as refusal:
                        refuse_untrusted_code(connection, ["users"], updates=columns)
                    assert str(refusal.value) == may_run(stranger, site.user)


def test_columns_that_change_with_others_count_as_updated(migrated):
    with two_roles(migrated) as (site, stranger):
        migrated.execute(
            "ALTER TABLE users ADD lowered text GENERATED ALWAYS AS (lower(name)) STORED UNIQUE; GRANT REFERENCES ON users TO "
            f"{stranger}; SET ROLE {stranger}; CREATE TABLE mal.orders (u text REFERENCES users (lowered), CHECK (u <> ''))"
        )
        with django(site) as connection:
            assert [one.role for one in _found(connection, {"name"})] == [stranger]
            migrated.execute("ALTER TABLE users DROP lowered CASCADE")
            migrated.execute(f"SET ROLE {stranger}; ALTER TABLE mal.orders ADD FOREIGN KEY (u) REFERENCES users (email)")
            assert [one.role for one in _found(connection, {"name"})] == []
            migrated.execute(
                "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.email = lower(NEW.name); RETURN NEW; END';"
                "CREATE TRIGGER own BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION own()"
            )
            assert [one.role for one in _found(connection, {"name"})] == [stranger]


@pytest.mark.parametrize("action", ["SET NULL", "CASCADE"])
def test_columns_that_a_trigger_of_a_referring_table_changes_count_as_updated(migrated, action):
    with two_roles(migrated) as (_, stranger):
        migrated.execute(
            "CREATE SCHEMA site; GRANT USAGE ON SCHEMA site TO PUBLIC;"
            f"CREATE TABLE site.teams (lead text REFERENCES users (email) ON DELETE SET NULL ON UPDATE {action}, slug text UNIQUE);"
            f"GRANT REFERENCES ON site.teams TO {stranger};"
            "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.slug = 'x'; RETURN NEW; END $$"
        )
        migrated.execute(
            f"SET ROLE {stranger}; CREATE TABLE mal.orders (t text REFERENCES site.teams (slug) ON UPDATE CASCADE, CHECK (t <> ''))"
        )
        with django(migrated) as connection:
            assert _found(connection, {"email"}) == []
            migrated.execute("CREATE TRIGGER own BEFORE UPDATE ON site.teams FOR EACH ROW EXECUTE FUNCTION own()")
            found = [one.what for one in _found(connection, {"email"})]
            with (
                transaction.atomic(using=connection.alias),
                pytest.raises(Refusal, match=r"^Nothing was changed\. Table mal\.orders, "),
            ):
                refuse_untrusted_code(connection, ["users"], deletes=True)
        migrated.execute("DROP SCHEMA site CASCADE")

    assert found == ["Table mal.orders, which foreign keys connect with users,"]


def _found(connection, columns):
    return list(read_untrusted_code(connection, schema="public", tables=["users"], deletes=False, updates=columns))


def test_dbstatus_reports_a_table_that_its_role_may_not_lock(migrated):
    with two_roles(migrated) as (site, stranger):
        migrated.execute(f"SET ROLE {stranger}; CREATE TABLE mal.orders (u text REFERENCES users ON DELETE CASCADE)")
        messages = []
        for one in (site, migrated):
            with django(one) as connection:
                messages.append([found.message for found in verify(connection).findings if found.code == "tables.untrusted"])

    sentence = (
        f"Table mal.orders, which foreign keys connect with users, may run code of the role {stranger} with the privileges of the role"
        " that writes to users."
    )
    assert messages == [[sentence], []]


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
