"""Where an erasure finds the address and the id of a person, in whatever way a column holds them."""

import dataclasses
import io
import time

import pytest

from fly2any.database.errors import Refusal
from fly2any.database.person import Stream, erase, find, plan
from fly2any.database.person.patterns import is_address, patterns_for
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.other_roles import other_role
from tests.database.people import ANA, EMAIL, erased, planned
from tests.servers import open_transaction


def test_an_address_with_quotes_is_found_as_json_arrays_and_html_write_it(two):
    email = """"ana'&b"@example.com"""
    two.execute("UPDATE users SET email = %s WHERE id = %s", [email, ANA])
    two.execute("CREATE TYPE pair AS (a text, b int); CREATE TABLE raw (a text, b jsonb, c text[], d pair, e text, f text)")
    two.execute(
        "INSERT INTO raw VALUES (%(email)s, pg_catalog.to_jsonb(%(email)s::text), ARRAY[%(email)s::text], ROW(%(email)s, 1), %(html)s, %(sql)s)",
        {"email": email, "html": "&quot;ana&apos;&amp;b&quot;@example.com", "sql": email.replace("'", "''")},
    )

    assert [one["column"] for one in erased(two, email)["remaining"] if one["holds"] == "address"] == [
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
    ]


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_address_with_marks_is_found_however_urls_json_and_html_write_them(two, is_ours):
    email = "ana+a_b%c@example.com"
    two.execute("UPDATE users SET email = %s WHERE id = %s", [email, ANA])
    theirs = [
        email,
        "q=ana%2Ba_b%25c%40example.com",
        "ana%2ba%5fb%25c%40example%2Ecom",
        "ana%252Ba_b%2525c%2540example.com",
        r"ana\u002ba\u005Fb\u0025c@example.com",
        r"ana\x2Ba\x5fb\x25c@example.com",
        "ana&#43;a&#x5f;b&#37;c@example.com",
        "ana&plus;a&lowbar;b&percnt;c&commat;example&period;com",
        "ANA%2BA_B%25C@EXAMPLE.COM",
    ]
    similar = ["ana a_b%c@example.com", "ana%2Ba_b%25c@example.com.br"]
    others = ["anaa_b%c@example.com", "ana+axb%c@example.com", "ana+a_bxxc@example.com", "ana+a_b%c@exampleXcom"]
    two.execute("CREATE TABLE notes (a text)")
    for text in (*theirs, *similar, *others):
        two.execute("INSERT INTO notes VALUES (%s)", [text])

    with two.role(*([] if is_ours else ["ALTER TABLE notes OWNER TO {role}"])):
        certificate = erased(two, email)

    counts = {one["holds"]: one["rows"] for one in certificate["remaining"] if one["table"] == "notes"}
    assert counts == {"address": len(theirs), "similar": len(similar)}


