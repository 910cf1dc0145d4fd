"""Each weakness is created for real and found; a secure server has no finding, and no report contains a secret."""

import json
import os
import re
from contextlib import contextmanager
from datetime import date

import psutil
import pytest

from fly2any.database.findings import Finding
from fly2any.database.health import security
from fly2any.database.health.examine import Reader
from fly2any.database.report.collect import collect
from fly2any.database.report.waivers import Waiver
from tests.conftest import django, manage
from tests.database.test_dbhealth import of
from tests.servers import DEBIANS, DebianServer, certificate

PASSWORD = "Long-enough-for-anybody-1"
HASH = "$2b$12$" + "a" * 53
KEY = "3uW7Xk29vLq8Tz4mBw7pRc1nHd6sYf3jGa0eUi5oKlQxWvZbNtMy"


def looked(url, **environment):
    """The findings of `dbstatus --security`, as (severity, code, where), and the whole output."""
    result = manage("dbstatus", "--security", "--format", "json", url=url, **{"SECRET_KEY": KEY, **environment})
    assert result.returncode in (0, 4, 5), result.stderr
    report = json.loads(result.stdout)
    found = [(one["severity"], one["code"], one["where"]) for one in report["findings"]]
    assert [topic["trouble"] for topic in report["security"]["topics"]] == [""] * len(security.TOPICS)
    return [one for one in found if one[1].startswith("security.")], result.stdout


@pytest.fixture
def app(migrated):
    """The URL of the role of the app, as `dbroles` makes it, with a password of its own."""
    migrated.execute(manage("dbroles", "--prefix", migrated.name, url=migrated.url).stdout)
    migrated.execute(f"ALTER ROLE {migrated.name}_app PASSWORD '{PASSWORD}'")
    yield migrated.url.replace("//postgres@", f"//{migrated.name}_app:{PASSWORD}@")
    for end in ("migrate", "app", "read"):
        migrated.execute(f"REASSIGN OWNED BY {migrated.name}_{end} TO postgres; DROP OWNED BY {migrated.name}_{end}")
    for end in ("migrate", "app", "read"):
        migrated.execute(f"DROP ROLE {migrated.name}_{end}")


AUDITED = [("note", "security.audit", "log_connections, log_statement")]


def test_a_role_with_only_the_privileges_it_needs_has_no_finding(app):
    found, output = looked(app)

    assert found == AUDITED
    assert PASSWORD not in output


def test_a_role_that_may_do_everything_is_found(migrated):
    assert looked(migrated.url)[0] == [("warning", "security.role", "postgres"), *AUDITED]


@pytest.mark.slow
def test_privileges_of_public_are_found_and_the_cure_works(migrated, app):
    migrated.execute("GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT SELECT, UPDATE ON users TO PUBLIC")
    result = manage("dbstatus", "--security", "--format", "json", url=app)
    public = [one for one in json.loads(result.stdout)["findings"] if one["code"] == "security.public"]
    for one in public:
        migrated.execute(one["cure"])

    assert [one["where"] for one in public] == ["SCHEMA public", "TABLE users"]
    assert looked(app)[0] == AUDITED


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("password", "found"),
    [
        (HASH, []),
        (HASH.replace("$12$", "$09$"), [("warning", "security.password_cost", "users.password")]),
        ("pbkdf2_sha256$1$x$y", [("error", "security.password_kind", "users.password")]),
        ("hunter2", [("error", "security.password_kind", "users.password")]),
        (HASH + "a", [("error", "security.password_kind", "users.password")]),
        (None, []),
    ],
)
def test_weak_password_storage_is_found(migrated, app, password, found):
    migrated.execute("INSERT INTO users (id, email, password, \"updatedAt\") VALUES ('u', 'u@b.c', %s, now())", [password])

    said, output = looked(app)

    assert said == [*found, *AUDITED]
    assert password is None or password not in output


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, [("note", "security.idle_staff", "users.isStaff")]),
        ({"isStaff": False}, []),
        ({"isActive": False}, []),
        ({"password": None}, []),
        ({"lastLoginAt": "2100-01-01"}, []),
        ({"lastLoginAt": None, "createdAt": "2020-01-01"}, [("note", "security.idle_staff", "users.isStaff")]),
        ({"lastLoginAt": None, "createdAt": "2100-01-01"}, []),
    ],
)
def test_idle_staff_are_noted(migrated, app, change, found):
    row = {
        "id": "u",
        "email": "u@b.c",
        "updatedAt": "2020-01-01",
        "password": HASH,
        "isStaff": True,
        "lastLoginAt": "2020-01-01",
    } | change
    columns = ", ".join(f'"{name}"' for name in row)
    migrated.execute(f"INSERT INTO users ({columns}) VALUES ({', '.join(['%s'] * len(row))})", list(row.values()))

    assert looked(app)[0] == [*found, *AUDITED]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"SECOND_FACTOR": "false"}, [("warning", "security.second_factor", "SECOND_FACTOR")]),
        ({"SECURE_SSL_REDIRECT": "false"}, [("warning", "security.django", "security.W008")]),
        (
            {"BACKUP_LOCATION": "/nonexistent/b", "BACKUP_IDENTITY_FILE": "/nonexistent/b/key"},
            [("warning", "security.key_beside", "key")],
        ),
        ({"BACKUP_LOCATION": "/nonexistent/b", "BACKUP_IDENTITY_FILE": "/nonexistent/bb/key"}, []),
    ],
)
def test_weak_environment_settings_are_found(app, environment, found):
    said = [one for one in looked(app, **environment)[0] if one != AUDITED[0]]

    assert said == found


