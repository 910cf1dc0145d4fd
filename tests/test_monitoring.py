"""Health checks, metrics and logs: correct, in time, and without secrets."""

import json
import re
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.core.cache import cache
from django.db import OperationalError, connection, connections
from prometheus_client.parser import text_string_to_metric_families

from fly2any import monitoring
from fly2any.database.findings import CODES
from tests.conftest import PROJECT, manage
from tests.servers import PgBouncer

TOKEN = "0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def platform(client, settings):
    """A client as a load balancer is one: another host, no TLS."""
    settings.SECURE_SSL_REDIRECT, settings.ALLOWED_HOSTS = True, ["admin.example.com"]
    client.defaults["HTTP_HOST"] = "10.0.0.1:8000"
    return client


def test_liveness_needs_no_database(platform):
    answer = platform.get("/health/live")  # Without the mark, pytest-django blocks database access.

    assert (answer.status_code, answer.json(), answer.headers["Cache-Control"]) == (200, {"status": "ok"}, "no-store")
    assert platform.head("/health/live").status_code == 200
    assert platform.post("/health/live").status_code == 405


@pytest.mark.django_db
def test_a_process_is_ready_when_all_migrations_are_applied(platform):
    answer = platform.get("/health/ready")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "database": "ok", "migrations": "ok"})


ASK = """
from django.test import Client
for path in ("/health/live", "/health/ready", "/metrics"):
    answer = Client(raise_request_exception=False).get(path, headers={"Authorization": "Bearer %s"})
    print(answer.status_code, " ".join(answer.content.decode().split()))
"""


@pytest.mark.slow
def test_a_process_whose_migrations_are_pending_is_not_ready(migrated):
    migrated.execute("DELETE FROM django_migrations WHERE app = 'administration' AND name = '0003_database_page'")

    result = manage("shell", "-v0", "-c", ASK % TOKEN, url=migrated.url)

    assert result.stdout.splitlines()[1] == '503 {"status": "failing", "database": "ok", "migrations": "pending"}'


GUNICORN = """
from fly2any.wsgi import application
import time
from django.test import Client
for path in ("/health/ready", "/metrics", "/admin/login/"):
    begun = time.monotonic()
    answer = Client(HTTP_HOST="localhost", raise_request_exception=False).get(path, secure=True, headers={"Authorization": "Bearer %s"})
    print(answer.status_code, time.monotonic() - begun < limit[path], "The database is unavailable" in answer.content.decode())
"""


@pytest.mark.slow
def test_a_server_that_accepts_no_connection_is_reported_before_the_pools_timeout():
    with socket.socket() as silent:  # It accepts connections and never responds.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        script = "limit = {'/health/ready': 4, '/metrics': 4, '/admin/login/': 30}" + GUNICORN % TOKEN

        result = manage("shell", "-v0", "-c", script, url=url, METRICS_TOKEN=TOKEN)

    assert result.stdout.splitlines() == ["503 True False", "200 True False", "200 True False"], result.stderr


