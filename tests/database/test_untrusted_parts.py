"""Code of other roles that parts of our tables use, such as an index or a check: no write runs it."""

import pytest
from django.db import transaction

from fly2any.database.errors import Refusal
from fly2any.database.person import find, plan
from fly2any.database.schema.untrusted_code import refuse_untrusted_code
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.other_roles import other_role
from tests.database.people import EMAIL

THEIRS = (
    "CREATE FUNCTION mal.one(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1",
    "CREATE FUNCTION mal.yes(text) RETURNS bool LANGUAGE sql IMMUTABLE RETURN true",
    "CREATE OPERATOR mal.~~~ (RIGHTARG = text, FUNCTION = mal.yes)",
    "CREATE DOMAIN mal.words AS text CHECK (mal.yes(VALUE))",
    "CREATE TYPE mal.kind AS ENUM ('k')",
    "CREATE TYPE mal.tier AS ENUM ('k')",
    "CREATE FUNCTION mal.text(mal.tier) RETURNS text LANGUAGE sql IMMUTABLE RETURN 'a'",
    "CREATE CAST (mal.tier AS text) WITH FUNCTION mal.text(mal.tier)",
    "CREATE TYPE mal.pair AS (a text)",
    "CREATE TYPE mal.words_pair AS (a mal.words)",
    "CREATE COLLATION mal.c (provider = libc, locale = 'C')",
)
OURS = "CREATE FUNCTION public.own(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN mal.one($1)"
ONE, YES = "Function mal.one(text)", "Function mal.yes(text)"
USED = {  # The statement, what is used, and by what.
    "an index": ("CREATE INDEX made ON {} (mal.one(name))", ONE, "index made"),
    "the condition of an index": ("CREATE INDEX made ON {} (id) WHERE mal.yes(name)", YES, "index made"),
    "statistics": ("CREATE STATISTICS made ON (mal.one(name)), id FROM {}", ONE, "statistics object made"),
    "a check": ("ALTER TABLE {} ADD CONSTRAINT made CHECK (mal.yes(name))", YES, "constraint made on table {}"),
    "an operator": (
        "ALTER TABLE {} ADD CONSTRAINT made CHECK (OPERATOR(mal.~~~) name)", YES, "constraint made on table {}"
    ),
    "a default": ("ALTER TABLE {} ALTER name SET DEFAULT mal.one('')", ONE, "default value for column name of table {}"),
    "a generated column": (
        "ALTER TABLE {} ADD made text GENERATED ALWAYS AS (mal.one(name)) STORED", ONE, "default value for column made of table {}"
    ),
    "a policy": ("CREATE POLICY made ON {} USING (mal.yes(name))", YES, "policy made on table {}"),
    "a rule": ("CREATE RULE made AS ON UPDATE TO {} WHERE mal.yes(OLD.name) DO ALSO SELECT 1", YES, "rule made on table {}"),
    "a domain": ("ALTER TABLE {} ADD made mal.words", YES, "table {}"),
    "a domain in an array": ("ALTER TABLE {} ADD made mal.words[]", YES, "table {}"),
    "a domain in a composite type": ("ALTER TABLE {} ADD made mal.words_pair", YES, "table {}"),
    "a domain in a row of a table": (
        "CREATE TABLE mal.more (a mal.words); ALTER TABLE {} ADD made mal.more", YES, "table {}"
    ),
    "an enum with a cast": ("ALTER TABLE {} ADD made mal.tier[]", "Function mal.text(mal.tier)", "table {}"),
    "a function of ours": (OURS + "; CREATE INDEX made ON {} (public.own(name))", ONE, "index made"),
}  # fmt: skip
COLUMN_BEFORE_15 = "table {}"  # These versions record for a generated column what its expression calls.


def version(database):
    return database.execute("SELECT current_setting('server_version_num')::int")[0][0]


def found(database):
    with django(database) as connection:
        return [(one.where, one.message, one.cure) for one in verify(connection).findings if one.code == "tables.untrusted"]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("table", ["public.users", "site.notes"])
