"""The page before a deletion counts the rows that the database deletes or changes too, in any table."""

import re
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection

from accounts.models import User
from engagement.models import Notification, UserActivity
from fly2any.administration import cascade
from tests.administration.conftest import address

pytestmark = pytest.mark.django_db
INLINES = {"preferences-TOTAL_FORMS": "0", "preferences-INITIAL_FORMS": "0"}
SITE = """
    CREATE SCHEMA site;
    CREATE TABLE site.bookings (
        id int, year int, "userId" text REFERENCES public.users ON DELETE CASCADE, payer text REFERENCES public.users ON DELETE CASCADE,
        PRIMARY KEY (id, year)
    );
    CREATE TABLE site.bills (booking int, year int, FOREIGN KEY (booking, year) REFERENCES site.bookings ON DELETE CASCADE);
    CREATE TABLE trip_1 (id int, "userId" text REFERENCES users ON DELETE CASCADE) PARTITION BY RANGE (id);
    CREATE TABLE trip_1_low PARTITION OF trip_1 FOR VALUES FROM (0) TO (3);
    CREATE TABLE trip_1_high PARTITION OF trip_1 FOR VALUES FROM (3) TO (9);
    CREATE TABLE offers (id int, buyer text REFERENCES users ON DELETE SET NULL);
    ALTER TABLE users ADD referrer text REFERENCES users ON DELETE CASCADE;
"""
ROWS = """
    INSERT INTO site.bookings SELECT g, 2026, 'ana', CASE WHEN g > 2 THEN 'ana' END FROM generate_series(1, 4) g;
    INSERT INTO site.bills SELECT 1 + g % 4, 2026 FROM generate_series(1, 7) g;
    INSERT INTO trip_1 SELECT g, CASE WHEN g < 6 THEN 'ana' ELSE 'bob' END FROM generate_series(1, 8) g;
    INSERT INTO offers VALUES (1, 'ana'), (2, 'dan'), (3, NULL);
    UPDATE users SET referrer = 'ana' WHERE id = 'cid';
    UPDATE users SET referrer = 'cid' WHERE id = 'dan';
    UPDATE users SET referrer = 'dan' WHERE id = 'ana';
"""