@pytest.mark.skipif(not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"), reason="pgbouncer is not installed")
def test_a_pooler_without_a_free_connection_is_reported_in_time(
    own_server, tmp_path, monkeypatch, django_db_setup, django_db_blocker
):
    server = own_server()
    pooler = PgBouncer(tmp_path, server.port, "transaction", size=1)
    connections.databases["pooled"] = {
        **connection.settings_dict, "NAME": "fly2any", "HOST": "127.0.0.1", "PORT": str(pooler.port), "USER": "postgres",
        "POOLER": "PgBouncer", "POOL": None, "DIRECT": None, "EMBEDDED": None,
    }  # fmt: skip
    monkeypatch.setattr(monitoring, "connection", connections["pooled"])
    question = monitoring.SharedQuery(monitoring.read_readiness)
    monitoring._loader()
    try:
        with django_db_blocker.unblock():
            before = question.answer()
            with psycopg.connect(pooler.url()) as other, ThreadPoolExecutor(10) as threads:
                other.execute("SELECT 1")  # Inside a transaction, on the only server connection.
                begun = time.monotonic()
                errors = [asked.exception() for asked in [threads.submit(question.answer) for _ in range(10)]]
                took, waiting = time.monotonic() - begun, question.asked
                with pytest.raises(OperationalError):
                    question.answer()
                asked_once = question.asked is waiting
            waiting.result(30)
            after = question.answer()
    finally:
        pooler.remove()
        del connections["pooled"], connections.databases["pooled"]

    assert (before, after) == ({"database": "ok", "migrations": "pending"},) * 2
    assert {type(error) for error in errors} == {OperationalError}
    assert (took < monitoring.ANSWER_PATIENCE + 3, asked_once) == (True, True)


@pytest.mark.slow
def test_a_page_without_a_database_says_so(migrated):
    script = (
        "from django.test import Client; from accounts.models import User; c = Client(HTTP_HOST='localhost', raise_request_exception=False);"
        "c.force_login(User.objects.create(email='a@b.c', is_staff=True)); from django.db import connection; connection.close();"
        "connection.settings_dict['PORT'] = '1'; connection.settings_dict['HOST'] = '127.0.0.1'; a = c.get('/admin/', secure=True);"
        "print(a.status_code, 'The database is unavailable' in a.content.decode())"
    )

    result = manage("shell", "-v0", "-c", script, url=migrated.url, SECOND_FACTOR="false")

    assert result.stdout == "503 True\n", result.stderr


@pytest.mark.slow
def test_an_unknown_host_is_logged_with_the_setting(migrated):
    script = "from django.test import Client; print(Client(HTTP_HOST='other.example', raise_request_exception=False).get('/admin/').status_code)"

    result = manage("shell", "-v0", "-c", script, url=migrated.url, LOG_FORMAT="text")

    [line] = [line for line in result.stderr.splitlines() if "DisallowedHost" in line]
    assert (result.stdout, "You may need to add 'other.example' to ALLOWED_HOSTS." in line) == ("400\n", True)
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_without_a_server_a_process_is_alive_but_not_ready_and_logs_why():
    url = "postgresql://u:s3cret-of-ours@127.0.0.1:1/d"

    result = manage("shell", "-v0", "-c", ASK % TOKEN, url=url, METRICS_TOKEN=TOKEN, LOG_FORMAT="json")

    assert result.stdout.splitlines() == [
        '200 {"status": "ok"}',
        '503 {"status": "failing", "database": "failing", "migrations": "unknown"}',
        "200 # HELP fly2any_up Whether the database could be queried. # TYPE fly2any_up gauge fly2any_up 0.0",
    ]
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    said = "Nothing listens at 127.0.0.1, port 1: start the server, or correct the host and port in POSTGRES_URL."
    assert [(line["logger"], line["message"]) for line in lines if line["logger"].startswith("fly2any")] == [
        ("fly2any.health", f"not ready: {said}"),
        ("fly2any.metrics", f"not reported: {said}"),
    ]
    assert "s3cret" not in result.stdout + result.stderr


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        ("", BEARER, 404),
        ("", {"Authorization": "Bearer "}, 404),
        (TOKEN, {}, 401),
        (TOKEN, {"Authorization": TOKEN[:-1]}, 401),
        (TOKEN, {"Authorization": "Bearer " + TOKEN + "é"}, 401),
        (TOKEN, BEARER, 200),
    ],
)
def test_metrics_require_the_token(platform, settings, token, headers, status):
    settings.METRICS_TOKEN = token

    assert platform.get("/metrics", headers=headers).status_code == status


def sampled(client):
    text = client.get("/metrics", headers=BEARER).content.decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.django_db
def test_metrics_equal_the_figures_of_the_reports(platform, settings):
    settings.METRICS_TOKEN = TOKEN
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'administration' AND name = '0003_database_page'")
        cursor.execute('DROP INDEX "price_alerts_active_idx"')
        cursor.execute("SELECT pg_total_relation_size('users'), current_setting('max_connections')::int - 3")
        size, limit = cursor.fetchone()

    samples = sampled(platform)

    assert samples["fly2any_up",] == 1
    assert samples["fly2any_migrations_pending",] == 1
    assert samples["fly2any_schema_objects", "travel", "indexes", "found"] == 7
    assert samples["fly2any_schema_objects", "travel", "indexes", "expected"] == 8
    assert samples["fly2any_findings", "index.missing", "error"] == 1
    assert samples["fly2any_table_bytes", "users"] == size
    assert samples["fly2any_connections_limit",] == limit
    assert samples["fly2any_topic_asked", "locks"] == 1
    assert {key[1] for key in samples if key[0] == "fly2any_findings"} <= CODES


@pytest.mark.django_db
def test_each_metric_is_documented(platform, settings):
    settings.METRICS_TOKEN = TOKEN
    page = (PROJECT / "docs" / "reference" / "monitoring.md").read_text()

    there = {name for name, *_ in sampled(platform)}

    assert {name for name in there if not re.search(rf"^\| `{name}\b", page, re.M)} == set()


