import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fly2any.postgres.url import InvalidURL, is_local, is_same_database, parse

ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6}
LOCAL = {"connect_timeout": 10, "application_name": "fly2any", **ALIVE}
OPTIONS = LOCAL | {"sslmode": "require"}


def database(**changes):
    return {
        "ENGINE": "fly2any.postgres",
        "NAME": "db",
        "USER": "user",
        "PASSWORD": "secret",
        "HOST": "host",
        "PORT": "5432",
        "OPTIONS": OPTIONS,
        "DISABLE_SERVER_SIDE_CURSORS": False,
        "POOLER": "",
        "POOL": {},
        "VARIABLE": "POSTGRES_URL",
    } | changes


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://user:secret@host:5432/db", database()),
        ("postgres://user:secret@host/db", database(PORT="")),
        ("postgresql://user:p%40ss%2Fw%23rd@host:5432/db", database(PASSWORD="p@ss/w#rd")),
        ("postgresql://user:secret@[::1]:5432/db", database(HOST="::1", OPTIONS=LOCAL)),
        ("postgresql://user:secret@Host.Example:5432/db", database(HOST="Host.Example")),
        (
            "postgresql:///db?host=/run/postgresql",
            database(USER="", PASSWORD="", HOST="/run/postgresql", PORT="", OPTIONS=LOCAL),
        ),
        ("postgresql://user:secret@%2Frun%2FPG:5432/db", database(HOST="/run/PG", OPTIONS=LOCAL)),
        ("postgresql://user:secret@host:5432/db?sslmode=require", database()),
        ("postgresql://user:secret@host:5432/db?sslmode=disable", database(OPTIONS=OPTIONS | {"sslmode": "disable"})),
        (
            "postgresql://user:secret@localhost:5432/db?sslmode=verify-full",
            database(HOST="localhost", OPTIONS=LOCAL | {"sslmode": "verify-full"}),
        ),
        ("postgresql://user:secret@host:5432/db?connect_timeout=3", database(OPTIONS=OPTIONS | {"connect_timeout": "3"})),
        (
            "postgresql://user:secret@host:5432/db?schema=other",
            database(OPTIONS=OPTIONS | {"options": '-c search_path="other"'}),
        ),
        (
            "postgresql://user:secret@host:5432/db?schema=My%20One",
            database(OPTIONS=OPTIONS | {"options": '-c search_path="My\\ One"'}),
        ),
        ("postgresql://user:secret@localhost:5432/db?host=/run/postgresql", database(HOST="/run/postgresql", OPTIONS=LOCAL)),
        ("postgresql://host/db?user=user&password=secret&port=5432", database()),
        (
            "postgresql://user:secret@host:5432/db?pgbouncer=true&connection_limit=1",
            database(DISABLE_SERVER_SIDE_CURSORS=True, POOLER="PgBouncer", POOL={"max_size": 1}),
        ),
        ("postgresql://user:secret@host:5432/db?pool_timeout=20&statement_cache_size=0", database(POOL={"timeout": 20})),
        ("postgresql://user:secret@host:5432/db?pool_timeout=0", database()),
        (
            "postgresql://user:secret@host:5432/db?sslaccept=strict&sslmode=require",
            database(OPTIONS=OPTIONS | {"sslmode": "verify-full", "sslrootcert": "system"}),
        ),
        ("postgresql://user:secret@host:5432/db?sslaccept=accept_invalid_certs", database()),
        (
            "postgresql://user:secret@host:5432/db?sslaccept=strict&sslcert=ca.crt",
            database(OPTIONS=OPTIONS | {"sslmode": "verify-full", "sslrootcert": "ca.crt"}),
        ),
        (
            "postgresql://user:secret@host:5432/db?sslcert=mine.crt&sslkey=mine.key",
            database(OPTIONS=OPTIONS | {"sslcert": "mine.crt", "sslkey": "mine.key"}),
        ),
        ("postgresql://user:secret@host:5432/db?uselibpqcompat=true&sslmode=no-verify&max_connection_lifetime=60", database()),
        (
            "postgresql://user:secret@localhost:5432/db?ssl=true",
            database(HOST="localhost", OPTIONS=LOCAL | {"sslmode": "require"}),
        ),
        ("  postgresql://user:secret@host:5432/db\n", database()),
        ("postgresql://user:secret@host:5432/db?", database()),
        ("postgresql://user:secret@host:5432/db?&", database()),
        ("postgresql://user:secret@host:5432/db?sslmode=require&", database()),
        (
            "postgresql://user:secret@host:5432/db?&sslmode=require&&connect_timeout=10&",
            database(OPTIONS=OPTIONS | {"connect_timeout": "10"}),
        ),
        ("postgresql://user:%5Bs%5D@host:5432/db", database(PASSWORD="[s]")),
    ],
)
def test_a_url_is_read_as_prisma_and_the_providers_write_it(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "pooler"),
    [
        (
            "postgresql://u:p@ep-cool-name-123-pooler.eu-central-1.aws.neon.tech/db?sslmode=require&channel_binding=require",
            "Neon",
        ),
        ("postgresql://u:p@ep-cool-name-123.eu-central-1.aws.neon.tech/db?sslmode=require", ""),
        ("postgres://default:p@ep-a-1-pooler.us-east-1.postgres.vercel-storage.com:5432/verceldb", "Neon"),
        ("postgresql://postgres.ref:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true", "Supabase"),
        ("postgresql://postgres.ref:p@aws-0-eu-central-1.pooler.supabase.com:5432/postgres", ""),
        ("postgresql://postgres:p@db.ref.supabase.co:5432/postgres", ""),
        ("postgresql://postgres:p@db.ref.supabase.co:6543/postgres?supa=base-pooler.x", "Supabase"),
        ("postgresql://postgres:p@postgres.railway.internal:5432/railway", ""),
        ("postgresql://postgres:p@roundhouse.proxy.rlwy.net:12345/railway", ""),
        ("postgresql://app:p@db.example.com:5432/fly2any?connection_limit=5", ""),
        ("postgresql://app:p@my-pooler.example.com:6432/fly2any?pgbouncer=true", "PgBouncer"),
    ],
)
def test_the_providers_urls_are_recognised(url, pooler):
    parsed = parse(url)

    assert (parsed["POOLER"], parsed["DISABLE_SERVER_SIDE_CURSORS"]) == (pooler, bool(pooler))
    assert parsed["OPTIONS"]["sslmode"] == "require"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://user:secret@host/db", "scheme 'mysql'"),
        ("user:secret@host/db", "scheme 'user'"),
        ("host/db", "has no scheme"),
        ("prisma://accelerate.example/?api_key=secret", "only Prisma's client can use"),
        ("postgresql://user:secret@host", "names no database"),
        ("postgresql://user:secret@/db", "names no host"),
        ("postgresql://user:secret@host:99999/db", "its port is not a number"),
        ("postgresql://user:sec/ret@host/db", "its port is not a number"),
        ("postgresql://user:sec#ret@host/db", "write"),
        ("postgresql://user:secret%zz@host/db", "write % / @"),
        ("postgresql://user:secret@[::1/db", "its host is not well-formed"),
        ("postgresql://user:secr[et@host/db", "its user or password contains [ or ]"),
        ("postgresql://user:sec]ret@host/db", "# ? [ ] as %25 %2F %40 %3A %23 %3F %5B %5D."),
        ("postgresql://user:[secret]@host/db", "its user or password contains [ or ]"),
        ("postgresql://user:secret@host/db?sslmod=require", "the parameter 'sslmod'"),
        ("postgresql://user:secret@host/db?sslmode", "not well-formed"),
        ("postgresql://user:secret@host/d%00b", "zero byte"),
        ("postgresql://user:1234?secret@host:5432/db?sslmode=require", "one ? or @ too many"),
        ("postgresql://host/db?user=u&password=p@secret", "one ? or @ too many"),
        ("postgresql://user:secret@h1:5432,h2:5433/db", "names several hosts"),
        ("postgresql://user:secret@" + "long" * 20 + "/db", "its host"),
        ("postgresql://user:secret@host/" + "long" * 16, "more than 63 bytes"),
        ("postgresql://user:secret@host/db?service=other", "the parameter 'service'"),
        ("postgresql://user:secret@ho\x07st/db", "cannot be printed"),
        ("postgresql://user:secret@host/db?connection_limit=many", "is not a number from 1 to 10000"),
    ],
)
def test_a_url_that_cannot_be_used_gets_one_sentence_without_the_password(url, sentence):
    with pytest.raises(InvalidURL) as error:
        parse(url, variable="DATABASE_URL")

    message = str(error.value)
    assert message.startswith("DATABASE_URL ")
    assert sentence in message
    assert "secret" not in message
    assert "\n" not in message


