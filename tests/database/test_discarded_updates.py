"""The write check finds updates that a trigger discards or changes."""

import pytest
from django.apps import apps
from django.db import connection
from django.db.models import TextField
from django.utils import timezone

from fly2any.database.write_check import _is_as_expected, _models, _value, check_writes
from tests.database.test_writes import run

FUNCTION = "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$"
TRIGGER = "CREATE TRIGGER theirs BEFORE {} ON {} FOR EACH ROW EXECUTE FUNCTION theirs()"


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.parametrize("name", ["accounts.User", "accounts.UserPreferences", "travel.PriceAlert", "engagement.Notification"])
def test_an_update_that_changes_nothing_is_found_in_every_column(name):
    model = apps.get_model(name)
    run(FUNCTION.format("NEW := OLD;"), TRIGGER.format("UPDATE", model._meta.db_table))

    wrong = [
        field.name for field in model._meta.local_fields if not field.primary_key and not getattr(field, "auto_now", False)
    ]
    assert str(check_writes(connection).error) == (
        f"The write check failed at the table {model._meta.db_table}:"
        f" the row that was read differs from what was updated, in {', '.join(wrong)}"
    )


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "event", "wrong"),
    [
        ("NEW.phone := NULL;", "UPDATE", "phone"),
        ('NEW."updatedAt" := now();', "INSERT OR UPDATE", ""),
        ('NEW."createdAt" := OLD."createdAt";', "UPDATE", "created_at"),
        ("NEW.name := upper(trim(NEW.name));", "INSERT OR UPDATE", ""),
        ("NEW.name := left(translate(NEW.name, 'ã✈-', 'a'), 3);", "INSERT OR UPDATE", ""),
        (r"NEW.phone := regexp_replace(NEW.phone, '\D', '', 'g');", "INSERT OR UPDATE", ""),
        ("NEW.name := OLD.name;", "UPDATE", "name"),
        ("NEW.name := md5(NEW.name);", "INSERT OR UPDATE", "name"),
        ("NEW.name := '';", "INSERT OR UPDATE", "name"),
    ],
)
def test_a_column_that_a_trigger_changes_is_named_unless_it_is_a_normal_form_or_the_time_of_the_change(body, event, wrong):
    run(FUNCTION.format(body), TRIGGER.format(event, "users"))

    error = check_writes(connection).error

    assert (str(error).partition(", in ")[2] if error else "") == wrong


def test_no_changed_sample_value_can_be_taken_for_the_first_in_another_form():
    fields = [
        field
        for model in _models()
        for field in model._meta.local_fields
        if isinstance(field, TextField) and not field.primary_key
    ]
    pairs = [(field, _value(field, changed=False), _value(field, changed=True)) for field in fields]

    assert [str(field) for field, first, changed in pairs if _is_as_expected(first, changed, timezone.now())] == []


@pytest.mark.django_db
def test_a_time_that_lost_its_zone_is_named():
    run('ALTER TABLE users ALTER "createdAt" TYPE timestamp(3)')

    assert str(check_writes(connection).error) == (
        "The write check failed at the table users: the row that was read differs from what was updated, in created_at"
    )


@pytest.mark.django_db
def test_triggers_and_checks_that_accept_what_the_site_writes_pass():
    validates = """
        IF NEW.origin !~ '^[A-Z]{3}$' OR NEW.currency !~ '^[A-Z]{3}$' OR NEW."departDate"::date < current_date OR NEW."returnDate" <= NEW."departDate"
        THEN RAISE 'refused'; END IF;"""
    run(FUNCTION.replace("{}", validates), TRIGGER.format("INSERT OR UPDATE", "price_alerts"))
    latest = """IF NEW."lastChecked" < OLD."lastChecked" THEN RAISE 'older'; END IF;"""
    run(FUNCTION.replace("{}", latest).replace("theirs", "latest"))
    run(TRIGGER.format("UPDATE", "price_alerts").replace("theirs", "latest"))
    run(
        "ALTER TABLE price_history ADD CHECK (provider IN ('duffel', 'amadeus', 'mock') AND timestamp > now() - interval '1 day')"
    )

    assert check_writes(connection).error is None