@pytest.mark.parametrize(
    ("user", "password", "weak"),
    [
        ("fly2any_app", "Sixteen-letters!", False),
        ("fly2any_app", "Fifteen-letters", True),
        ("a_very_long_user_name", "A_very_long_user_name2026", True),
        ("a_very_long_user_name", "A_very_long_user_name2026x", False),
        ("fly2any_app", "", False),
    ],
)
def test_a_guessable_password_is_found_but_not_shown(migrated, settings, user, password, weak):
    settings.DEVELOPMENT = True
    with django(migrated) as connection, with_settings(connection, USER=user, PASSWORD=password) as copy:
        reader = Reader(copy, "public")
        found = [one for one in security.secrets(reader) if isinstance(one, Finding)]

    assert [one.code for one in found] == ["security.weak_password"] * weak
    assert not password or not any(password in str(one) for one in found)


@contextmanager
def with_settings(connection, **facts):
    copy = connection.copy()
    copy.settings_dict = {**connection.settings_dict, **facts}
    try:
        yield copy
    finally:
        copy.close()


@pytest.mark.parametrize("name", ["site.env", ".secret_key"])
@pytest.mark.parametrize(
    ("mode", "found"), [(0o600, []), (0o640, ["security.readable_file"]), (0o604, ["security.readable_file"])]
)
def test_a_file_with_secrets_that_others_may_read_is_found(migrated, settings, tmp_path, name, mode, found):
    settings.DEVELOPMENT, settings.BASE_DIR, settings.ENV_FILE = True, tmp_path, tmp_path / "site.env"
    (tmp_path / ".env").touch(mode=0o644)  # The settings do not read it.
    (tmp_path / name).touch()
    (tmp_path / name).chmod(mode)
    with django(migrated) as connection:
        answers = list(security.secrets(Reader(connection, "public")))

    assert [one.code for one in answers if isinstance(one, Finding)] == found


LINES = {
    "host all all 10.0.0.0/8 trust": ["security.trust"],
    "host all all 10.0.0.0/8 ident": ["security.trust"],
    "hostssl all all 10.0.0.0/8 md5": ["security.method", "security.open"],  # The embedded server has no TLS, and says so.
    "hostnossl all all 10.0.0.0/8 password": ["security.method"],
    "host all all 10.0.0.0/8 scram-sha-256": [],
    "host all all 0.0.0.0/0 scram-sha-256": ["security.open"],
    "host all all ::/0 scram-sha-256": ["security.open"],
    "host all all all trust": ["security.trust", "security.open"],
    "host all all 127.0.0.1/32 trust": [],
    "host all all samehost trust": [],
    "hostnossl some all all reject": [],
    "host all all 0.0.0.0/0 password": ["security.method", "security.open"],
    "hostnossl all all all reject": [],
    "host all all 0.0.0.0/0 scram-sha-256 ": [],
    "host all all 10.0.0.0/8 password": [],
    "host all all all reject": [],
    "host all all 10.0.0.0/8 trust ": [],
}


