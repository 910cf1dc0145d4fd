import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from fly2any.settings import hosts, read_env_file, switch
from tests.conftest import PROJECT, manage


@pytest.fixture
def env_file(tmp_path, monkeypatch):
    for name in ("POSTGRES_URL", "OTHER", "QUOTED"):
        monkeypatch.setenv(name, "")  # So that it is put back in the end.
        del os.environ[name]
    return tmp_path / ".env"


def test_an_env_file_is_read_and_the_environment_wins(env_file):
    os.environ["OTHER"] = "from the environment"
    env_file.write_text(
        '\ufeff# A comment\nexport POSTGRES_URL = postgresql://u:$3cret@h/d\n\nOTHER=from the file\nQUOTED="a b"\n'
    )

    read_env_file(env_file)

    assert os.environ["POSTGRES_URL"] == "postgresql://u:$3cret@h/d"
    assert (os.environ["OTHER"], os.environ["QUOTED"]) == ("from the environment", "a b")


@pytest.mark.parametrize(
    "line", ["postgresql://u:s3cret@h/d", "POSTGRES URL=postgresql://u:s3cret@h/d", "POSTGRES_URL: postgresql://u:s3cret@h/d"]
)
def test_a_line_that_is_none_is_refused_and_never_shown(env_file, line, capfd):
    env_file.write_text(f"OTHER=1\n{line}\n")

    with pytest.raises(ImproperlyConfigured) as error:
        read_env_file(env_file)

    assert str(error.value) == f"Line 2 of {env_file} is not NAME=value: correct it."
    assert capfd.readouterr() == ("", "")


def test_a_file_in_another_encoding_is_one_sentence(env_file):
    env_file.write_bytes("OTHER=é".encode("latin-1"))

    with pytest.raises(ImproperlyConfigured, match=r"is not UTF-8: save it as UTF-8\.$"):
        read_env_file(env_file)


@pytest.mark.parametrize(("word", "value"), [("", None), ("true", True), (" ON ", True), ("0", False), ("No", False)])
def test_a_switch_is_on_or_off(monkeypatch, word, value):
    monkeypatch.setenv("DEBUG", word)

    assert switch("DEBUG", None) is value


def test_a_switch_that_is_neither_is_refused(monkeypatch):
    monkeypatch.setenv("DEBUG", "maybe")

    with pytest.raises(ImproperlyConfigured, match=r"^DEBUG is neither true nor false: set it to one of them\.$"):
        switch("DEBUG", False)


def test_hosts_are_separated_by_commas_and_blanks():
    assert hosts("a.example.com, b.example.com,") == ["a.example.com", "b.example.com"]


def test_a_sentence_names_the_variable_that_was_used():
    result = manage("migrate", POSTGRES_URL="", DATABASE_URL="postgresql://u@127.0.0.1:1/d", SECRET_KEY="x", ALLOWED_HOSTS="x")

    assert (
        result.stderr == "Nothing listens at 127.0.0.1, port 1: start the server, or correct host and port in DATABASE_URL.\n"
    )


def test_an_error_page_shows_no_url(rf: RequestFactory):
    request = rf.get("/", POSTGRES_URL="postgresql://u:s3cret@h/d", PGPASSWORD="s3cret")
    page = ExceptionReporter(request, ValueError, ValueError("x"), None).get_traceback_html()

    assert "POSTGRES_URL" in page
    assert "s3cret" not in page


def test_an_error_page_shows_no_variable_with_a_password(rf, monkeypatch):
    monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", "-".join(["s3cret", "word"]))

    try:
        parameters = {"user": "u", "password": "-".join(["s3cret", "word"])}
        raise ValueError(f"no connection for {len(parameters)}")
    except ValueError as error:
        page = ExceptionReporter(rf.get("/"), ValueError, error, error.__traceback__).get_traceback_html()

    assert "no connection for 2" in page
    assert "parameters" in page
    assert "-".join(["s3cret", "word"]) not in page


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_stops_early_is_no_traceback(url, reader):
    command = f"{sys.executable} manage.py dbstatus | {reader}"
    environment = {
        **os.environ,
        "POSTGRES_URL": url,
        "SECRET_KEY": "x",
        "ALLOWED_HOSTS": "x",
        "DJANGO_SETTINGS_MODULE": "fly2any.settings",
    }

    result = subprocess.run(command, shell=True, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60)

    assert result.stderr == ""


@pytest.mark.parametrize("variable", ["POSTGRES_URI", "POSTGRES_PRISMA_URL", "DATABASE_DSN", "PG_URL"])
def test_a_url_under_a_name_that_nothing_reads_is_not_passed_over(variable):
    result = manage("dbstatus", **{variable: "postgresql://user:secret@db.example.com/fly2any"})

    assert (result.returncode, result.stderr) == (
        2,
        f"{variable} is set, and neither POSTGRES_URL nor DATABASE_URL: set one of these, or unset it.\n",
    )
