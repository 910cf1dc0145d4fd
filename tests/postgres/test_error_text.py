"""Rows and statements that an error quotes appear in no log, page or message."""

import io
import logging
import sys
import traceback

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client, RequestFactory
from django.views.debug import ExceptionReporter, technical_500_response

from accounts.models import User
from fly2any.database.errors import explain
from fly2any.logs import Json, Text, Unasked
from fly2any.postgres.error_text import QUOTED

pytestmark = pytest.mark.django_db
SECRET = "$2b$12$s3cret-of-a-person"

ROW = "INSERT INTO secrets VALUES (%s, 1)"
REFUSED = {
    "check": (ROW.replace("1", "-1"), SECRET, 'new row for relation "secrets" violates check constraint "positive"'),
    "duplicate": ("INSERT INTO secrets SELECT %s, 1 FROM generate_series(1, 2)", SECRET,
                  'duplicate key value violates unique constraint "secrets_pkey"'),
    "not null": ("INSERT INTO secrets VALUES (%s, NULL)", SECRET,
                 'null value in column "number" of relation "secrets" violates not-null constraint'),
    "statement": ("SELECT nothing, %s", SECRET, 'column "nothing" does not exist'),
    "value": ("SELECT %s::text::integer", SECRET, 'invalid input syntax for type integer: "…"'),
    "date": ("SELECT %s::text::date", SECRET, 'invalid input syntax for type date: "…"'),
    "json": ("SELECT %s::text::jsonb", SECRET, "invalid input syntax for type json"),
    "context": (f"DO $f$ BEGIN PERFORM 1 / 0, $v$ {SECRET} $v$; END $f$", None, "division by zero"),
}  # fmt: skip


@pytest.fixture
def secrets():
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE secrets (word text, number integer NOT NULL, CONSTRAINT secrets_pkey PRIMARY KEY (word),"
            " CONSTRAINT positive CHECK (number > 0)) ON COMMIT DROP"
        )


def fault(statement, value):
    """Run a statement that the server rejects, and return the error."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement, [value] if value else None)
    except DatabaseError as error:
        return error
    raise AssertionError("it was not refused")


def logged(error):
    """An error in each format of our log, and in gunicorn's."""
    kinds = (Text(), Json(), logging.Formatter())
    said = io.StringIO()
    for kind in kinds:
        record = logging.LogRecord(
            "django.request", logging.ERROR, __file__, 1, "failed: %s", (error,), (type(error), error, error.__traceback__)
        )
        said.write(kind.format(record))
    return said.getvalue()


@pytest.mark.parametrize("kind", REFUSED)
def test_an_error_says_what_was_refused_and_quotes_no_value(secrets, kind):
    statement, value, said = REFUSED[kind]

    error = fault(statement, value)

    assert (str(error), str(error.__cause__)) == (said, said)
    assert SECRET not in "".join(traceback.format_exception(error)) + logged(error) + explain(error)
    assert said in logged(error)
    assert error.__cause__.diag.message_primary.startswith(said.partition('"…"')[0])  # Its fields remain available.


def test_a_copy_quotes_no_row(secrets):
    with (
        pytest.raises(DatabaseError) as caught,
        connection.wrap_database_errors,
        connection.connection.cursor() as cursor,
        cursor.copy("COPY secrets FROM STDIN") as copy,
    ):
        copy.write(f"{SECRET}\tmany\n")

    assert str(caught.value) == 'invalid input syntax for type integer: "…"'
    assert SECRET not in logged(caught.value)


def test_a_value_in_the_quotation_marks_of_another_language_is_cut_too():
    assert [QUOTED.sub('"…"', text) for text in (f"ungültige Eingabesyntax für Typ integer: »{SECRET}«", f"entier : « {SECRET} »")] == [
        'ungültige Eingabesyntax für Typ integer: "…"', 'entier : "…"',
    ]  # fmt: skip


def test_the_page_of_an_error_in_development_shows_neither_row_nor_parameters(secrets, settings):
    settings.DEBUG = True
    request = RequestFactory().get("/admin/")
    try:
        User.objects.create(id="one", email=SECRET)
        User.objects.create(id="two", email=SECRET)
    except DatabaseError:
        kind, error, where = sys.exc_info()
    page = technical_500_response(request, kind, error, where).content.decode()
    frames = ExceptionReporter(request, kind, error, where).get_traceback_frames()

    assert "duplicate key value violates unique constraint" in page
    assert "already exists" not in page
    assert [frame["vars"] for frame in frames if frame["filename"].endswith("django/db/backends/utils.py")] != []
    assert {
        tuple(frame["vars"]) for frame in frames if "/django/db/" in frame["filename"] or "/psycopg/" in frame["filename"]
    } == {()}


def test_what_a_refused_request_asked_for_is_not_in_the_log(caplog, settings):
    strict = Client(enforce_csrf_checks=True)
    strict.cookies["csrftoken"] = "a" * 32
    strict.post("/admin/login/", secure=True, headers={"referer": f"https://testserver:9/admin/accounts/user/?q={SECRET}"})
    boss = Client()
    boss.force_login(User.objects.create_superuser("boss@example.com"))
    boss.get("/admin/accounts/user/", {"_to_field": SECRET})
    boss.get("/admin/accounts/user/", {f"password__{SECRET}": "1"})

    kept = Unasked()
    lines = [
        Text().format(record) for record in caplog.records if record.name.startswith("django.security") and kept.filter(record)
    ]

    assert [line.partition("django.security.")[2] for line in lines] == [
        "csrf: Forbidden (Referer checking failed - https://testserver:9/admin/accounts/user/ does not match any trusted origins.):"
        " /admin/login/",
        "DisallowedModelAdminToField: Refused with DisallowedModelAdminToField.",
        "DisallowedModelAdminLookup: Refused with DisallowedModelAdminLookup.",
    ]
    assert settings.LOGGING["handlers"]["stderr"]["filters"] == ["unasked"]