def sql(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def superset():
    """People, and tables of the site beside ours, which refer to them."""
    for name in ("ana", "bob", "cid", "dan"):
        User.objects.create(id=name, email=f"{name}@example.com")
    Notification.objects.bulk_create(
        Notification(user_id=name, type="promotion", title="t", message="m") for name in ("ana", "ana", "bob")
    )
    sql(SITE)
    sql(ROWS)


@pytest.fixture
def staff(client):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    return client


def named(client, model, key):
    return {str(name): str(count) for name, count in client.get(address(model, "delete", key)).context["model_count"]}


def test_rows_that_are_deleted_or_changed_are_counted_once_per_table(staff, superset):
    assert named(staff, User, "ana") == {
        "users": "3",  # Other people too.
        "notifications": "2",
        "rows of site.bookings": "4",
        "rows of site.bills": "7",
        "rows of trip_1": "5",
        "rows of offers, buyer set to NULL": "2",
    }
    assert named(staff, User, "bob") == {"users": "1", "notifications": "1", "rows of trip_1": "3"}


def test_an_action_on_several_rows_also_names_them(staff, superset):
    page = staff.post(address(User), {"action": "delete_selected", "_selected_action": ["ana", "bob"]})

    assert page.context["effects"] == {
        "deletes": {
            "users": "4",
            "notifications": "3",
            "rows of site.bookings": "4",
            "rows of site.bills": "7",
            "rows of trip_1": "8",
        },
        "changes": {"rows of offers, buyer set to NULL": "2"},
    }


def test_the_page_says_what_is_deleted_what_is_changed_and_what_stays(staff, superset):
    UserActivity.objects.bulk_create(UserActivity(user_id=name, event_type="search") for name in ("ana", "ana", "cid"))

    one = staff.get(address(User, "delete", "ana")).content.decode()
    several = staff.post(address(User), {"action": "delete_selected", "_selected_action": ["ana", "bob"]}).content.decode()
    of_alert = staff.get(address(Notification, "delete", Notification.objects.filter(user="ana")[0].pk)).content.decode()

    lists = [re.findall(r"<p>(Th[ei]s.*?:)</p>|<li>([^<]*: \d+)</li>", unescape(page)) for page in (one, several, of_alert)]
    said = [[heading or row for heading, row in found] for found in lists]
    carried = ["Rows of site.bills: 7", "Rows of site.bookings: 4"]
    assert said == [
        ["This deletes:", "Users: 3", "Notifications: 2", *carried, "Rows of trip_1: 5",
         "This changes:", "Rows of offers, buyer set to NULL: 2", "These rows stay, and still refer to what is deleted:", "Activities: 2"],
        ["This also deletes:", "Users: 4", "Notifications: 3", *carried, "Rows of trip_1: 8",
         "This changes:", "Rows of offers, buyer set to NULL: 2", "These rows stay, and still refer to what is deleted:", "Activities: 2"],
        ["This deletes:", "Notifications: 1"],
    ]  # fmt: skip


def test_rows_that_are_hidden_or_too_many_are_still_mentioned(member, superset, monkeypatch):
    monkeypatch.setattr(cascade, "MOST_COUNTED", 1)
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE t_hidden")
        cursor.execute("ALTER TABLE trip_1_low ENABLE ROW LEVEL SECURITY; ALTER TABLE offers OWNER TO t_hidden")
    client = member("superuser")

    assert named(client, User, "ana") == {
        "users": "1+",
        "notifications": "1+",
        "rows of site.bookings": "not computed",
        "rows of site.bills": "not computed",
        "rows of trip_1": "not computed",
        "rows of offers, buyer set to NULL": "not computed",
    }


@pytest.mark.parametrize(
    ("table", "event", "body"),
    [
        ("notifications", "DELETE", "RETURN NULL;"),
        ("site.bills", "DELETE", "UPDATE site.bills SET note = 'deleted' WHERE booking = OLD.booking; RETURN NULL;"),
        ("offers", "UPDATE", "RETURN OLD;"),
    ],
)
def test_a_deletion_that_leaves_dangling_references_fails(staff, superset, table, event, body):
    sql("ALTER TABLE site.bills ADD note text")
    sql(f"CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    sql(f"CREATE TRIGGER keep BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION keep()")

    page = staff.post(address(User, "delete", "ana"), {"post": "yes"}, follow=True)

    assert [message.level_tag for message in page.context["messages"]] == ["error"]
    assert (User.objects.filter(pk="ana").exists(), LogEntry.objects.count()) == (True, 0)


@pytest.mark.parametrize("table", ["users", "notifications", "site.bills"])
def test_a_deletion_runs_no_trigger_of_another_role(staff, superset, table):
    sql("CREATE ROLE t_mallory; CREATE SCHEMA mal AUTHORIZATION t_mallory")
    sql(f"GRANT TRIGGER ON {table} TO t_mallory; GRANT USAGE ON SCHEMA site TO t_mallory; SET LOCAL ROLE t_mallory")
    sql(
        "CREATE FUNCTION mal.ran() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$"
    )
    sql(f"CREATE TRIGGER zz BEFORE DELETE ON {table} EXECUTE FUNCTION mal.ran()")
    sql("RESET ROLE")

    page = staff.post(address(User, "delete", "ana"), {"post": "yes"}, follow=True)
    several = staff.post(address(User), {"action": "delete_selected", "_selected_action": ["ana"], "post": "yes"}, follow=True)

    for answer in (page, several):
        message, *_ = answer.context["messages"]  # The page that follows says, too, what keeps it from counting.
        assert message.level_tag == "error"
        assert message.message.startswith("Nothing was changed. Trigger zz")
        assert " runs code of the role t_mallory with the privileges of the role that writes to users. " in message.message
    assert staff.get(address(User, "delete", "ana")).status_code == 200
    assert (User.objects.filter(pk="ana").exists(), LogEntry.objects.count()) == (True, 0)


@pytest.mark.parametrize("table", ["users", "django_admin_log"])
def test_saving_runs_no_trigger_of_another_role(staff, table):
    ana = User.objects.create(pk="ana", email="ana@example.com")
    sql(f"CREATE ROLE t_mallory; CREATE SCHEMA mal AUTHORIZATION t_mallory; GRANT TRIGGER ON {table} TO t_mallory")
    sql("SET LOCAL ROLE t_mallory")
    sql(
        "CREATE FUNCTION mal.ran() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$"
    )
    sql(f"CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION mal.ran()")
    sql("RESET ROLE")

    changed = staff.post(
        address(User, "change", "ana"), {"email": "ana@example.com", "name": "Ana", "is_active": "on", **INLINES}
    )
    added = staff.post(address(User, "add"), {"email": "new@example.com", "usable_password": "false", **INLINES})
    acted = staff.post(address(User, "overview", "ana") + "deactivate/", follow=True)

    sentence = f"Nothing was changed. Trigger zz of {table} runs code of the role t_mallory with the privileges of the role"
    assert [sentence in unescape(answer.content.decode()) for answer in (changed, added, acted)] == [True] * 3
    ana.refresh_from_db()
    assert (ana.name, ana.is_active, User.objects.filter(email="new@example.com").exists()) == (None, True, False)


def test_a_deletion_that_removes_all_dependent_rows_succeeds(staff, superset):
    staff.post(address(User, "delete", "ana"), {"post": "yes"})

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM users WHERE id IN ('ana', 'bob', 'cid', 'dan') UNION ALL SELECT coalesce(buyer, 'none') FROM offers ORDER BY 1"
        )
        assert cursor.fetchall() == [("bob",), *[("none",)] * 3]
    assert LogEntry.objects.count() == 1


def test_staff_who_changed_rows_are_kept_for_the_history_of_these_rows(staff):
    worker = User.objects.create(email="worker@example.com", is_staff=True)
    idle = User.objects.create(email="idle@example.com", is_staff=True)
    LogEntry.objects.create(user=worker, object_repr="a search", action_flag=2)
    sent = {"action": "delete_selected", "_selected_action": [worker.pk, idle.pk], "post": "yes"}

    pages = [staff.post(address(User, "delete", worker.pk), {"post": "yes"}), staff.post(address(User), sent)]
    staff.post(address(User, "delete", idle.pk), {"post": "yes"})

    sentence = "The history of the rows that worker@example.com changed here."
    assert [(page.status_code, sentence in page.content.decode()) for page in pages] == [(200, True)] * 2
    assert set(User.objects.values_list("email", flat=True)) == {"staff@example.com", "worker@example.com"}
    assert LogEntry.objects.filter(user=worker).count() == 1
