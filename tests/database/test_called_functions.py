"""Functions that defaults, constraints, indexes and generated columns of our tables call."""

import pytest
from django.db import Error, connection, transaction

from fly2any.database.verification import verify
from tests.database.test_writes import run

# In PL/pgSQL, because a session keeps an index expression as it first inlined it, as another role.
FUNCTIONS = """
    CREATE FUNCTION slug(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lower(t) || '-' || md5(t); END $$;
    CREATE FUNCTION is_long(t text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN length(t) > 100; END $$;
    CREATE FUNCTION new_code() RETURNS text LANGUAGE sql AS $$ SELECT md5(random()::text) $$;
    CREATE FUNCTION same(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT a = b $$;
    CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = same);
    CREATE DOMAIN short AS text CHECK (NOT is_long(VALUE)); CREATE DOMAIN shorter AS short;
    CREATE ROLE site; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO site;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO site;
"""
REVOKE = "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC"
INSERT = "INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())"


def of_functions():
    return [
        (one.severity, one.where, one.message, one.cure) for one in verify(connection).findings if one.code == "table.function"
    ]


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "function", "caller"),
    [
        ("ALTER TABLE users ADD code text DEFAULT new_code()", "new_code()", "column code"),
        ("ALTER TABLE users ADD slug text GENERATED ALWAYS AS (slug(email)) STORED", "slug(text)", "column slug"),
        ("CREATE INDEX theirs ON users (slug(name))", "slug(text)", "index theirs"),
        ("CREATE INDEX theirs ON users (id) WHERE is_long(name)", "is_long(text)", "index theirs"),
        ("ALTER TABLE users ADD CONSTRAINT theirs CHECK (NOT is_long(name))", "is_long(text)", "constraint theirs"),
        ("ALTER TABLE users ADD CONSTRAINT theirs CHECK (NOT name === email)", "same(text,text)", "constraint theirs"),
        ("ALTER TABLE users ADD code shorter DEFAULT 'a'", "is_long(text)", "column code"),
    ],
)
def test_a_function_that_the_role_may_not_execute_is_found_with_what_calls_it(change, function, caller):
    run(FUNCTIONS, change, "SET LOCAL ROLE site")
    assert of_functions() == []
    run("RESET ROLE", REVOKE, "SET LOCAL ROLE site")
    with pytest.raises(Error, match="permission denied for function"), transaction.atomic():
        run(INSERT)

    found = of_functions()

    cure = f"GRANT EXECUTE ON FUNCTION public.{function} TO site;"
    calls = "a generated column" if connection.pg_version < 150000 and "GENERATED" in change else caller
    message = (
        f"This role may INSERT into users, but may not execute public.{function}, which {calls} calls: such a write fails."
    )
    assert found == [("error", "users", message, f"As its owner: {cure}")]
    run("RESET ROLE", cure, "SET LOCAL ROLE site", INSERT)
    assert of_functions() == []


@pytest.mark.django_db
def test_a_role_that_only_reads_need_not_execute_functions():
    run(FUNCTIONS, "CREATE INDEX theirs ON users (slug(name)); REVOKE INSERT ON users FROM site", REVOKE, "SET LOCAL ROLE site")

    assert of_functions() == []


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("BEGIN RETURN clean(t); END", "clean"),
        ("BEGIN RETURN (SELECT max(word) FROM words WHERE word = t); END", "words"),
        ("BEGIN RETURN t::theirs; END", "theirs"),
        ("BEGIN RETURN array_to_string(ts_lexize('plain', t), ' '); END", "plain"),
        ("BEGIN RETURN array_to_string(ts_lexize('public.plain', t), ' '); END", ""),
        ("BEGIN RETURN public.clean(t); END", ""),
        ("BEGIN RETURN (SELECT max(w.word) FROM public.words AS w WHERE w.word = lower(t)); END", ""),
        ("BEGIN RETURN lower(t::varchar); END", ""),
    ],
)
@pytest.mark.parametrize(
    "use", ["CREATE INDEX used ON users (norm(email))", "CREATE STATISTICS used ON norm(email), name FROM users",
            "ALTER TABLE users ADD CONSTRAINT used CHECK (norm(email) <> 'x')"]
)  # fmt: skip
def test_a_function_that_finds_another_object_by_the_search_path_is_a_note(body, name, use):
    run(
        "CREATE TABLE words (word text); CREATE DOMAIN theirs AS text; CREATE TEXT SEARCH DICTIONARY plain (TEMPLATE = simple)",
        "CREATE FUNCTION clean(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(trim(t)) $$",
        f"CREATE FUNCTION norm(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ {body} $$",
        use,
    )
    kind = {"INDEX": "index", "STATISTICS": "statistics", "TABLE": "constraint"}[use.split()[1]]

    found = of_functions()

    message = (
        f"public.norm(text), which {kind} used of users calls, finds {name} by the search path. A restore and autovacuum, from"
        " PostgreSQL 17 on also ANALYZE and REINDEX, run it with an empty one, and fail."
    )
    cure = "ALTER FUNCTION public.norm(text) SET search_path FROM CURRENT;"
    assert found == ([("note", "users", message, f"Name the schema in it, or as its owner: {cure}")] if name else [])
    run("SET LOCAL search_path TO public", cure)
    assert of_functions() == []


@pytest.mark.django_db
def test_analyze_works_after_the_cure():
    run(
        "CREATE FUNCTION clean(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(trim(t)) $$",
        "CREATE FUNCTION norm(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN clean(t); END $$",
        "CREATE INDEX used ON users (norm(email))",
        INSERT,
    )
    [(*_, cure)] = of_functions()
    if connection.pg_version >= 170000:
        with pytest.raises(Error, match="function clean"), transaction.atomic():
            run("ANALYZE users")

    run(cure.partition(": ")[2], "ANALYZE users")