@pytest.mark.slow
@pytest.mark.parametrize("is_ours", [True, False])
def test_every_kind_of_column_of_every_schema_is_searched(two, is_ours):
    """The same for a table of another role, which is searched on the client."""
    two.execute(
        "CREATE SCHEMA crm; CREATE EXTENSION IF NOT EXISTS citext SCHEMA public; CREATE DOMAIN crm.mail AS varchar(80);"
        "CREATE TYPE crm.contact AS (mail text, raw bytea); CREATE TYPE crm.names AS RANGE (subtype = text);"
        "CREATE DOMAIN crm.mails AS crm.mail[]; CREATE DOMAIN crm.mails2 AS crm.mails; CREATE DOMAIN crm.raw AS bytea;"
        "CREATE DOMAIN crm.raw2 AS crm.raw; CREATE DOMAIN crm.raws AS bytea[]; CREATE DOMAIN crm.doc AS jsonb;"
        "CREATE TYPE crm.kind AS ENUM ('ana.silva@example.com');"
        "CREATE TABLE crm.everything (a varchar(99), b citext, c json, d jsonb, e text[], f bytea, g crm.mail, h crm.contact, i text,"
        ' j "char", k bytea[], l text COLLATE "C", m char(60), n int, o timestamp, p inet, q crm.names, r crm.mail[], s crm.doc[],'
        " t crm.mails2, u crm.raw2, v crm.raws, w crm.raw[], x crm.kind, y crm.kind[], z crm.contact[]);"
        "INSERT INTO crm.everything (a) VALUES ('[Ana.Silva@example.com]');"
        "INSERT INTO crm.everything (b) VALUES ('mailto:ANA.silva@EXAMPLE.com');"
        'INSERT INTO crm.everything (c) VALUES (\'{"m": "ana\\u002esilva\\u0040example.com"}\');'
        'INSERT INTO crm.everything (d) VALUES (\'{"m": ["ana.silva\\u0040example.com"]}\');'
        "INSERT INTO crm.everything (e) VALUES ('{\"x\", ana.silva@example.com}');"
        "INSERT INTO crm.everything (f) VALUES ('\\x00ff' || 'Ana.silva@example.com'::bytea || '\\xff');"
        "INSERT INTO crm.everything (g) VALUES ('ana.silva@example.com');"
        "INSERT INTO crm.everything (h) VALUES (ROW('x', 'ANA.silva@example.com'::bytea));"
        "INSERT INTO crm.everything (i) VALUES ('<a>ana.silva&#64;example.com</a>');"
        "INSERT INTO crm.everything (k) VALUES (ARRAY['x'::bytea, 'ana.silva@example.com']);"
        "INSERT INTO crm.everything (l) VALUES (repeat('x', 40000000) || ' Ana.SILVA@example.com');"
        "INSERT INTO crm.everything (q) VALUES ('[ana.silva@example.com,zzz]');"
        "INSERT INTO crm.everything (r, t, x, y) VALUES ('{ana.silva@example.com}', '{Ana.silva@example.com}', 'ana.silva@example.com', '{ana.silva@example.com}');"
        'INSERT INTO crm.everything (s) VALUES (ARRAY[\'{"m": "ana.silva\\u0040example.com"}\']::crm.doc[]);'
        "INSERT INTO crm.everything (u, v) VALUES ('ana.silva@example.com', ARRAY['x'::bytea, 'ana.silva@example.com']);"
        "INSERT INTO crm.everything (w, z) VALUES (ARRAY['ana.silva@example.com'::bytea]::crm.raw[], ARRAY[ROW('x', 'ana.silva@example.com')::crm.contact]);"
        "INSERT INTO crm.everything (m) VALUES ('ana.silva@example.com.br');"
        "CREATE MATERIALIZED VIEW crm.copy AS SELECT email FROM users;"
    )

    if is_ours:
        certificate = erased(two)
    else:
        with two.role("ALTER TABLE crm.everything OWNER TO {role}"):
            certificate = erased(two)

    found = {(place["table"], place["column"]): (place["holds"], place["rows"]) for place in certificate["remaining"]}
    assert found == {
        **{("crm.everything", column): ("address", 1) for column in "abcdefghiklqrstuvwxyz"},
        ("crm.everything", "m"): ("similar", 1),
        ("crm.copy", "email"): ("address", 1),
    }
    assert certificate["unsearched"] == []
    assert {place["reason"] for place in certificate["remaining"] if place["table"] == "crm.copy"} == {
        "a materialized view still holds the old rows: REFRESH MATERIALIZED VIEW"
    }


def test_what_cannot_be_searched_is_named(two):
    two.execute(
        "CREATE SCHEMA crm; CREATE TABLE crm.secret (a text); CREATE TABLE hidden (a text); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;"
        "CREATE TABLE partly (a text, b text); SELECT lo_create(0)"
    )
    with two.role(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        "REVOKE SELECT ON partly FROM {role}",
        "GRANT SELECT (a) ON partly TO {role}",
        "REVOKE UPDATE, DELETE, TRUNCATE ON fly2any_accesses FROM {role}",
        "DO $$ BEGIN IF current_setting('server_version_num')::int >= 170000 THEN REVOKE MAINTAIN ON fly2any_accesses FROM {role}; END IF; END $$",
    ):
        certificate = erased(dataclasses.replace(two, user=f"{two.name}_role"))

    assert certificate["unsearched"] == [
        {"place": "crm.secret", "reason": "no privilege to read it"},
        {"place": "hidden", "reason": "row-level security hides rows of it from this role"},
        {"place": "partly.b", "reason": "no privilege to read it"},
        {"place": "large objects", "reason": "not in columns"},
        {"place": "fly2any_accesses", "reason": "rows added in the meantime: this role may not lock the table"},
    ]
    assert certificate["removed"] == {"users": 1}


