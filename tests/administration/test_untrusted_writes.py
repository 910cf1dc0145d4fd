"""What a request writes besides a form, such as a sign-in, runs no trigger of another role."""

import pytest
from django.conf import settings
from django.db import connection
from django.urls import reverse

from accounts.models import User
from fly2any.administration.untrusted_writes import SENTENCE

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery 9"
PLANTED = """
    CREATE ROLE t_mallory; CREATE SCHEMA mal AUTHORIZATION t_mallory; GRANT USAGE ON SCHEMA mal TO PUBLIC;
    GRANT TRIGGER ON {table} TO t_mallory; SET LOCAL ROLE t_mallory;
    CREATE TABLE mal.log (who text); GRANT INSERT ON mal.log TO PUBLIC;
    CREATE FUNCTION mal.logs() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO mal.log VALUES (current_user); RETURN COALESCE(NEW, OLD); END $$;
    CREATE TRIGGER zz BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION mal.logs();
    RESET ROLE
"""


def plant(table):
    with connection.cursor() as cursor:
        cursor.execute(PLANTED.format(table=table))


def runs():
    with connection.cursor() as cursor:
        cursor.execute("SELECT who FROM mal.log")
        return cursor.fetchall()


def sign_in(client, password=PASSWORD):
    return client.post(reverse("admin:login"), {"username": "ana@example.com", "password": password, "next": "/admin/"})


@pytest.fixture
def ana(client):
    """A superuser, on a connection without the checks of the commands that other tests called."""
    of_commands, connection.execute_wrappers[:] = connection.execute_wrappers[:], []
    client.raise_request_exception = False
    yield User.objects.create_superuser("ana@example.com", PASSWORD)
    connection.execute_wrappers[:] = of_commands


@pytest.mark.parametrize("table", ["django_session", "users", "login_history"])
def test_nobody_is_signed_in_while_that_would_run_a_trigger_of_another_role(client, ana, table):
    plant(table)

    response = sign_in(client)

    assert (response.status_code, response.content.decode()) == (503, SENTENCE)
    assert runs() == []
    assert client.get(reverse("admin:index")).status_code == 302


def test_a_failed_sign_in_runs_no_trigger_of_another_role(client, ana):
    plant("axes_accessattempt")

    response = sign_in(client, "wrong")

    assert (response.status_code, response.content.decode()) == (503, SENTENCE)
    assert runs() == []


def test_a_sign_out_runs_no_trigger_of_another_role(client, ana):
    assert sign_in(client).status_code == 302
    plant("django_session")

    response = client.post(reverse("admin:logout"))

    assert (response.status_code, response.content.decode()) == (503, SENTENCE)
    assert runs() == []
    assert settings.SESSION_COOKIE_NAME in client.cookies
