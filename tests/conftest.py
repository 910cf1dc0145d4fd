import dataclasses
import fcntl
import gc
import os
import secrets
import subprocess
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_django.fixtures
from django.contrib import admin
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from hypothesis import settings

from fly2any.administration import dashboard
from fly2any.database.migration.ledger import replaced_migrations
from fly2any.database.schema.contract import load
from fly2any.environment import LIKE_A_URL
from tests import cheap_hashes, commands
from tests.servers import Database, OwnServer

gc.set_threshold(100_000, 50, 100)  # Garbage collection was a fifth of the processor time of a run.
cheap_hashes.use()
dashboard.VERIFIED_FOR = 0  # Tests change the schema between two requests.


@receiver(connection_created)
def as_after_the_first_page(connection, **more):
    connection.connection.is_complete = True


admin.autodiscover()  # As the URLconf does: parts generated from the registry must exist before the first request.

settings.register_profile("shared machine", deadline=None)  # No test fails because it is slow.
settings.load_profile("shared machine")


# pytest-django makes a test database only where a selected test has the mark django_db; without one `connection` would lead to
# the database of POSTGRES_URL itself.
assert pytest_django.fixtures._get_databases_for_setup
pytest_django.fixtures._get_databases_for_setup = lambda items: ({"default"}, set())

PROJECT = commands.PROJECT
NO_SERVER = "postgresql://nobody@127.0.0.1:1/none"  # For commands that finish without connecting.
collect_ignore_glob = [] if os.environ.get("CITUS") else ["citus/*"]  # A cluster that CI does not have.
NOT_INSTALLED = {"browser", "bucket"}  # Fixtures that need more than requirements.txt installs.


def pytest_xdist_auto_num_workers(config):
    return (os.cpu_count() or 1) + 1  # Some tests only wait for a server or a time limit.


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark two kinds slow too: tests that need optional software, so that `make test` skips nothing, and the cases that `sampled`
    leaves out."""
    cases = Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        left_out = sampled and cases[item.parent, item.originalname] % sampled.args[0]
        cases[item.parent, item.originalname] += 1
        if left_out or item.get_closest_marker("skipif") or not NOT_INSTALLED.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session):
    gc.collect()
    gc.freeze()  # The modules and the tests stay until the end.


def pytest_sessionfinish(session):
    """In CI nothing may be skipped, because everything is installed there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config):
    """Drop the template from a server that is not the run's own, after its last worker."""
    made = Path(os.environ["PYTEST_DEBUG_TEMPROOT"], "migrated-template", "name")
    if not hasattr(config, "workerinput") and not os.environ["FLY2ANY_TEST_SERVER"] and made.exists():
        whole_server().execute(f"DROP DATABASE {made.read_text()}")


def pytest_terminal_summary(terminalreporter):
    """Print how many damages to the schema were tried, so that a decrease is noticed."""
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    if damages := sum(value for report in reports for name, value in report.user_properties if name == "damages"):
        terminalreporter.write_line(f"{damages:,} damages to the schema, each found and cured.")


def manage(*arguments, url=None, timeout=120, **environment):
    """Run a command as a user would, in a separate process; `url` is its POSTGRES_URL."""
    process = start_manage(*arguments, url=url, **environment)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_manage(*arguments, url=None, stderr=subprocess.PIPE, **environment):
    """Start a command in a separate process."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DJANGO_SETTINGS_MODULE", "DIRECT_URL")
        and not name.startswith(("POSTGRES_", "DATABASE_"))
        and not LIKE_A_URL.match(value)
    }
    if url is not None:
        clean |= {"POSTGRES_URL": url, "SECRET_KEY": "only for tests", "ALLOWED_HOSTS": "localhost"}
    # In a fork, some packages' settings lack defaults that `shell` may need.
    fresh = url is None or arguments[0] == "shell" or any(name.startswith(commands.READ_AT_START) for name in environment)
    return commands.start(arguments, {**clean, **environment}, fresh=fresh, stderr=stderr)


def recorded_migrations():
    """The number of rows in django_migrations when all are applied, including those that a squashed one replaces."""
    return len(load().migrations) + sum(map(len, replaced_migrations().values()))


@pytest.fixture
def url(db):
    """POSTGRES_URL of the test database, for another process. What this test writes in its transaction is not seen there."""
    database = connection.settings_dict
    return f"postgresql://{database['USER']}@/{database['NAME']}?host={database['HOST']}"


@pytest.fixture
def database(server):
    """An empty database on the tests' server, for other processes, dropped after the test."""
    yield from fresh("template0")