def test_rules_are_read_from_pg_hba_conf(own_server):
    server = own_server(listen_addresses="*")
    server.hba(*LINES)

    found, output = looked(of(server).url)

    plain = "The method password, for clients from anywhere, sends passwords in plain text, even without TLS."
    assert json.dumps(plain) in output
    expected = [
        (code, f"pg_hba.conf line {number}") for number, codes in enumerate(LINES.values(), 2) for code in codes
    ]  # The first line is of the socket.
    exposed = [(code, where) for _, code, where in found if where.startswith("pg_hba.conf")]
    assert sorted(exposed) == sorted(expected)


def test_a_server_that_listens_only_locally_is_not_open_whatever_pg_hba_conf_says(own_server):
    server = own_server(listen_addresses="localhost")
    server.hba("host all all all trust")

    found, _ = looked(of(server).url)

    assert [code for _, code, _ in found if code in ("security.trust", "security.open")] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "extra"),
    [
        ("CREATE ROLE middle; GRANT postgres TO middle; GRANT middle TO {role}", "SUPERUSER"),
        ("GRANT pg_execute_server_program TO {role}", "pg_execute_server_program"),
    ],
)
def test_roles_that_a_role_may_become_count(own_server, made, extra):
    server = own_server()
    server.execute("CREATE ROLE app LOGIN")
    server.execute(made.format(role="app"))

    result = manage("dbstatus", "--security", "--format", "json", url=server.url("app"))

    [one] = [one for one in json.loads(result.stdout)["findings"] if one["code"] == "security.role"]
    assert one["message"] == f"The role has, or can acquire, {extra}, which neither the admin nor a migration needs."


@pytest.mark.slow
def test_roles_that_write_indirectly_or_to_columns_are_listed_and_supabases_are_found(own_server):
    server = own_server(migrated=True)
    server.execute(
        "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticator LOGIN NOINHERIT; GRANT anon TO authenticator; CREATE ROLE one_column LOGIN;"
        " CREATE ROLE reader LOGIN; GRANT SELECT ON users TO reader; GRANT UPDATE (password) ON users TO one_column; GRANT ALL ON users, accounts TO anon"
    )

    result = manage("dbstatus", "--security", "--format", "json", url=server.url())
    without = json.loads(manage("dbstatus", "--format", "json", url=server.url()).stdout)
    report = json.loads(result.stdout)
    [writers] = [
        figure["text"]
        for topic in report["security"]["topics"]
        for figure in topic["figures"]
        if figure["label"] == "roles that write to users"
    ]
    api = [one for one in report["findings"] if one["code"] == "security.api"]
    server.execute(api[0]["cure"])
    after = json.loads(manage("dbstatus", "--security", "--format", "json", url=server.url()).stdout)

    assert writers == "authenticator, one_column"
    assert [(one["where"], one["message"]) for one in api] == [
        ("anon", "Supabase's API lets any holder of the public key use 2 tables: accounts, users.")
    ]
    assert [one for one in without["findings"] if one["code"] == "security.api"] == api
    assert [one for one in after["findings"] if one["code"] == "security.api"] == []


@pytest.mark.slow
def test_a_policy_that_admits_supabases_api_to_a_table_with_secrets_is_found(own_server):
    server = own_server(migrated=True)
    server.execute(
        "CREATE ROLE anon NOLOGIN; GRANT ALL ON users, notifications TO anon;"
        " ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE notifications ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY theirs ON notifications TO anon USING (true)"
    )
    hidden = json.loads(manage("dbstatus", "--format", "json", url=server.url()).stdout)
    server.execute("CREATE POLICY everyone ON users FOR SELECT USING (true)")

    admitted = json.loads(manage("dbstatus", "--format", "json", url=server.url()).stdout)

    assert [one for one in hidden["findings"] if one["code"] == "security.api"] == []
    assert [one["message"] for one in admitted["findings"] if one["code"] == "security.api"] == [
        "Supabase's API lets any holder of the public key use 1 table: users."
    ]


