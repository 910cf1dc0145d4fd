"""While a table or a column is missing, no page reads another role's view or function in its place."""

from time import monotonic

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.urls import reverse

from fly2any.administration import stand_ins
from fly2any.administration.stand_ins import SENTENCE
from tests.administration.conftest import as_owner
from tests.conftest import django

pytestmark = pytest.mark.django_db
LOSSES = {
    "table": "ALTER TABLE fly2any_notes RENAME TO gone",
    "column": 'ALTER TABLE users RENAME COLUMN "avatarUrl" TO gone',
}
STAND_INS = {
    "table": "CREATE VIEW public.fly2any_notes AS SELECT 1 AS id",
    "column": """CREATE FUNCTION public."avatarUrl"(public.users) RETURNS text LANGUAGE sql AS $$ SELECT 'ours' $$""",
}


def forget(one=connection):
    """As before the first page of a process."""
    one.ensure_connection()
    one.connection.is_complete = False
    stand_ins.complete.clear()


def is_complete():
    return connection.connection.is_complete


@pytest.fixture(autouse=True)
def first_page(db):
    forget()


def sql(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


def answer(client):
    """The status of a page that reads the session, and its text if it is not a redirect."""
    client.raise_request_exception = False
    client.cookies[settings.SESSION_COOKIE_NAME] = "a" * 32
    response = client.get(reverse("admin:index"))
    return response.status_code, response.content.decode()


def test_a_page_that_reads_nothing_is_shown(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert client.get(reverse("admin:login")).status_code == 200
    assert not is_complete()


def test_a_process_asks_until_nothing_is_missing(client, django_assert_num_queries):
    assert answer(client) == (302, "")
    assert is_complete()
    with django_assert_num_queries(0):
        assert stand_ins.may_read(connection)


PREPARED = f"GRANT CREATE ON SCHEMA public TO PUBLIC; {LOSSES['column']}"


@pytest.mark.parametrize("pooler", ["", "PgBouncer"])
def test_a_database_is_asked_about_once_until_another_is_in_use(migrated, pooler):
    """A pooler's client may reach another database after dbrestore; a client of the server needs a new connection."""
    with django(migrated) as one:
        one.settings_dict["POOLER"] = pooler
        forget(one)
        before = stand_ins.may_read(one)
        migrated.execute(PREPARED)
        same = stand_ins.may_read(one)
        [(started, number)] = stand_ins.complete
        stand_ins.complete.clear()
        stand_ins.complete[started, number - 1] = monotonic()  # As if the one in use had taken the name of another.
        client = stand_ins.may_read(one)
        one.close()
        one.ensure_connection()
        one.connection.is_complete = False

        assert (before, same, client, stand_ins.may_read(one)) == (True, True, not pooler, False)


def test_a_database_is_asked_again_after_ten_minutes(migrated, monkeypatch):
    """A migration of newer code drops a column that this process reads."""
    with django(migrated) as one:
        forget(one)
        before = stand_ins.may_read(one)
        migrated.execute(PREPARED)
        answers = []
        for seconds in (0, stand_ins.KNOWN_FOR):
            one.connection.is_complete = False  # A new connection.
            monkeypatch.setattr(stand_ins, "monotonic", lambda seconds=seconds: monotonic() + seconds)
            answers.append(stand_ins.may_read(one))

    assert (before, answers) == (True, [True, False])


def test_a_database_that_is_behind_is_asked_itself(migrated):
    """A replica lacks for some seconds what the primary already has."""
    migrated.execute(PREPARED)

    def page(request):
        for one in (connection, behind):
            with one.cursor() as cursor:
                cursor.execute("SELECT 1")
        return HttpResponse("shown")

    with django(migrated) as behind:
        forget(behind)
        with pytest.raises(OperationalError, match="No page is shown until that is corrected"):
            stand_ins.refused(page)(None)


def test_a_database_that_lacks_nothing_is_asked_once_even_where_others_may_create(client):
    """A column of a package has the type that its migration gave it, not its model's."""
    sql("GRANT CREATE ON SCHEMA public TO PUBLIC")

    assert answer(client) == (302, "")
    assert is_complete()


@pytest.mark.parametrize("lost", LOSSES)
def test_pages_are_shown_where_no_other_role_may_create_anything(client, lost):
    sql(f"REVOKE CREATE ON SCHEMA public FROM PUBLIC; {LOSSES[lost]}")

    assert answer(client) == (302, "")
    assert not is_complete()


@pytest.mark.parametrize("lost", LOSSES)
@pytest.mark.parametrize("grantee", ["t_mallory", "PUBLIC"])
def test_no_page_is_shown_where_another_role_may_create_a_stand_in(client, caplog, lost, grantee):
    sql(f"CREATE ROLE t_mallory; GRANT CREATE ON SCHEMA public TO {grantee}; {LOSSES[lost]}")

    assert answer(client) == (503, SENTENCE)
    column = "fly2any_notes.at" if lost == "table" else "users.avatarUrl"
    assert caplog.messages[0] == f"{column} is missing, and another role may create something in its place"


@pytest.mark.parametrize("lost", LOSSES)
def test_no_page_is_shown_where_another_role_has_created_a_stand_in(client, lost):
    sql("CREATE ROLE t_mallory; REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT CREATE ON SCHEMA public TO t_mallory")
    sql(f"{LOSSES[lost]}; SET LOCAL ROLE t_mallory; {STAND_INS[lost]}")
    sql("RESET ROLE; REVOKE CREATE ON SCHEMA public FROM t_mallory")

    assert answer(client) == (503, SENTENCE)


def test_no_page_is_shown_where_another_role_owns_a_table_of_ours(client):
    sql("CREATE ROLE t_mallory; ALTER TABLE fly2any_notes OWNER TO t_mallory")

    assert answer(client) == (503, SENTENCE)


@pytest.mark.parametrize("kind", ["t_theirs.kind", "public.own"])
def test_no_page_is_shown_where_a_column_has_a_type_of_another_role(client, caplog, kind):
    sql(
        "CREATE ROLE t_mallory; CREATE SCHEMA t_theirs; CREATE TYPE t_theirs.kind AS ENUM ('a'); ALTER TYPE t_theirs.kind OWNER TO t_mallory"
    )
    sql("CREATE DOMAIN public.own AS t_theirs.kind; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    sql("ALTER TABLE users ADD more t_theirs.kind")
    stranger = answer(client)
    sql(f"ALTER TABLE notifications ALTER priority DROP DEFAULT, ALTER priority TYPE {kind} USING 'a'::{kind}")
    forget()

    assert (stranger, answer(client)) == ((302, ""), (503, SENTENCE))
    assert "notifications.priority has a type of another role" in caplog.messages


def test_no_page_compares_a_column_of_another_type_by_another_roles_operator(client):
    sql("ALTER TABLE users ALTER phone TYPE varchar(40); CREATE ROLE t_mallory; GRANT CREATE ON SCHEMA public TO t_mallory")
    before = answer(client)
    sql("SET LOCAL ROLE t_mallory; CREATE FUNCTION public.equal(varchar, varchar) RETURNS bool LANGUAGE sql RETURN false")
    sql("CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.equal); RESET ROLE")

    assert (before, answer(client)) == ((302, ""), (503, SENTENCE))


def test_the_app_role_is_served_while_the_owner_of_the_tables_may_create_more(member):
    client = member()
    with as_owner():
        sql("ALTER TABLE fly2any_notes RENAME TO gone")

    assert client.get(reverse("admin:login")).status_code == 302
    assert not is_complete()