@given(
    user=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    password=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    name=st.text(st.characters(exclude_characters="\0@/", exclude_categories=["Cs"]), min_size=1, max_size=15),
)
def test_escaped_values_survive_a_round_trip(user, password, name):
    parsed = parse(f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@host/{quote(name, safe='')}")

    assert (parsed["USER"], parsed["PASSWORD"], parsed["NAME"]) == (user, password, name)


@given(st.text())
def test_any_text_is_a_database_or_one_sentence(text):
    message = None
    try:
        parsed = parse(text)
    except InvalidURL as error:
        message = str(error)

    assert parsed["NAME"] if message is None else re.fullmatch(r"POSTGRES_URL .+", message)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("", True),
        ("/run/postgresql", True),
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("db.example", False),
    ],
)
def test_a_host_is_local_or_not(host, local):
    assert is_local(host) is local


DIRECT = "postgresql://u:p@ep-cool-name-123.eu-central-1.aws.neon.tech/db?sslmode=require"
SUPABASE = "postgresql://postgres:p@db.ref.supabase.co:5432/postgres"
RAILWAY = "postgresql://postgres:p@postgres.railway.internal:5432/railway"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (DIRECT, "postgresql://u:p@ep-cool-name-123-pooler.eu-central-1.aws.neon.tech/db", True),
        (DIRECT, "postgresql://u:p@ep-other-name-456-pooler.eu-central-1.aws.neon.tech/db", False),
        (DIRECT, DIRECT.replace("/db", "/other"), False),
        (SUPABASE, "postgresql://postgres.ref:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true", True),
        (SUPABASE, "postgresql://postgres.ref2:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true", False),
        (RAILWAY, "postgresql://postgres:p@roundhouse.proxy.rlwy.net:12345/railway", True),
        (RAILWAY, "postgresql://postgres:p2@roundhouse.proxy.rlwy.net:12345/railway", False),
        ("postgresql://u:p@localhost/db", "postgresql://u2:p2@127.0.0.1:5432/db?schema=other", True),
        ("postgresql://u:p@localhost/db", "postgresql://u:p@localhost:5433/db", False),
        ("postgresql://u:p@localhost/db", "postgresql://u:p@localhost:6432/db?pgbouncer=true", True),
        ("postgresql://u:p@one/db", "postgresql://u:p@two/db", False),
    ],
)
def test_two_urls_of_one_database_are_known_as_such(one, other, same):
    assert is_same_database(parse(one), parse(other)) is same
    assert is_same_database(parse(other), parse(one)) is same
