"""What the database rejects is a message in the admin, at its field if known, never a 500 or a value of the row."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import DatabaseError, connection

from accounts.models import User
from ai_consultant.models import Conversation
from engagement.models import Notification
from tests.administration.conftest import address
from tests.administration.html_form import controls
from travel.models import PriceAlert, SavedSearch

pytestmark = pytest.mark.django_db
SECRET = "value-5c1e"  # A value in the rows, which no page shows except the field that it was typed into.


def sql(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else None


def refuse_with(table, body, event="INSERT OR UPDATE OR DELETE", when="BEFORE"):
    sql(f"CREATE OR REPLACE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    sql(f"CREATE TRIGGER refuse {when} {event} ON {table} FOR EACH ROW EXECUTE FUNCTION public.refuse()")


@pytest.fixture
def ana(staff):
    return User.objects.create(email="ana@example.com", phone=SECRET)


@pytest.fixture
def notice(ana):
    return Notification.objects.create(user=ana, type="t", title="t", message=SECRET)


def saved(staff, row, **changes):
    """Send the form of `row` with `changes`; return the page, and its errors."""
    url = address(type(row), "change", row.pk)
    page = staff.post(url, {**controls(staff.get(url), f"{type(row)._meta.model_name}_form"), **changes})
    assert page.status_code == 200
    form = page.context["adminform"].form
    return page, {name: list(errors) for name, errors in form.errors.items()}


def said(page):
    return [str(message) for message in get_messages(page.wsgi_request)]


CONSTRAINTS = {
    "check": (
        "ALTER TABLE notifications ADD CONSTRAINT titled CHECK (title <> 'x')",
        {"title": ["The constraint titled does not allow this value of title."]},
    ),
    "check of two columns": (
        "ALTER TABLE notifications ADD CONSTRAINT both_x CHECK (title <> 'x' OR type = 'x')",
        {"__all__": ["The constraint both_x does not allow this value of type, title."]},
    ),
    "unique": ("CREATE UNIQUE INDEX one_x ON notifications (title)", {"title": ["Another row has the same value of title."]}),
    "exclusion": (
        "ALTER TABLE notifications ADD CONSTRAINT apart EXCLUDE USING btree (title WITH =)",
        {"title": ["The constraint apart does not allow this value of title together with the other rows."]},
    ),
    "exclusion, deferred": (
        "ALTER TABLE notifications ADD CONSTRAINT apart EXCLUDE USING btree (title WITH =) DEFERRABLE INITIALLY DEFERRED",
        {"title": ["The constraint apart does not allow this value of title together with the other rows."]},
    ),
    "foreign key": (
        "ALTER TABLE notifications ADD CONSTRAINT known FOREIGN KEY (title) REFERENCES users (id) NOT VALID",
        {"title": ["Rows of other tables refer to this, or title refers to a row that does not exist."]},
    ),
    "too long": (
        "ALTER TABLE notifications ALTER title TYPE varchar(3)",
        {"__all__": ["A value is too long for its column: shorten it."]},
    ),
    "invalid text": (
        'CREATE DOMAIN public.short AS text CHECK (length(VALUE) < 4); ALTER TABLE notifications ALTER title TYPE public.short',
        {"__all__": ["The constraint short_check does not allow this value of a column."]},
    ),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_constraint_violation_is_shown_at_its_field(staff, notice, kind):
    planted, expected = CONSTRAINTS[kind]
    Notification.objects.create(user=notice.user, type="t", title="xx " if "long" in kind else "x", message="m")
    if kind.startswith("check"):
        Notification.objects.exclude(pk=notice.pk).delete()
    if kind == "foreign key":
        sql("DELETE FROM notifications WHERE title = 'x'")
    sql(planted)

    page, errors = saved(staff, notice, title="xxxx" if kind in ("too long", "invalid text") else "x")

    assert (errors, said(page)) == (expected, [])
    assert LogEntry.objects.count() == 0
    html = page.content.decode()
    assert ("Failing row" in html, html.count(SECRET)) == (False, 1)
    assert controls(page, "notification_form")["title"][0].startswith("x")
    notice.refresh_from_db()
    assert notice.title == "t"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("body", "expected"), [
    ("RAISE EXCEPTION 'Alerts are frozen: it''s an audit.';", "Alerts are frozen: it's an audit."),
    ("RAISE EXCEPTION 'not %', NEW.message;", "A trigger of the database refused this (SQLSTATE P0001): the server's log says why."),
    ("RETURN NULL;", "The database did not write or delete every row: nothing was saved. A trigger or a policy of the table skipped a row, or another client deleted it first."),
    ("PERFORM 1 / 0;", "The database rejected a value that is not valid for its column (SQLSTATE 22012)."),
    ("RAISE EXCEPTION USING ERRCODE = '40001';", "Another transaction changed the same rows: nothing was saved. Try again in a moment."),
    ("RAISE EXCEPTION USING ERRCODE = '40P01';", "Another transaction waited for the same rows: nothing was saved. Try again in a moment."),
    ("RAISE EXCEPTION USING ERRCODE = '55P03';", "Another transaction holds a lock on this: nothing was saved. Try again in a moment."),
    ("RAISE EXCEPTION USING ERRCODE = '53100';", "The database rejected this (SQLSTATE 53100): nothing was saved. The server's log says why."),
])  # fmt: skip
def test_what_a_trigger_raises_is_shown_as_a_message_without_the_values_it_quotes(staff, notice, body, expected):
    refuse_with("notifications", body)

    page, errors = saved(staff, notice, title="x")

    assert errors == {"__all__": [expected]}
    assert page.content.decode().count(SECRET) == 1


STATES = [
    "00001",
    "01000",
    "02000",
    "03000",
    "08006",
    "0A000",
    "20000",
    "26000",
    "28000",
    "39004",
    "42P01",
    "57P01",
    "58030",
    "F0000",
    "HV000",
    "XX000",
    "U0001",
    "ABCDE",
]


@pytest.mark.slow
def test_any_sqlstate_of_a_trigger_is_shown_as_a_message_and_its_text_is_never_logged(staff, notice, caplog):
    refuse_with("notifications", "RAISE EXCEPTION USING ERRCODE = NEW.title, MESSAGE = 'not ' || NEW.message;")

    shown = {state: saved(staff, notice, title=state)[1] for state in STATES}

    said = "A trigger of the database refused this (SQLSTATE {}): the server's log says why."
    assert shown == {state: {"__all__": [said.format(state)]} for state in STATES}
    assert SECRET not in caplog.text


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("body", "state"), [
    ("CASE WHEN false THEN END CASE;", "20000"),
    ("NEW.title := (SELECT i FROM generate_series(1, 2) i);", "21000"),
    ("UPDATE notifications SET read = NOT read WHERE id = NEW.id; RETURN NEW;", "27000"),
    ("PERFORM 1 FROM dropped;", "42P01"),
])  # fmt: skip
def test_a_trigger_that_fails_is_shown_as_a_message(staff, notice, body, state):
    refuse_with("notifications", body, "UPDATE OF title")

    _, errors = saved(staff, notice, title="x")

    assert [f"SQLSTATE {state}" in " ".join(errors["__all__"])] == [True]


def test_the_text_that_a_function_raises_is_in_none_of_our_errors(db):
    with pytest.raises(DatabaseError) as error:
        sql(f"DO $$ BEGIN RAISE EXCEPTION 'not {SECRET}'; END $$")

    assert str(error.value) == "A function or trigger of the database raised SQLSTATE P0001."


def test_a_number_that_is_out_of_range_is_shown_as_a_message(staff, ana):
    search = SavedSearch.objects.create(user=ana, name="n", origin="A", destination="B", depart_date="2026-01-01")
    sql("ALTER TABLE saved_searches ALTER adults TYPE smallint")

    _, errors = saved(staff, search, adults="40000")

    assert errors == {"__all__": ["A number is out of range for its column: enter one within the range."]}


def test_an_inline_that_the_database_refuses_is_shown_as_a_message_and_nothing_is_saved(staff, ana):
    sql('INSERT INTO user_preferences (id, "userId", "updatedAt") VALUES (\'p\', %s, now())', ana.pk)
    sql("ALTER TABLE user_preferences ADD CONSTRAINT real_airport CHECK (\"homeAirport\" <> 'LIS')")

    _, errors = saved(staff, ana, **{"name": "Ana", "preferences-0-home_airport": "LIS"})

    assert errors == {"__all__": ["The constraint real_airport does not allow this value of a column."]}
    assert sql("SELECT name FROM users WHERE id = %s", ana.pk) == [(None,)]


def test_a_row_that_cannot_be_added_is_shown_as_a_message(staff, ana):
    sql("ALTER TABLE notifications ADD CONSTRAINT titled CHECK (title <> 'x')")
    sql("ALTER TABLE users ADD CONSTRAINT company CHECK (email NOT LIKE '%%@bad.example')")

    notice = {"user": ana.pk, "type": "t", "title": "x", "message": "m", "priority": "low"}
    page = staff.post(address(Notification, "add"), notice)
    person = {"email": "x@bad.example", "usable_password": "false"}
    other = staff.post(address(User, "add"), person)

    assert (page.status_code, dict(page.context["adminform"].form.errors)) == (
        200, {"title": ["The constraint titled does not allow this value of title."]},
    )  # fmt: skip
    assert (other.status_code, dict(other.context["adminform"].form.errors)) == (
        200, {"email": ["The constraint company does not allow this value of e-mail."]},
    )  # fmt: skip
    assert (Notification.objects.count(), User.objects.count()) == (0, 2)


@pytest.mark.parametrize("action", ["RESTRICT", "NO ACTION DEFERRABLE INITIALLY DEFERRED"])
def test_a_deletion_that_a_foreign_key_refuses_is_shown_as_a_message(staff, ana, action):
    sql(f"CREATE TABLE trips (of text REFERENCES users ON DELETE {action})")
    sql("INSERT INTO trips VALUES (%s)", ana.pk)
    url = address(User, "delete", ana.pk)
    selected = {"action": "delete_selected", "_selected_action": ana.pk, "post": "yes"}

    one, several = staff.post(url, {"post": "yes"}), staff.post(address(User), selected)

    assert (one.status_code, one["Location"], several.status_code, several["Location"]) == (302, url, 302, address(User))
    [first, second] = said(several)
    assert first == second
    assert first.startswith("Rows of other tables ")
    assert (User.objects.filter(pk=ana.pk).exists(), LogEntry.objects.count()) == (True, 0)
    assert SECRET not in staff.get(url).content.decode()


def test_an_action_that_a_trigger_refuses_is_shown_as_a_message(staff, ana, notice):
    refuse_with("notifications", "RAISE EXCEPTION 'not %', NEW.message;")
    alert = PriceAlert.objects.create(
        user=ana, origin="GRU", destination="LIS", depart_date="2026-07-01", current_price=5, target_price=4
    )
    sql("ALTER TABLE price_alerts ADD CONSTRAINT always_on CHECK (active)")

    read = staff.post(address(Notification), {"action": "mark_read", "_selected_action": notice.pk, "post": "yes"})
    paused = staff.post(address(PriceAlert), {"action": "pause", "_selected_action": alert.pk, "post": "yes"})

    assert (read.status_code, paused.status_code) == (302, 302)
    assert said(paused) == [
        "A trigger of the database refused this (SQLSTATE P0001): the server's log says why.",
        "The constraint always_on does not allow this value of active.",
    ]


def test_a_password_that_the_database_refuses_is_shown_as_a_message(staff, ana):
    refuse_with("users", "RAISE EXCEPTION 'Frozen.';", "UPDATE")
    url = f"{address(User, 'change', ana.pk).removesuffix('change/')}password/"

    page = staff.post(url, {"password1": "a-long-password-9", "password2": "a-long-password-9"})

    assert (page.status_code, page["Location"], said(page)) == (302, url, ["Frozen."])


def test_a_table_that_the_role_may_not_write_is_shown_as_a_message(staff, notice):
    sql("CREATE ROLE only_reads")
    sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO only_reads")
    sql("GRANT INSERT, UPDATE, DELETE ON django_session TO only_reads")
    url = address(Notification, "change", notice.pk)
    sent = {**controls(staff.get(url), "notification_form"), "title": "x"}
    sql("SET LOCAL ROLE only_reads")

    page = staff.post(url, sent)
    deleted = staff.post(address(Notification, "delete", notice.pk), {"post": "yes"})

    sentence = (
        "The admin's database role lacks the privilege to write this. Ask an administrator of the database server to grant it."
    )
    assert (page.status_code, page.context["adminform"].form.non_field_errors()) == (200, [sentence])
    assert (deleted.status_code, said(deleted)) == (302, [sentence])


def test_a_read_only_database_is_shown_as_a_message_on_every_page_that_writes(staff, ana, notice):
    talk = Conversation.objects.create(user=ana, session_id="s", metadata={})
    url = address(Notification, "change", notice.pk)
    sent = {**controls(staff.get(url), "notification_form"), "title": "x"}
    sentence = "The database is read-only at the moment: nothing was saved. Try again when it accepts writes."
    add = {"user": ana.pk, "type": "t", "title": "x", "message": "m", "priority": "low"}
    sql("SET LOCAL transaction_read_only = on")

    forms = [staff.post(url, sent), staff.post(address(Notification, "add"), add)]
    redirects = [
        staff.post(address(Notification, "delete", notice.pk), {"post": "yes"}),
        staff.post(address(Notification), {"action": "mark_read", "_selected_action": notice.pk, "post": "yes"}),
        staff.post(address(Notification, "export")),
    ]
    history = staff.get(address(Notification, "history", notice.pk))
    read = staff.get(address(Conversation, "change", talk.pk))  # Last: what cannot be recorded breaks the test's transaction.

    assert [(page.status_code, page.context["adminform"].form.non_field_errors()) for page in forms] == [(200, [sentence])] * 2
    assert [page.status_code for page in redirects] == [302] * 3
    assert said(redirects[-1]) == [sentence] * 3
    assert (read.status_code, sentence in read.content.decode(), history.status_code) == (503, True, 200)


def test_a_form_that_takes_too_long_to_save_is_shown_as_a_message(staff, notice, monkeypatch):
    refuse_with("notifications", "PERFORM pg_catalog.pg_sleep(5); RETURN NEW;")
    monkeypatch.setattr("fly2any.administration.deadlines.WRITING", 100)

    _, errors = saved(staff, notice, title="x")

    assert errors == {"__all__": ["The database took too long: nothing was saved. Try again in a moment."]}


@pytest.mark.django_db(transaction=True)
def test_a_row_that_another_session_keeps_locked_is_shown_as_a_message_on_forms_deletions_and_actions(
    staff, notice, monkeypatch
):
    monkeypatch.setattr("fly2any.administration.deadlines.LOCK", 100)
    sentence = "Another transaction holds a lock on this: nothing was saved. Try again in a moment."
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN; SELECT FROM notifications FOR UPDATE")
        _, errors = saved(staff, notice, title="x")
        staff.post(address(Notification, "delete", notice.pk), {"post": "yes"})
        page = staff.post(address(Notification), {"action": "mark_read", "_selected_action": notice.pk, "post": "yes"})
    finally:
        other.close()

    assert (errors, said(page)) == ({"__all__": [sentence]}, [sentence] * 2)
    assert sql("SELECT title, read FROM notifications") == [("t", False)]


SKIPPED = (
    "The database did not write or delete every row: nothing was saved. A trigger or a policy of the table skipped a row, "
    "or another client deleted it first."
)


def alert_of(user):
    return PriceAlert.objects.create(
        user=user, origin="GRU", destination="LIS", depart_date="2026-07-01", current_price=5, target_price=4
    )


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
def test_a_deletion_that_the_database_skips_fails(staff, ana, when):
    alert = alert_of(ana)
    body = {"BEFORE": "RETURN NULL;", "AFTER": "INSERT INTO price_alerts SELECT OLD.*; RETURN NULL;"}[when]
    refuse_with("price_alerts", body, "DELETE", when)

    one = staff.post(address(PriceAlert, "delete", alert.pk), {"post": "yes"})
    several = staff.post(address(PriceAlert), {"action": "delete_selected", "_selected_action": alert.pk, "post": "yes"})

    assert (one.status_code, several.status_code, said(several)) == (302, 302, [SKIPPED] * 2)
    assert (PriceAlert.objects.count(), LogEntry.objects.count()) == (1, 0)


def test_a_deletion_that_a_policy_hides_fails(staff, ana):
    alert = alert_of(ana)
    sql("CREATE ROLE sees")
    sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sees")
    sql("ALTER TABLE price_alerts ENABLE ROW LEVEL SECURITY")
    sql("CREATE POLICY sees ON price_alerts FOR SELECT USING (true)")
    sql("SET LOCAL ROLE sees")

    page = staff.post(address(PriceAlert), {"action": "delete_selected", "_selected_action": alert.pk, "post": "yes"})

    assert (page.status_code, said(page), PriceAlert.objects.count()) == (302, [SKIPPED], 1)


def test_a_row_that_the_database_does_not_add_is_reported(staff, ana):
    refuse_with("price_alerts", "RETURN NULL;", "INSERT")
    refuse_with("users", "RETURN NULL;", "INSERT")
    values = {"origin": "GRU", "destination": "LIS", "depart_date": "2026-07-01", "current_price": 5, "target_price": 4}
    url = address(PriceAlert, "add")

    added = [
        staff.post(url, {**controls(staff.get(url), "pricealert_form"), "user": ana.pk, **values}),
        staff.post(address(User, "add"), {"email": "x@example.com", "usable_password": "false"}),
    ]

    assert [(page.status_code, page.context["adminform"].form.non_field_errors()) for page in added] == [(200, [SKIPPED])] * 2
    assert (PriceAlert.objects.count(), User.objects.count(), LogEntry.objects.count()) == (0, 2, 0)
