"""Settings of the whole server that are findings: each cure works wherever the setting comes from."""

import shlex
from contextlib import closing
from dataclasses import replace

import pytest

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Reader
from fly2any.database.health.replication import commits_that_wait
from fly2any.database.health.security import TOPICS as SECURITY
from fly2any.database.health.server_settings import OF_DISK
from fly2any.database.health.topics import TOPICS
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.test_dbhealth import of
from tests.database.test_health_privileges import asked
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("server")

RELOAD = "SELECT pg_reload_conf();"
STANDBY = "Start the standby again; or commit without it: "
SESSIONS = {
    "array_nulls": "off",
    "lock_timeout": "90",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_table_access_method": "odd",
    "default_tablespace": "pg_global",
    "extra_float_digits": "0",
    "session_replication_role": "replica",
    "temp_file_limit": "0",
}


def by_file(server, settings):
    """Write the settings to a file that postgresql.conf includes, and load it."""
    data = server.home / "data"
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    (data / "ours.conf").write_text(lines)
    (data / "ours.conf").chmod(0o644)
    with (data / "postgresql.conf").open("a") as file:
        file.write("include 'ours.conf'\n")
    last = list(settings)[-1]
    server.execute("SELECT pg_reload_conf()")
    wait_until(of(server), "SELECT 1 FROM pg_settings WHERE name = %s AND source = 'configuration file'", [last])


def by_command_line(server, settings):
    server.stop()
    server.server.settings |= settings
    server.start()


def of_sessions(server):
    """The findings about settings of sessions, as a role that owns no tablespace reads them."""
    with django(replace(of(server), user="plain")) as connection:
        return [one for one in verify(connection).findings if one.code.startswith("database.") or one.where == "SYSTEM"]


BY_OWNER = "-- The owner of the database, or a superuser, must run it\n"


@pytest.mark.slow
@pytest.mark.parametrize("put", [by_file, by_command_line])
def test_the_cure_for_a_setting_of_the_server_works_wherever_it_is_set(own_server, put):
    server = own_server(migrated=True)
    server.execute("CREATE ACCESS METHOD odd TYPE TABLE HANDLER heap_tableam_handler; CREATE ROLE plain LOGIN")
    put(server, SESSIONS)

    found = of_sessions(server)
    for finding in found:
        with closing(of(server).connect()) as client:  # As in psql, each line is a transaction of its own.
            for line in finding.cure.splitlines():
                client.execute(line)

    assert [(one.code, one.where, one.cure) for one in found] == [
        (
            *("database.read_only", "fly2any"),
            f'{BY_OWNER}SET default_transaction_read_only TO off;\nALTER DATABASE "fly2any" SET default_transaction_read_only TO off;',
        ),
        *(
            (code, "SYSTEM", f'{BY_OWNER}ALTER DATABASE "fly2any" SET {setting};')
            for code, setting in (
                ("security.replication_role", "session_replication_role TO origin"),
                ("database.array_nulls", "array_nulls TO on"),
                ("database.access_method", "default_table_access_method TO heap"),
                ("database.tablespace", "default_tablespace TO ''"),
                ("database.isolation", "default_transaction_isolation TO 'read committed'"),
                ("database.float_digits", "extra_float_digits TO 1"),
                ("database.timeout", "lock_timeout TO 0"),
                ("database.temp_files", "temp_file_limit TO -1"),
            )
        ),
    ]
    assert of_sessions(server) == []


WHOLE = {"autovacuum": "off", "full_page_writes": "off", "track_counts": "off"}
LOGGED = {"log_connections": "off", "log_statement": "none", "synchronous_standby_names": "gone"}


def of_whole_server(server):
    """The findings about the server's own settings."""
    with django(of(server)) as connection:
        connection.ensure_connection()
        reader = Reader(connection, "public")
        found = [*TOPICS["settings"](reader), *commits_that_wait(reader), *SECURITY["audit"](reader)]
    return [one for one in found if isinstance(one, Finding)]