def test_a_role_that_may_not_clear_the_access_records_is_told_who_may(two):
    two.execute(
        'INSERT INTO fly2any_accesses (at, staff_id, staff_email, action, "table", query)'
        " VALUES (now(), 's', 's@example.com', 'exported', 'users', %s)",
        [f"q={EMAIL}"],
    )
    grants = ("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", "REVOKE UPDATE ON fly2any_accesses FROM {role}")
    with two.role(*grants), pytest.raises(Refusal) as refused:
        erased(dataclasses.replace(two, user=f"{two.name}_role"))

    assert str(refused.value) == (
        f"Nothing was changed. The role {two.name}_role may not clear the address in fly2any_accesses:"
        " run `manage.py dbperson erase` as the owner of the tables."
    )


def test_an_erasure_without_a_search_says_so_and_names_no_limits_of_a_search(two):
    certificate = erased(two, searched=False)

    assert certificate["unsearched"] == [{"place": "the database", "reason": "not searched, as requested"}]
    assert certificate["beyond"] == [
        "earlier backups and archives", "the logs of the server, the site and the admin", "replicas and other databases"
    ]  # fmt: skip


def test_the_planners_statistics_no_longer_show_the_address(two):
    two.execute("ANALYZE users")
    shown = "SELECT count(*) FROM pg_stats WHERE histogram_bounds::text ILIKE %s"
    assert two.execute(shown, ["%silva@example%"]) != [(0,)]

    certificate = erased(two)

    assert two.execute(shown, ["%silva@example%"]) == [(0,)]
    assert certificate["remaining"] == []


def test_statistics_of_an_empty_table_which_analyze_keeps_are_removed_or_listed_with_a_statement_that_does(two):
    two.execute(
        'CREATE TABLE pairs (a text COLLATE "C", b text); CREATE STATISTICS pair (mcv) ON a, b FROM pairs; CREATE INDEX ON pairs (lower(a));'
        f"INSERT INTO pairs SELECT '{EMAIL}', i % 2 FROM generate_series(1, 50) AS i; ANALYZE pairs; DELETE FROM pairs"
    )

    remaining = {one["column"]: (one["table"], one["holds"], one["reason"]) for one in erased(two)["remaining"]}

    said = "the planner's statistics may still hold sampled values: ANALYZE keeps them while"
    statement = 'ALTER TABLE "public"."pairs" ALTER COLUMN a TYPE text COLLATE "C"'
    later = f'{said} the table has no rows: run ANALYZE "public"."pairs" when it has some'
    expected = {"pair": ("pairs", "statistics", later)}
    if two.execute("SHOW server_version_num") < [("180000",)]:
        expected["a"] = ("pairs", "statistics", f"{said} a table or a shard has no rows, but this removes them: {statement}")
        expected["lower"] = ("pairs", "statistics", later)
    assert remaining == expected
    two.execute(statement)
    held = "SELECT (SELECT count(*) FROM pg_stats WHERE {0}) + (SELECT count(*) FROM pg_stats_ext WHERE {0})"
    assert two.execute(held.format("most_common_vals::text ~* 'ana.silva'")) == [(0,)]


@pytest.mark.parametrize("is_ours", [True, False])
def test_words_that_only_end_with_the_address_do_not_match(two, is_ours):
    """Marks before the address belong to the word after a letter; otherwise they are quotes."""
    others = ["o'{}", "team+{}", "x/{}", "team%2B{}", "o\\u0027{}", "j.{}", "a|{}", "é{}"]
    theirs = ["'{}'", "q={}", "(+{})", "a;{}", "%27{}", "=%27{}", "a%20{}", "\\n{}", "mailto://{}", "{{{}}}", "a, '{}'"]
    two.execute("CREATE TABLE notes (a text)")
    for text in (*others, *theirs):
        two.execute("INSERT INTO notes VALUES (%s)", [text.format("ana.silva@example.com")])

    with two.role(*([] if is_ours else ["ALTER TABLE notes OWNER TO {role}"])):
        certificate = erased(two)

    counts = {(one["table"], one["holds"]): one["rows"] for one in certificate["remaining"]}
    assert counts == {("notes", "address"): len(theirs), ("notes", "similar"): len(others)}


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_address_that_is_not_ascii_is_found_in_bytes(two, is_ours):
    two.execute("UPDATE users SET email = 'josé@exämple.com' WHERE id = %s", [ANA])
    two.execute("CREATE TABLE raw (a bytea, b bytea[])")
    two.execute(
        "INSERT INTO raw VALUES (convert_to('x JOSÉ@exämple.com', 'utf8'), ARRAY[convert_to('josé@exämple.com', 'utf8')])"
    )

    with two.role(*([] if is_ours else ["ALTER TABLE raw OWNER TO {role}"])):
        certificate = erased(two, "josé@exämple.com")

    assert [(one["column"], one["holds"], one["rows"]) for one in certificate["remaining"]] == [
        ("a", "address", 1),
        ("b", "address", 1),
    ]