LOGGED = """
import logging
from django.test import Client
client = Client(HTTP_HOST="localhost", raise_request_exception=False)
client.get("/admin/login/?q=ana@example.com", secure=True)
client.get("/no%0Ape/", secure=True)
client.get("/health/live")
logging.getLogger("fly2any").warning("it says %s", "s3cret-of-ours")
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_request_is_a_line_without_what_it_asked_and_without_a_password(migrated, form):
    url = migrated.url.replace("//postgres@", "//postgres:s3cret-of-ours@")

    result = manage("shell", "-v0", "-c", LOGGED, url=url, LOG_FORMAT=form)

    lines = [line for line in result.stderr.splitlines() if "fly2any" in line]
    if form == "json":
        entries = [json.loads(line) for line in lines]
        assert [entry["message"] for entry in entries] == ["GET /admin/login/ 200", "GET /no%0Ape/ 404", "it says ********"]
        assert {key: entries[0][key] for key in ("level", "method", "path", "status", "user_id")} == {
            "level": "INFO", "method": "GET", "path": "/admin/login/", "status": 200, "user_id": None,
        }  # fmt: skip
    else:
        assert [line.partition(" ")[2].partition(" ")[2] for line in lines] == [
            "INFO fly2any.request: GET /admin/login/ 200", "INFO fly2any.request: GET /no%0Ape/ 404", "WARNING fly2any: it says ********",
        ]  # fmt: skip
    assert "ana@example.com" not in result.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is neither text nor json: set it to one of them."),
        ({"METRICS_TOKEN": "short"}, "METRICS_TOKEN is not 16 or more printable ASCII characters: set it to the output of `openssl rand -hex 24`."),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_reported_in_one_sentence(environment, said):
    result = manage("dbstatus", url="postgresql://u@127.0.0.1:1/d", **environment)

    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{said}\n")


WITHIN_JSON = """
import logging
for text in ("it says %s", "as a URL has it: %s"):
    logging.getLogger("fly2any").warning(text, {"it says %s": 'geh"eim%x-ours', "as a URL has it: %s": "geh%22eim%25x-ours"}[text])
logging.getLogger("fly2any").warning("plain", extra={"status": 404, "nothing": None})
"""


@pytest.mark.slow
def test_a_password_is_replaced_however_it_is_written_and_the_line_stays_json(migrated):
    url = migrated.url.replace("//postgres@", "//postgres:geh%22eim%25x-ours@")

    result = manage("shell", "-v0", "-c", WITHIN_JSON, url=url, LOG_FORMAT="json")

    entries = [json.loads(line) for line in result.stderr.splitlines()]
    assert [entry["message"] for entry in entries] == ["it says ********", "as a URL has it: ********", "plain"]
    assert "eim" not in result.stderr


@pytest.mark.slow
def test_a_request_without_a_user_does_not_query_the_database():
    script = (
        "from django.test import Client; c = Client(HTTP_HOST='localhost', raise_request_exception=False); c.cookies['__Host-sessionid'] = 'x' * 32;"
        "print(c.get('/', secure=True).status_code, c.get('/nope/', secure=True).status_code)"
    )

    result = manage("shell", "-v0", "-c", script, url="postgresql://u@127.0.0.1:1/d")

    assert (result.stdout, "Traceback" in result.stderr) == ("302 404\n", False), result.stderr


@pytest.mark.slow
def test_a_standby_and_a_role_that_may_not_see_are_not_ready(own_server, tmp_path_factory):
    primary = own_server(migrated=True)
    primary.execute("CREATE ROLE watcher LOGIN")
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    try:
        answers = [
            manage("shell", "-v0", "-c", ASK % TOKEN, url=url).stdout.splitlines()[1]
            for url in (standby.url(), primary.url("watcher"))
        ]
    finally:
        standby.remove()

    assert answers == [
        '503 {"status": "failing", "database": "read-only", "migrations": "ok"}',
        '503 {"status": "failing", "database": "ok", "migrations": "unknown"}',
    ]


@pytest.mark.django_db
def test_a_waived_finding_is_no_metric_and_a_broken_file_waives_nothing(platform, settings, tmp_path, caplog):
    settings.METRICS_TOKEN, settings.WAIVERS = TOKEN, tmp_path / "waivers.toml"
    settings.BACKUPS = {**settings.BACKUPS, "location": str(tmp_path / "none"), "expected": True}
    cache.clear()
    key = ("fly2any_findings", "backup.none", "warning")
    (tmp_path / "none").mkdir()
    before = sampled(platform)
    settings.WAIVERS.write_text(
        f'[[waiver]]\ncode = "backup.none"\nwhere = "{tmp_path}/none"\nowner = "a"\nuntil = 2100-01-01\nreason = "b"\n'
    )
    waived = sampled(platform)
    settings.WAIVERS.write_text("[[")
    broken = sampled(platform)
    cache.clear()

    assert (before.get(key), waived.get(key), broken.get(key)) == (1, None, 1)
    assert "nothing is waived" in caplog.text
