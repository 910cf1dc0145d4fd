import os
import runpy
import socket
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from fly2any.database.migration.journal import person
from fly2any.environment import LIKE_A_URL, Env
from tests.conftest import PROJECT, manage


@pytest.fixture
def env_file(tmp_path, monkeypatch):
    for name in ("POSTGRES_URL", "OTHER", "QUOTED"):
        monkeypatch.setenv(name, "")  # So that it is restored at the end.
        del os.environ[name]
    return tmp_path / ".env"


def test_an_env_file_is_read_and_the_environment_wins(env_file):
    os.environ["OTHER"] = "from the environment"
    env_file.write_text(
        '\ufeff# A comment\nexport POSTGRES_URL = postgresql://u:$3cret@h/d\n\nOTHER=from the file\nQUOTED="a b"\n'
    )

    Env().read_file(env_file)

    assert os.environ["POSTGRES_URL"] == "postgresql://u:$3cret@h/d"
    assert (os.environ["OTHER"], os.environ["QUOTED"]) == ("from the environment", "a b")


@pytest.mark.parametrize("export", ["export  ", "export\t", "  export \t "])
def test_the_blanks_after_export_do_not_matter(env_file, export, capfd, caplog):
    env_file.write_text(f"{export}POSTGRES_URL =\tpostgresql://u:s3cret@h/d\n")

    Env().read_file(env_file)

    assert os.environ["POSTGRES_URL"] == "postgresql://u:s3cret@h/d"
    assert (capfd.readouterr(), caplog.text) == (("", ""), "")


@pytest.mark.parametrize(
    "line", ["postgresql://u:s3cret@h/d", "POSTGRES URL=postgresql://u:s3cret@h/d", "POSTGRES_URL: postgresql://u:s3cret@h/d"]
)
def test_an_invalid_line_is_refused_and_never_shown(env_file, line, capfd):
    env_file.write_text(f"OTHER=1\n{line}\n")

    with pytest.raises(ImproperlyConfigured) as error:
        Env().read_file(env_file)

    assert str(error.value) == f"Line 2 of {env_file} is not NAME=value: correct it."
    assert capfd.readouterr() == ("", "")


def test_a_url_of_the_file_that_is_empty_in_the_environment_is_refused(env_file, monkeypatch):
    monkeypatch.setenv("POSTGRES_URL", "")
    env_file.write_text('export POSTGRES_URL = "postgresql://u:s3cret@h/d"\n')

    with pytest.raises(ImproperlyConfigured) as error:
        Env().read_file(env_file)

    assert str(error.value) == (
        f"POSTGRES_URL is empty in the environment and set in {env_file}: unset it in the environment, or remove it from the file."
    )


@pytest.mark.parametrize(
    ("variable", "exists", "read"),
    [(None, True, ".env"), (None, False, None), ("", True, None), ("other.env", True, "other.env")],
)
def test_the_file_that_is_read_is_the_one_of_env_file(env_file, monkeypatch, variable, exists, read):
    monkeypatch.chdir(env_file.parent)
    if exists:
        for name in (".env", "other.env"):
            env_file.with_name(name).touch()
    if variable is None:
        monkeypatch.delenv("ENV_FILE")
    else:
        monkeypatch.setenv("ENV_FILE", variable)

    found = Env().file(default=env_file)

    assert (found and found.name) == read


@pytest.mark.parametrize("name", ["nothing.env", "."])
def test_a_file_of_the_environment_that_does_not_exist_is_refused(tmp_path, name):
    result = manage("check", ENV_FILE=str(tmp_path / name))

    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        f"ENV_FILE names {tmp_path / name}, which is not a file: correct it, or unset it.\n",
    )


def test_a_file_in_another_encoding_is_reported_in_one_sentence(env_file):
    env_file.write_bytes("OTHER=é".encode("latin-1"))

    with pytest.raises(ImproperlyConfigured, match=r"is not UTF-8: save it as UTF-8\.$"):
        Env().read_file(env_file)


@pytest.mark.parametrize(("word", "value"), [("", None), ("true", True), (" ON ", True), ("0", False), ("No", False)])
def test_a_switch_is_on_or_off(monkeypatch, word, value):
    monkeypatch.setenv("DEBUG", word)

    assert Env().bool("DEBUG", default=None) is value