class Rotating(Progress):
    """Renames a table and creates a new one of its name, once, when the search comes to a table before it."""

    def __init__(self, database, name):
        self.database, self.name, self.done = database, name, False

    def show(self, what, percent):
        if what.startswith("searching") and not self.done:
            self.done = True
            self.database.execute(f"ALTER TABLE {self.name} RENAME TO {self.name}_old; CREATE TABLE {self.name} (line text)")
            self.database.execute(f"INSERT INTO {self.name} VALUES ('a new row about {EMAIL}')")


def test_a_table_that_is_rotated_during_the_search_is_searched_under_both_names(two):
    two.execute(f"CREATE TABLE zz_log (line text); INSERT INTO zz_log VALUES ('{EMAIL}')")
    with django(two) as connection:
        certificate = erase(connection, find(connection, EMAIL), Stream(io.StringIO()), progress=Rotating(two, "zz_log"))

    found = {(place.table, place.column, place.holds) for place in certificate.remaining}
    assert {("zz_log_old", "line", "address"), ("zz_log", "line", "address")} <= found


@pytest.mark.sampled(8)
@pytest.mark.parametrize("repeated", ["\\", "%41", "&a;", "\\u0041", "\\x41", "%25", "&#0", "!", "(!", "ana.", "ana\\"])
@pytest.mark.parametrize("email", ["ana.silva@example.com", "'_x+y@example.com"])
def test_a_value_that_another_role_fills_with_escapes_is_searched_in_linear_time(repeated, email):
    """Quadratic time would be minutes."""
    text = repeated * (100_000 // len(repeated))
    wanted = patterns_for("u-alpha-beta", email)

    begun = time.process_time()
    found = [pattern.compiled.search(text) for pattern in (wanted.address, wanted.within, wanted.id)]

    assert (found, time.process_time() - begun < 5) == ([None, None, None], True)
    for pattern in (wanted.address, wanted.within):
        assert pattern.compiled.search(f"{text} {email}")


def test_a_locked_table_is_waited_for_once(two, monkeypatch):
    monkeypatch.setattr("fly2any.database.person.transactions.LOCK_TIMEOUT", 200)
    attempts = []

    def watch(execute, statement, *rest):
        attempts.extend([1] if statement.startswith('PREPARE fly2any_lock AS SELECT FROM "mal".') else [])
        return execute(statement, *rest)

    with (
        other_role(two, "CREATE TABLE mal.notes (a text, b text, c text)"),
        open_transaction(two, "LOCK TABLE mal.notes IN ACCESS EXCLUSIVE MODE"),
        django(two) as connection,
        connection.execute_wrapper(watch),
    ):
        foreseen = plan(connection, find(connection, EMAIL))

    reason = "PostgreSQL cannot search it: canceling statement due to lock timeout"
    assert [(one.place, one.reason) for one in foreseen.unsearched] == [(f"mal.notes.{name}", reason) for name in "abc"]
    assert attempts == [1]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("email", ["demo.example", "opened", "boss@", '"boss@demo.example'])
def test_what_is_no_address_is_not_found_in_the_addresses_and_texts_of_others(two, email):
    """Nothing prevents that another text is stored as a person's address; the site decides."""
    two.execute("UPDATE users SET email = %s WHERE id = %s", [email, ANA])
    two.execute(
        "INSERT INTO verification_tokens (identifier, token, expires) VALUES ('eve@demo.example', 't', now()), (%s, 'own', now())",
        [email],
    )
    two.execute(
        'INSERT INTO fly2any_accesses (staff_id, staff_email, action, "table", query) VALUES'
        " ('u-beta', 'boss@demo.example', 'opened', 'ai_messages', 'to \"boss@demo.example\", <boss@demo.example>'),"
        " ('u-alpha', %s, 'opened', %s, %s)",
        [email, email, f"of {email}"],
    )
    two.execute("CREATE TABLE notes AS SELECT 'boss@demo.example'::text AS a, %s AS b, ARRAY[%s] AS c", [email, email])

    planned_removal = planned(two, email).removed
    certificate = erased(two, email)

    assert planned_removal == certificate["removed"] == {"users": 1, "verification_tokens": 1}
    assert certificate["cleared"] == {"fly2any_accesses": 1}
    assert two.execute("SELECT identifier FROM verification_tokens") == [("eve@demo.example",)]
    assert two.execute('SELECT staff_email, action, "table", query FROM fly2any_accesses ORDER BY id') == [
        ("boss@demo.example", "opened", "ai_messages", 'to "boss@demo.example", <boss@demo.example>'),
        ("(erased)", "opened", email, f"of {email}"),
    ]
    assert [one["place"] for one in certificate["unsearched"]] == ["texts that contain the address"]
    assert [(one["column"], one["holds"]) for one in certificate["remaining"] if one["table"] == "notes"] == [
        ("b", "address"),
        ("c", "similar"),
    ]


def test_an_address_is_recognised_with_the_marks_and_letters_that_mail_allows():
    real = (
        "o'brien+x=1@example.com",
        '"a b@c"@example.com',
        "zoë@bücher.example",
        "a_b%c!d#e$f&g/h?i^j`k{l}m~n@a.b",
        "root@[192.0.2.1]",
        "a@हिन्दी.example",
    )
    none = (
        "",
        "a",
        "@",
        "a@",
        "@a.b",
        "a b@c.d",
        "a@b@c.d",
        "<a@b.c>",
        "a@b.c>",
        'a@b.c"',
        "a@b.c.",
        "a@b.c,",
        "a@b.c d",
        " a@b.c",
        "a@b.c\n",
        "a@b.c\u00a0",
    )

    assert ([is_address(one) for one in real], [is_address(one) for one in none]) == ([True] * len(real), [False] * len(none))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("josé.núñez@example.com", ["address", "within"]),
        ("to JOSÉ.NÚÑEZ@EXAMPLE.COM.", ["address", "within"]),
        ("José.nÚñez@example.com", ["address", "within"]),
        ("éjosé.núñez@example.com", ["within"]),
        ("ямjosé.núñez@example.com", ["within"]),
        ("josé.núñez@example.comé", ["within"]),
        ("“josé.núñez@example.com”", ["address", "within"]),
        ("jose.nunez@example.com", []),
    ],
)
def test_letters_of_any_script_are_known_in_the_locale_c(migrated, text, holds):
    """There, PostgreSQL knows the case of ASCII letters only, and takes no others for letters."""
    wanted = patterns_for("u-alpha-beta", "josé.núñez@example.com")
    named = {"address": wanted.address, "within": wanted.within}

    [found] = migrated.execute(
        'SELECT %s COLLATE "C" ~* %s, %s COLLATE "C" ~* %s', [text, wanted.address.text, text, wanted.within.text]
    )

    assert [name for name, is_found in zip(named, found, strict=True) if is_found] == holds
    assert [name for name, pattern in named.items() if pattern.compiled.search(text)] == holds


def test_people_whose_addresses_differ_in_the_case_of_any_letter_are_twins_in_the_locale_c(migrated):
    database = dataclasses.replace(migrated, name=f"{migrated.name}_c")
    provider = (
        "LOCALE_PROVIDER libc"
        if migrated.execute("SELECT 1 WHERE current_setting('server_version_num')::int >= 150000")
        else ""
    )
    migrated.execute(
        f"CREATE DATABASE {database.name} ENCODING 'UTF8' {provider} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        database.execute('CREATE TABLE users (id text, email text, "isStaff" bool, "isSuperuser" bool)')
        for identity, email in (("1", "josé@example.com"), ("2", "JOSÉ@example.com"), ("3", "jose@example.com")):
            database.execute("INSERT INTO users VALUES (%s, %s, false, false)", [identity, email])
        with django(database) as connection:
            found = [find(connection, email) for email in ("josé@example.com", "2", "jose@example.com")]
    finally:
        migrated.execute(f"DROP DATABASE {database.name} WITH (FORCE)")

    assert [(one.id, one.has_twin) for one in found] == [("1", True), ("2", True), ("3", False)]