@pytest.mark.slow
def test_the_cure_for_a_setting_in_a_file_is_a_later_file(own_server):
    server = own_server()
    server.server.settings.pop("fsync")
    by_command_line(server, {})
    by_file(server, {"fsync": "off", **WHOLE, **LOGGED})

    found = of_whole_server(server)
    for finding in found:
        for statement in finding.cure.removeprefix(STANDBY).replace("; S", ";\nS").splitlines():
            server.execute(statement)
    wait_until(of(server), "SELECT 1 WHERE current_setting('log_statement') = 'ddl'")

    assert [(one.where, one.cure, one.is_sql) for one in found] == [
        *(
            (name, f"ALTER SYSTEM SET {name} = 'on';\n{RELOAD}", True)
            for name in ("autovacuum", "track_counts", "fsync", "full_page_writes")
        ),
        ("synchronous_standby_names", f"{STANDBY}ALTER SYSTEM SET synchronous_standby_names = ''; {RELOAD}", False),
        (
            "log_connections, log_statement",
            f"ALTER SYSTEM SET log_connections = 'on';\nALTER SYSTEM SET log_statement = 'ddl';\n{RELOAD}",
            True,
        ),
    ]
    assert of_whole_server(server) == []


@pytest.mark.slow
def test_the_cure_for_a_setting_on_the_command_line_is_there(own_server):
    server = own_server()
    by_command_line(server, {**WHOLE, **LOGGED})  # fsync is off for every server of a test.

    found = of_whole_server(server)
    options = {}
    for finding in found:
        words = shlex.split(finding.cure.partition(" start the server with ")[2].removesuffix("."))
        options |= dict(word.split("=") for word in words if word != "-c")
    by_command_line(server, options)

    def sets(names, options):
        return f"The server's command line sets {names}, and takes precedence over ALTER SYSTEM and every file: start the server with {options}."

    assert [(one.where, one.cure, one.is_sql) for one in found] == [
        *((name, sets(name, f"-c {name}=on"), False) for name in ("autovacuum", "track_counts", "fsync", "full_page_writes")),
        (
            "synchronous_standby_names",
            STANDBY.replace(": ", ". ") + sets("synchronous_standby_names", "-c synchronous_standby_names=''"),
            False,
        ),
        (
            "log_connections, log_statement",
            sets("log_connections and log_statement", "-c log_connections=on -c log_statement=ddl"),
            False,
        ),
    ]
    assert of_whole_server(server) == []


def as_neon(server):
    by_command_line(server, {"neon.tenant_id": "3f1c"})


def as_aurora(server):
    server.execute("CREATE FUNCTION pg_catalog.aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '16.4.1' $$")


@pytest.mark.parametrize(("platform", "imitate"), [("Neon", as_neon), ("Aurora", as_aurora)])
def test_the_settings_of_a_disk_are_not_required_of_storage_without_one(own_server, platform, imitate):
    server = own_server(**WHOLE)  # And fsync is off.
    before = asked(of(server), "settings")[0]["settings"][0]
    imitate(server)
    figures, findings = asked(of(server), "settings")

    assert before == "2 of 6 as required"
    assert figures["settings"][0] == f"2 of 4 as required; {platform} does not need fsync and full_page_writes"
    assert [one.where for one in findings] == ["autovacuum", "track_counts"]


def test_settings_of_sessions_that_lose_rows_are_found_at_each_place(migrated):
    name, user = f'"{migrated.name}"', f'"{migrated.user}"'
    migrated.execute(f"ALTER DATABASE {name} SET zero_damaged_pages = 1")
    migrated.execute(f"ALTER ROLE {user} IN DATABASE {name} SET track_counts = off")
    migrated.execute(f"ALTER ROLE {user} IN DATABASE {name} SET ignore_checksum_failure = 'ON'")

    def found_of_sessions():
        return [
            one for one in asked(migrated, "settings")[1] if one.where not in OF_DISK
        ]  # These are off for every server of a test.

    found = found_of_sessions()
    for finding in found:
        migrated.execute(finding.cure)

    place = f"ROLE {migrated.user} IN DATABASE {migrated.name}"
    assert [(one.code, one.where, one.message.partition(":")[0], one.is_sql) for one in found] == [
        ("settings.wrong", "track_counts", f"track_counts is off ({place}) and must be on", True),
        ("settings.wrong", "zero_damaged_pages", f"zero_damaged_pages is 1 (DATABASE {migrated.name}) and must be off", True),
        ("settings.wrong", "ignore_checksum_failure", f"ignore_checksum_failure is ON ({place}) and must be off", True),
    ]
    assert found_of_sessions() == []
