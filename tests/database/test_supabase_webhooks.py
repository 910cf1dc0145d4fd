"""Supabase's Database Webhooks: triggers whose code belongs to a role of the platform, which no other role can imitate."""

from dataclasses import replace

import pytest
from django.db import transaction

from fly2any.database.adoption import assess
from fly2any.database.schema.untrusted_code import read_untrusted_code, refuse_untrusted_code
from fly2any.database.verification import verify
from tests.conftest import django, manage, start_server
from tests.database.test_dbhealth import of
from tests.prisma import exact

pytestmark = pytest.mark.usefixtures("server")

SITE = """
    CREATE ROLE supabase_admin SUPERUSER; CREATE ROLE site LOGIN CREATEROLE; ALTER DATABASE fly2any OWNER TO site;
    DO $$ DECLARE name regclass; BEGIN
        FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
            EXECUTE format('ALTER TABLE %s OWNER TO site', name);
        END LOOP;
    END $$
"""
# As the platform's own script does it, without the request.
WEBHOOKS = """
    CREATE SCHEMA supabase_functions AUTHORIZATION supabase_admin;
    GRANT USAGE ON SCHEMA supabase_functions TO site;
    CREATE TABLE supabase_functions.hooks (role text DEFAULT current_user, name text);
    CREATE FUNCTION supabase_functions.http_request() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO supabase_functions.hooks (name) VALUES (TG_NAME); RETURN NEW; END $$;
    CREATE ROLE supabase_functions_admin NOINHERIT CREATEROLE LOGIN;
    GRANT ALL ON SCHEMA supabase_functions TO supabase_functions_admin;
    ALTER TABLE supabase_functions.hooks OWNER TO supabase_functions_admin;
    ALTER FUNCTION supabase_functions.http_request() OWNER TO supabase_functions_admin;
    ALTER FUNCTION supabase_functions.http_request() SECURITY DEFINER SET search_path = supabase_functions;
    GRANT supabase_functions_admin TO site;
"""
HOOK = """CREATE TRIGGER "new-user" AFTER INSERT OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION supabase_functions.http_request('https://a.b')"""
INSERT = """INSERT INTO users (id, email, "updatedAt") VALUES ('u', 'u@b.c', now())"""
AS_DEFINER = (
    "Trigger new-user of users runs code of the role supabase_functions_admin as that role, which can replace it with code that runs"
    " with the privileges of the role that writes to users."
)
AS_WRITER = "Trigger new-user of users runs code of the role supabase_functions_admin with the privileges of the role that writes to users."


def enable(server):
    server.execute(SITE)
    server.execute(WEBHOOKS)
    database = replace(of(server), user="site")
    database.execute(HOOK)
    return database


def untrusted(connection):
    return [one.message for one in verify(connection).findings if one.code == "tables.untrusted"]


@pytest.mark.slow
def test_a_webhook_of_supabase_stops_no_command(own_server):
    server = own_server(migrated=True)
    database = enable(server)
    database.execute(INSERT)

    with django(database) as connection:
        found = untrusted(connection)
        refuse_untrusted_code(connection)
        refuse_untrusted_code(connection, ["users"], deletes=True, reads=True)
    ran = manage("migrate", url=database.url)
    erased = manage("dbperson", "erase", "u@b.c", "--yes", url=database.url)

    assert found == []
    assert (ran.returncode, ran.stderr) == (0, "")
    assert erased.returncode == 4  # The platform's own table was not searched.
    assert database.execute("TABLE users") == []
    assert server.execute("TABLE supabase_functions.hooks") == [("supabase_functions_admin", "new-user")] * 2


# What a role of another server can do, or has done, instead.
FORGED = {
    "no superuser": ("ALTER ROLE supabase_admin NOSUPERUSER", AS_DEFINER),
    "another superuser": ("ALTER ROLE supabase_admin RENAME TO other", AS_DEFINER),
    "its own schema": ("ALTER SCHEMA supabase_functions OWNER TO supabase_functions_admin", AS_DEFINER),
    "another schema": ("ALTER SCHEMA supabase_functions RENAME TO functions", AS_DEFINER),
    "no grant": ("REVOKE ALL ON SCHEMA supabase_functions FROM supabase_functions_admin", AS_DEFINER),
    "no right to create": ("REVOKE CREATE ON SCHEMA supabase_functions FROM supabase_functions_admin", AS_DEFINER),
    "granted to all": (
        "REVOKE ALL ON SCHEMA supabase_functions FROM supabase_functions_admin; GRANT ALL ON SCHEMA supabase_functions TO PUBLIC",
        AS_DEFINER,
    ),
    "granted by another role": (
        "REVOKE ALL ON SCHEMA supabase_functions FROM supabase_functions_admin; GRANT ALL ON SCHEMA supabase_functions TO site"
        " WITH GRANT OPTION; SET ROLE site; GRANT ALL ON SCHEMA supabase_functions TO supabase_functions_admin",
        AS_DEFINER,
    ),
    "another role can become it": ("CREATE ROLE other; GRANT supabase_functions_admin TO other", AS_DEFINER),
    "it runs as the writer": ("ALTER FUNCTION supabase_functions.http_request() SECURITY INVOKER", AS_WRITER),
    "another owner": (
        "CREATE ROLE other; ALTER FUNCTION supabase_functions.http_request() OWNER TO other",
        AS_DEFINER.replace("supabase_functions_admin", "other"),
    ),
    "a condition of it": (
        "CREATE FUNCTION supabase_functions.asked() RETURNS bool LANGUAGE sql AS 'SELECT true';"
        'ALTER FUNCTION supabase_functions.asked() OWNER TO supabase_functions_admin; DROP TRIGGER "new-user" ON users;'
        + HOOK.replace("EXECUTE", "WHEN (supabase_functions.asked()) EXECUTE"),
        AS_WRITER,
    ),
}


@pytest.fixture(scope="module")
def webhooks(tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp("server"), migrated=True)
    enable(server)
    yield server
    server.remove()


@pytest.mark.slow
@pytest.mark.parametrize("forged", FORGED)
def test_what_any_other_role_can_imitate_is_refused(webhooks, forged):
    statements, message = FORGED[forged]
    with django(of(webhooks)) as connection:
        connection.ensure_connection()
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(f"{statements}; SET LOCAL ROLE site")
            found = [one.finding.message for one in read_untrusted_code(connection, schema="public")]
            transaction.set_rollback(True, using=connection.alias)

    assert found == [message]


@pytest.mark.slow
def test_a_webhook_of_supabase_does_not_block_an_adoption(own_server):
    server = own_server()
    server.execute(exact())
    database = enable(server)

    with django(database) as connection:
        blockers = assess(connection).blockers

    assert blockers == ()