def test_a_switch_that_is_neither_is_refused(monkeypatch):
    monkeypatch.setenv("DEBUG", "maybe")

    with pytest.raises(ImproperlyConfigured, match=r"^DEBUG is neither true nor false: set it to one of them\.$"):
        Env().bool("DEBUG", default=False)


def test_hosts_are_separated_by_commas_and_blanks(monkeypatch):
    monkeypatch.setenv("ALLOWED_HOSTS", "a.example.com, b.example.com,")

    assert Env().list("ALLOWED_HOSTS") == ["a.example.com", "b.example.com"]


@pytest.mark.slow
def test_a_sentence_names_the_variable_that_was_used():
    result = manage("migrate", POSTGRES_URL="", DATABASE_URL="postgresql://u@127.0.0.1:1/d", SECRET_KEY="x", ALLOWED_HOSTS="x")

    assert (
        result.stderr
        == "Nothing listens at 127.0.0.1, port 1: start the server, or correct the host and port in DATABASE_URL.\n"
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


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_stops_early_causes_no_traceback(url, reader):
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


OF_THE_SITE = [
    "DATABASE_DSN",
    "DATABASE_URL_UNPOOLED",
    "DIRECT_URL",
    "NEON_DATABASE_URL",
    "POSTGRES_PRISMA_URL",
    "POSTGRES_REPLICA_URL",
    "POSTGRES_URL_NO_SSL",
    "STORAGE_POSTGRES_URL",
    "SUPABASE_POSTGRES_PRISMA_URL",
    "SUPABASE_POSTGRES_URL",
    "SiteDatabase",
]


def read_settings(monkeypatch, **variables):
    """Return fly2any.settings as a process with these variables reads them, and no other URL of a database."""
    for name, value in os.environ.items():
        if name in ("POSTGRES_URL", "DATABASE_URL") or LIKE_A_URL.match(value):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(PROJECT / "fly2any" / "settings.py"))


@pytest.mark.parametrize("variable", OF_THE_SITE)
def test_a_url_under_an_unread_name_is_not_ignored(monkeypatch, variable):
    with pytest.raises(ImproperlyConfigured) as error:
        read_settings(monkeypatch, **{variable: "postgresql://user:secret@db.example.com/fly2any"})

    assert str(error.value) == (
        f"{variable} is set, but neither POSTGRES_URL nor DATABASE_URL is:"
        f" set POSTGRES_URL to the URL of the database, or unset {variable}."
    )


@pytest.mark.parametrize(
    "value",
    [
        "postgres://u:secret@h/d",
        '"postgresql://u:secret@h/d"',
        " POSTGRESQL://u:secret@h/d",
        "prisma+postgres://accelerate.prisma-data.net/?api_key=secret",
        "postgresql+psycopg://u:secret@h/d",
        "jdbc:postgresql://h/d",
        "psql 'postgresql://u:secret@h/d'",
        "psql -d postgresql://u:secret@h/d",
        "prisma://accelerate.prisma-data.net/?api_key=secret",
        "pgsql://u:secret@h/d",
        "postgis://u:secret@h/d",
    ],
)
def test_a_url_of_postgresql_is_known_however_it_is_written(monkeypatch, value):
    with pytest.raises(ImproperlyConfigured, match=r"^NEON is set, ") as error:
        read_settings(monkeypatch, NEON=value)

    assert "secret" not in str(error.value)


def test_a_host_without_a_url_is_not_ignored(monkeypatch):
    with pytest.raises(ImproperlyConfigured, match=r"^POSTGRES_HOST is set, but neither POSTGRES_URL nor DATABASE_URL is: "):
        read_settings(monkeypatch, POSTGRES_HOST="db.example.com")


@pytest.mark.slow
def test_libpqs_own_variables_do_not_decide_which_database_it_is(url):
    own = {"PGPORT": "1", "PGHOSTADDR": "192.0.2.1", "PGOPTIONS": "-c search_path=nowhere", "PGSERVICE": "other"}
    result = manage("migrate", "--check", url=url, **own, PGTARGETSESSIONATTRS="standby")
    status = manage("dbstatus", "--format", "json", url=url, PGTZ="Asia/Tokyo")

    assert (result.returncode, result.stderr) == (0, "")
    assert "Asia/Tokyo" not in status.stdout


def test_every_command_refuses_a_url_that_only_the_site_reads():
    result = manage("dbadopt", NEON_DATABASE_URL="postgresql://user:secret@db.example.com/fly2any")

    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        "NEON_DATABASE_URL is set, but neither POSTGRES_URL nor DATABASE_URL is:"
        " set POSTGRES_URL to the URL of the database, or unset NEON_DATABASE_URL.\n",
    )