@pytest.mark.slow
def test_migrations_give_supabases_api_none_of_the_tables_that_they_create(own_server):
    server = own_server()
    server.execute(
        "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN; GRANT USAGE ON SCHEMA public TO anon, authenticated;"
        " ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated;"
        " ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated"
    )

    migrated = manage("migrate", url=server.url())
    report = json.loads(manage("dbstatus", "--format", "json", url=server.url()).stdout)
    granted = server.execute("SELECT relname FROM pg_class WHERE relacl::text ~ 'anon|authenticated'")
    server.execute("CREATE TABLE theirs (id int)")

    assert migrated.returncode == 0, migrated.stderr
    assert [one for one in report["findings"] if one["code"] == "security.api"] == []
    assert granted == []
    assert server.execute("SELECT has_table_privilege('anon', 'theirs', 'SELECT')") == [(True,)]


@pytest.mark.slow
def test_a_topic_that_failed_is_a_finding(own_server):
    server = own_server(migrated=True)
    server.execute("CREATE ROLE watcher LOGIN")

    result = manage("dbstatus", "--security", "--format", "json", url=server.url("watcher"))

    assert result.returncode == 4
    [one] = [one for one in json.loads(result.stdout)["findings"] if one["code"] == "security.not_asked"]
    assert (one["where"], "permission denied for table users" in one["message"]) == ("passwords", True)


@pytest.mark.slow
def test_an_md5_password_of_a_role_is_found_and_sufficient_logging_is_not(own_server):
    server = own_server(log_connections="on", log_statement="ddl")
    server.execute("SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'x'")
    server.execute("CREATE ROLE new LOGIN PASSWORD 'x'")

    found, _ = looked(server.url())

    assert [(code, where) for _, code, where in found if code != "security.role"] == [("security.role_password", "old")]


def not_loopback():
    """An address of this machine that is not its loopback, or None."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family.name == "AF_INET" and not address.address.startswith("127."):
                return address.address
    return None


@pytest.mark.slow
@pytest.mark.skipif(not DEBIANS.exists(), reason="postgresql-15 is not installed")
@pytest.mark.skipif(not_loopback() is None and not os.environ.get("CI"), reason="this machine has no network")
def test_unencrypted_connections_between_machines_are_found(tmp_path_factory):
    home = tmp_path_factory.mktemp("tls")
    authority, made, key = certificate(home, "server", "localhost")
    server = DebianServer(home, {"ssl": "on", "ssl_min_protocol_version": "TLSv1.1", "listen_addresses": "*"})
    server.server.settings |= {"ssl_cert_file": server.give(made), "ssl_key_file": server.give(key)}
    server.hba("host all all all trust")
    try:
        server.start().create_database()
        place = f"postgresql://postgres@{not_loopback()}:{server.port}/fly2any"
        plain, output = looked(f"{place}?sslmode=disable")
        encrypted, _ = looked(f"{place}?sslmode=require")
        verified, _ = looked(f"{place}?sslmode=verify-ca&sslrootcert={authority}")
    finally:
        server.remove()

    def of_the_wire(found):
        return [
            (severity, code)
            for severity, code, where in found
            if where in ("ssl_min_protocol_version", "pg_stat_ssl", "sslmode")
        ]

    version = ("warning", "security.tls_version")
    assert "accepts versions of TLS that are no longer secure: the minimum is TLSv1.1." in output
    assert of_the_wire(plain) == [version, ("warning", "security.plain_sessions")]
    assert of_the_wire(encrypted) == [version, ("note", "security.unverified")]
    assert of_the_wire(verified) == [version]


def test_a_waiver_also_applies_to_security(migrated):
    migrated.execute("GRANT SELECT ON users TO PUBLIC")
    waiver = Waiver("security.public", "TABLE users", "ana@example.com", date(2100, 1, 1), "a demo")

    with django(migrated) as connection, with_settings(connection, EMBEDDED=None) as copy:
        report = collect(copy, security={"privileges": security.privileges}, waivers=[waiver])

    assert [finding.code for finding in report.findings] == ["security.role"]
    assert [(finding.where, by) for finding, by in report.waived] == [("TABLE users", waiver)]


def test_the_text_has_the_same_findings(migrated, app):
    result = manage("dbstatus", "--security", url=app)

    assert re.search(r"^Security\n  Privileges\n    this role +\w+_app\n", result.stdout, re.M), result.stdout
    assert result.stdout.count("NOTE    security.audit at log_connections, log_statement") == 1
