"""What the admin writes while foreign keys of other roles' tables refer to it: their code does not run."""

from html import unescape

import pytest
from django.db import connection

from accounts.models import User
from tests.administration.conftest import address

pytestmark = pytest.mark.django_db
INLINES = {"preferences-TOTAL_FORMS": "0", "preferences-INITIAL_FORMS": "0"}
LOGS = """
    CREATE ROLE t_mallory; CREATE SCHEMA mal AUTHORIZATION t_mallory; GRANT REFERENCES, SELECT ON users TO t_mallory;
    SET LOCAL ROLE t_mallory;
    CREATE TABLE mal.log (who text);
    CREATE FUNCTION mal.logs() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO mal.log VALUES (current_user); RETURN NULL; END $$;
    CREATE TABLE mal.orders (id text REFERENCES users ON DELETE CASCADE, email text REFERENCES users (email) ON UPDATE CASCADE);
"""

SENTENCE = (
    "Nothing was changed. Table mal.orders, which foreign keys connect with users, may run code of the role t_mallory with the"
    " privileges of the role that writes to users, because {}"
)


def sql(statement, *, fetch=False):
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if fetch else None


@pytest.fixture
def ana():
    return User.objects.create(pk="ana", email="ana@example.com")


def saved(client, **values):
    page = client.post(address(User, "change", "ana"), {"email": "ana@example.com", "is_active": "on", **INLINES, **values})
    return "" if page.status_code == 302 else unescape(page.content.decode())


def test_a_changed_address_runs_no_trigger_that_a_foreign_key_leads_to(staff, ana):
    sql(f"{LOGS} INSERT INTO mal.orders VALUES ('ana', 'ana@example.com'); RESET ROLE")
    sql("SET LOCAL ROLE t_mallory; CREATE TRIGGER zz AFTER UPDATE ON mal.orders EXECUTE FUNCTION mal.logs(); RESET ROLE")

    unchanged, changed = saved(staff, name="Ana"), saved(staff, name="Ana", email="new@example.com")

    ana.refresh_from_db()
    assert (unchanged, SENTENCE.format("it has a trigger") in changed) == ("", True)
    assert (ana.name, ana.email, sql("SELECT who FROM mal.log", fetch=True)) == ("Ana", "ana@example.com", [])


@pytest.mark.slow
def test_a_row_is_deleted_only_with_a_lock_on_other_roles_tables_that_refer_to_it(member, ana):
    sql(f"{LOGS} RESET ROLE")
    client = member()

    first = client.post(address(User, "delete", "ana"), {"post": "yes"}, follow=True)
    several = client.post(address(User), {"action": "delete_selected", "_selected_action": ["ana"], "post": "yes"}, follow=True)
    changed = saved(client, email="new@example.com")

    sentence = (
        "Nothing was changed. Table mal.orders, which foreign keys connect with users, may run code of the role t_mallory with the"
        " privileges of the role that writes to users. Its owner can add a trigger before the write, because "
    )
    for page in (first, several):
        message, *_ = page.context["messages"]
        assert (message.level_tag, message.message.startswith(sentence)) == ("error", True)
    assert sentence in changed
    assert User.objects.filter(pk="ana", email="ana@example.com").exists()
    [(role,)] = sql("SELECT current_user", fetch=True)
    sql(f"RESET ROLE; GRANT USAGE ON SCHEMA mal TO {role}; GRANT DELETE ON mal.orders TO {role}; SET LOCAL ROLE {role}")
    assert saved(client, email="new@example.com") == ""
    client.post(address(User, "delete", "ana"), {"post": "yes"})
    assert not User.objects.filter(pk="ana").exists()


def test_a_deletion_runs_no_trigger_that_fires_at_the_end_of_the_transaction(staff, ana):
    sql(f"""
        {LOGS}
        CREATE CONSTRAINT TRIGGER zz AFTER DELETE ON mal.orders INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mal.logs();
        INSERT INTO mal.orders VALUES ('ana'); RESET ROLE
    """)

    page = staff.post(address(User, "delete", "ana"), {"post": "yes"}, follow=True)

    [message] = page.context["messages"]
    assert (message.level_tag, SENTENCE.format("it has a trigger") in message.message) == ("error", True)
    assert User.objects.filter(pk="ana").exists()