def test_a_command_says_which_url_is_used_where_another_leads_elsewhere(url):
    result = manage("dbstatus", url=url, NEON_DATABASE_URL="postgresql://user:secret@db.example.com/fly2any")

    database = connection.settings_dict
    assert result.stderr == (
        f'POSTGRES_URL is used: database "{database["NAME"]}" at {database["HOST"]}, port 5432.'
        " NEON_DATABASE_URL differs and is not used.\n"
    )


OURS = {"SECRET_KEY": "x", "ALLOWED_HOSTS": "x", "POSTGRES_URL": "postgresql://u:secret@db.example.com/fly2any"}


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"POSTGRES_PRISMA_URL": "postgresql://u:secret@db.example.com:5432/fly2any?pgbouncer=true&connection_limit=1"}, ""),
        ({"POSTGRES_URL_NO_SSL": "postgres://u:secret@DB.example.com/fly2any"}, ""),
        ({"POOLED": "postgres://u:secret@db.example.com:6432/fly2any?pgbouncer=true"}, ""),
        ({"DIRECT_URL": "postgres://u:secret@other.example.com/fly2any"}, ""),
        ({"POSTGRES_REPLICA_URL": "postgres://u:secret@other.example.com/fly2any"}, ""),
        ({"SHADOW_DATABASE_URL": "postgres://u:secret@db.example.com/shadow"}, ""),
        ({"DATABASE_URL": "postgres://u:secret@db.example.com:5433/fly2any"}, "DATABASE_URL differs and is not used."),
        ({"B": "postgres://u:secret@h/fly2any", "A": "postgres://db.example.com/d"}, "A, B differ and are not used."),
        ({"OTHER": "postgres://u:secret@db.example.com/fly2any?unknown=1"}, "OTHER differs and is not used."),
    ],
)
def test_a_url_that_names_another_database_than_ours_is_named(monkeypatch, others, sentence):
    said = read_settings(monkeypatch, **OURS, **others)["URLS_NOT_USED"]

    where = 'POSTGRES_URL is used: database "fly2any" at db.example.com, port 5432. '
    assert said == (f"{where}{sentence}" if sentence else "")


@pytest.mark.parametrize("variable", ["ARCHIVE_LOCATION", "BACKUP_LOCATION", "CODE_VERSION", "RETENTION"])
def test_a_variable_that_is_not_utf_8_is_refused(monkeypatch, variable):
    with pytest.raises(ImproperlyConfigured, match=rf"^{variable} is not UTF-8: write it in UTF-8\.$"):
        read_settings(monkeypatch, **{variable: os.fsdecode(b"caf\xe9")})


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "words",
    [
        ["dbroles", "--prefix", b"caf\xe9"],
        ["dbperson", "export", b"caf\xe9@example.com"],
        ["migrate", b"caf\xe9"],
        ["dbstatus", b"--database=caf\xe9"],
        [b"caf\xe9"],
    ],
    ids=str,
)
def test_an_argument_that_is_not_utf_8_is_refused(words):
    result = manage(*words)

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "caf\\xe9" in result.stderr
    assert result.stderr.endswith(" is not UTF-8: write it in UTF-8; a file with such a name must be renamed first.\n")


def test_the_user_who_migrates_is_recorded_in_any_encoding(monkeypatch):
    monkeypatch.setenv("LOGNAME", os.fsdecode(b"caf\xe9"))

    assert person() == f"caf\\udce9@{socket.gethostname()}"


CHOSEN = "from django.conf import settings; print(settings.DEVELOPMENT, settings.DATABASES['default']['HOST'])"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("variable", "chosen"), [("POSTGRES_URL", "True"), ("DATABASE_URL", "True"), ("TEST_POSTGRES_URL", "False db.example")]
)
def test_tests_ignore_the_url_of_the_environment(variable, chosen):
    """On a machine where the site's own URL is exported, they would create roles and replace a database there."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLY2ANY_", "POSTGRES_", "DATABASE_"))}
    environment = {**clean, variable: "postgresql://u@db.example/d", "DJANGO_SETTINGS_MODULE": "tests.settings"}

    result = subprocess.run(
        [sys.executable, "-c", CHOSEN], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )

    assert result.stdout.startswith(chosen), result.stderr