@pytest.mark.parametrize("made", USED)
def test_a_part_of_a_table_that_uses_another_roles_code_is_found_and_refused(migrated, table, made):
    statement, used, part = USED[made]
    migrated.execute("CREATE SCHEMA site; CREATE TABLE site.notes (id text REFERENCES users ON DELETE CASCADE, name text)")
    with other_role(migrated, *THEIRS) as role:
        migrated.execute(statement.format(table))
        findings = found(migrated)
        with (
            django(migrated) as connection,
            pytest.raises(Refusal) as refusal,
            transaction.atomic(using=connection.alias),
        ):
            refuse_untrusted_code(connection, ["users"], deletes=True)
        migrated.execute("DROP SCHEMA mal CASCADE; DROP SCHEMA site CASCADE")

    if made == "a generated column" and version(migrated) < 15_00_00:
        part = COLUMN_BEFORE_15
    part = part.format(table)
    if part.split()[-1] == "made":
        part = part.replace("made", f"{'public' if made == 'statistics' else table.split('.')[0]}.made")
    sentence = f"{used}, which {part} uses, runs code of the role {role} with the privileges of the role that writes to users."
    assert [(where, message) for where, message, _ in findings] == [("users", sentence)]
    assert str(refusal.value).startswith(f"Nothing was changed. {sentence} Ask the owner of ")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "made",
    [
        "ALTER TABLE users ADD made mal.kind DEFAULT 'k', ADD other mal.pair, ADD more mal.kind[]; CREATE INDEX ON users (made)",
        "ALTER TABLE users ADD made text COLLATE mal.c",
        "CREATE FUNCTION own(text) RETURNS bool LANGUAGE sql IMMUTABLE RETURN true; ALTER TABLE users ADD CHECK (own(name))",
        "CREATE VIEW seen AS SELECT mal.one(name) FROM users",
        "CREATE TABLE public.more (kind mal.kind CHECK (mal.yes(kind::text)))",
    ],
)
def test_types_without_code_and_objects_that_no_write_evaluates_are_not_found(migrated, made):
    with other_role(migrated, *THEIRS):
        migrated.execute(f"ALTER TABLE users ADD of mal.kind; {made}")
        with django(migrated) as connection, transaction.atomic(using=connection.alias):
            refuse_untrusted_code(connection, ["users"], deletes=True)
        migrated.execute("DROP VIEW IF EXISTS seen; DROP TABLE IF EXISTS public.more; DROP SCHEMA mal CASCADE")


OWN_JSON = "CREATE FUNCTION public.own({0}) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN to_jsonb($1)"
CONVERTING = {  # The statements, and what uses the type of the column `kind`.
    "a check": ("ALTER TABLE {} ADD CONSTRAINT made CHECK (to_jsonb(kind) IS NOT NULL)", "constraint made on table {}"),
    "a check of a row": ("ALTER TABLE {} ADD CONSTRAINT made CHECK (row_to_json(notes) IS NOT NULL)", "constraint made on table {}"),
    "an index": (f"{OWN_JSON.format('mal.kind')}; CREATE INDEX made ON {{}} (own(kind))", "index site.made"),
    "a condition": (f"{OWN_JSON.format('site.pair')}; CREATE INDEX made ON {{}} (id) WHERE own(pair) <> '1'", "index site.made"),
    "statistics": (f"{OWN_JSON.format('mal.kind')}; CREATE STATISTICS made ON (own(kind)), id FROM {{}}", "statistics object public.made"),
    "a default": ("ALTER TABLE {} ADD made json DEFAULT json_build_array('k'::mal.kind)", "default value for column made of table {}"),
    "a generated column": (
        f"{OWN_JSON.format('mal.kind[]')}; ALTER TABLE {{}} ADD made jsonb GENERATED ALWAYS AS (own(kinds)) STORED",
        "default value for column made of table {}",
    ),
    "a policy": ("CREATE POLICY made ON {} USING (EXISTS (SELECT json_agg(m) FROM site.more AS m))", "policy made on table {}"),
    "a rule": ("CREATE RULE made AS ON UPDATE TO {} DO ALSO SELECT to_json(OLD)", "rule made on table {}"),
    "a domain": ("CREATE DOMAIN site.own AS mal.kind CHECK (to_jsonb(VALUE) <> '1'); ALTER TABLE {} ADD made site.own", "table {}"),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize("made", CONVERTING)
def test_a_part_that_converts_another_roles_enum_to_json_is_found(migrated, made):
    statement, part = CONVERTING[made]
    with other_role(migrated, *THEIRS) as role:
        migrated.execute(
            "CREATE SCHEMA site; CREATE TYPE site.pair AS (a mal.kind); CREATE TABLE site.more (kind mal.kind);"
            "CREATE TABLE site.notes (id text REFERENCES users ON DELETE CASCADE, kind mal.kind, kinds mal.kind[], pair site.pair,"
            " data jsonb CHECK (data ->> 'a' <> 'b' AND jsonb_typeof(data) <> 'c'))"
        )
        before = found(migrated)
        migrated.execute(statement.format("site.notes"))
        findings = found(migrated)
        migrated.execute("DROP SCHEMA mal CASCADE; DROP SCHEMA site CASCADE")

    if made == "a generated column" and version(migrated) < 15_00_00:
        part = COLUMN_BEFORE_15
    what = f"Type mal.kind, which {part.format('site.notes')} uses,"
    assert before == []
    assert [message for _, message, _ in findings] == [
        f"{what} runs code of the role {role} with the privileges of the role that writes to users."
    ]


def test_a_table_of_ours_with_another_roles_code_is_not_read(two):
    with other_role(two, *THEIRS) as role:
        two.execute("CREATE INDEX made ON notifications (mal.one(title))")
        with (
            django(two) as connection,
            pytest.raises(Refusal, match=rf"^The role {role} owns notifications, its schema or code that"),
        ):
            plan(connection, find(connection, EMAIL))
        two.execute("DROP SCHEMA mal CASCADE")