@pytest.fixture
def migrated(server, migrated_template):
    """A database to which every migration was applied."""
    yield from fresh(migrated_template)


@pytest.fixture(scope="session")
def migrated_template(django_db_blocker):
    """The name of a database to which every migration was applied, and to which nothing connects: the whole run copies it."""
    with django_db_blocker.unblock():
        return (made_once("migrated-template", make_template) / "name").read_text()


def make_template(folder):
    database = create("template0")
    result = manage("migrate", url=database.url)
    assert result.returncode == 0, result.stderr
    (folder / "name").write_text(database.name)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix, migrated_template):
    connection.settings_dict["TEST"]["TEMPLATE"] = migrated_template


def fresh(template):
    """Yield a copy of a database, and drop it in the end."""
    database = create(template)
    yield database
    whole_server().execute(f"DROP DATABASE {database.name} WITH (FORCE)")


def whole_server():
    connection.start_embedded_server()
    place = connection.settings_dict
    return Database(
        host=place["HOST"], port=place["PORT"] or "5432", user=place["USER"], password=place["PASSWORD"], name="postgres"
    )


def create(template):
    name = f"fresh_{secrets.token_hex(6)}"
    whole = whole_server()
    with whole.connect() as client:
        # Copying files takes half as long as writing each page to the WAL; before 15 there is no choice.
        strategy = "STRATEGY file_copy" if client.info.server_version >= 15_00_00 else ""
        client.execute(f"CREATE DATABASE {name} TEMPLATE {template} {strategy} ENCODING 'UTF8'")
    database = dataclasses.replace(whole, name=name)
    if not strategy:
        database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # As 15 and later have it.
    return database


@contextmanager
def django(database):
    """A Django connection to a test's own database."""
    place = {"NAME": database.name, "HOST": database.host, "PORT": database.port, "USER": database.user}
    connections.databases[database.name] = {**connection.settings_dict, **place}
    try:
        yield connections[database.name]
    finally:
        connections[database.name].close()
        del connections[database.name], connections.databases[database.name]


def made_once(name, make):
    """Return a folder that `make` fills once per run, by the first worker that needs it."""
    root = Path(os.environ["PYTEST_DEBUG_TEMPROOT"])
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = root / f"{name}.unfinished"
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def make_empty(home):
    OwnServer(home, {})


def make_migrated(home):
    server = OwnServer(home, {}, template=made_once("empty-server", make_empty)).start().create_database()
    try:
        result = manage("migrate", url=server.url())
        assert result.returncode == 0, result.stderr
    finally:
        server.stop()


def start_server(home, migrated=False, **settings):
    """Start a server, with an empty database or with one to which every migration was applied."""
    if migrated:
        return OwnServer(home, settings, template=made_once("migrated-server", make_migrated)).start()
    return OwnServer(home, settings, template=made_once("empty-server", make_empty)).start().create_database()


@pytest.fixture
def own_server(tmp_path_factory, django_db_blocker):
    """A function that starts a server with its own settings, like `start_server`; it is stopped and removed after the test."""
    servers = []

    def start(**options):
        servers.append(start_server(tmp_path_factory.mktemp("server"), **options))
        return servers[-1]

    with django_db_blocker.unblock():
        yield start
    for server in servers:
        server.remove()


@pytest.fixture
def server(django_db_setup, django_db_blocker):
    """The tests' server, for tests that create their own databases; nothing is rolled back."""
    with django_db_blocker.unblock():
        yield
        connection.close()
