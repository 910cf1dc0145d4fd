"""While a table or a column is missing, no command reads another role's view or function in its place."""

import pytest
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

from accounts.models import User
from fly2any.database.errors import Refusal
from fly2any.database.schema.stand_ins import refuse_stand_ins
from tests.conftest import django, manage
from tests.database.old_rows import CASES, put

SENTENCE = (
    "{place} is missing, and another role may create something in its place, whose code this command would run: run"
    " `manage.py migrate`; if nothing is pending, run `manage.py dbstatus`.\n"
)
CAUGHT = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$"
COLUMN = """
    ALTER TABLE {table} RENAME COLUMN "{column}" TO gone;
    CREATE FUNCTION public."{column}"(public.{table}) RETURNS {type} {caught};
    ALTER FUNCTION public."{column}"(public.{table}) OWNER TO {{role}};
"""
TABLE = f"""
    ALTER TABLE fly2any_notes RENAME TO gone; CREATE FUNCTION public.id() RETURNS bigint {CAUGHT};
    CREATE VIEW fly2any_notes AS SELECT public.id() AS id, 'u' AS person_id, '' AS text, '' AS author, now() AS at;
    ALTER FUNCTION public.id() OWNER TO {{role}}; ALTER VIEW fly2any_notes OWNER TO {{role}}; GRANT SELECT ON fly2any_notes TO PUBLIC;
"""
PERSON = """INSERT INTO users (id, email, "updatedAt", "isStaff") VALUES ('u', 'u@example.com', now(), true)"""


def column(table, name, type_="text"):
    return COLUMN.format(table=table, column=name, type=type_, caught=CAUGHT)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("command", "lost", "place"),
    [
        ("dumpdata accounts.User", column("users", "avatarUrl"), "users.avatarUrl"),
        ("dumpdata administration.Note", TABLE, "fly2any_notes.at"),
        ("dbstaff --list", column("users", "lastLoginAt", "timestamptz"), "users.lastLoginAt"),
        ("changepassword u@example.com", column("users", "avatarUrl"), "users.avatarUrl"),
    ],
)
def test_a_command_runs_no_code_of_another_role_in_place_of_what_is_missing(migrated, other_role_of, command, lost, place):
    migrated.execute(f"{PERSON};{lost.format(role=other_role_of(migrated))}")

    result = manage(*command.split(), url=migrated.url)

    assert (result.returncode, result.stderr[-len(SENTENCE) - 60 :].endswith(SENTENCE.format(place=place))) == (2, True), (
        result.stderr
    )


@pytest.mark.slow
def test_commands_about_the_schema_run_meanwhile(migrated, other_role_of):
    migrated.execute(f"{PERSON};{column('users', 'avatarUrl').format(role=other_role_of(migrated))}")

    results = {name: manage(*name.split(), url=migrated.url) for name in ("migrate", "dbstatus", "showmigrations", "dbhealth")}

    assert {name: result.returncode for name, result in results.items()} == {
        "migrate": 0, "dbstatus": 4, "showmigrations": 0, "dbhealth": 4,
    }  # fmt: skip
    assert "caught" not in "".join(result.stdout + result.stderr for result in results.values())


def ask(database, statements, question):
    """Whether the question is refused in a database where the statements ran, and the number of questions about the catalogue."""
    database.execute(statements)
    with django(database) as own:
        asked = []

        def count(execute, statement, parameters, many, context):
            asked.extend(["WITH home AS" in str(statement)])
            return execute(statement, parameters, many, context)

        own.execute_wrappers.append(count)
        refuse_stand_ins(own)
        try:
            for _ in range(3):
                question(own.alias)
        except Refusal as refusal:
            return str(refusal), sum(asked)
        return "", sum(asked)


def people(alias):
    list(User.objects.using(alias).values_list("id", "email"))


@pytest.mark.parametrize(
    ("statements", "question", "expected"),
    [
        ("SELECT", people, ("", 1)),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", people, ("", 1)),
        ('REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER TABLE users RENAME "avatarUrl" TO gone', people, ("", 1)),
        ('GRANT CREATE ON SCHEMA public TO PUBLIC; ALTER TABLE users RENAME "avatarUrl" TO gone', people, ("", 1)),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC; DROP TABLE fly2any_notes", people, ("", 1)),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC; ALTER TABLE users RENAME phone TO gone",
         lambda alias: User.objects.using(alias).filter(phone="1").exists(), (SENTENCE.format(place="users.phone").strip(), 1)),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC; DROP TABLE users CASCADE",
         lambda alias: MigrationRecorder(connections[alias]).applied_migrations(), ("", 0)),
    ],
    ids=["complete", "complete and open", "closed", "another column", "another table", "a column", "the record"],
)  # fmt: skip
def test_only_statements_that_read_what_is_missing_are_refused(migrated, statements, question, expected):
    assert ask(migrated, statements, question) == expected


OF_OTHERS = """
    CREATE SCHEMA mal AUTHORIZATION {role}; SET ROLE {role}; CREATE TYPE mal.kind AS ENUM ('a', 'medium');
    CREATE FUNCTION mal.evil(mal.kind) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$;
    CREATE CAST (mal.kind AS text) WITH FUNCTION mal.evil(mal.kind) AS IMPLICIT; RESET ROLE;
    ALTER TABLE notifications ALTER priority DROP DEFAULT, ALTER priority TYPE mal.kind USING 'a'::mal.kind
"""


@pytest.mark.slow
def test_commands_about_the_schema_run_no_cast_of_another_roles_type(migrated, exact, other_role_of):
    results = {}
    for database in (migrated, exact):
        database.execute(OF_OTHERS.format(role=other_role_of(database)))
    for name in ("migrate", "dbstatus", "dbhealth"):
        results[name] = manage(name, url=migrated.url)
    results["dbadopt"] = manage("dbadopt", url=exact.url)
    for database in (migrated, exact):
        database.execute("DROP SCHEMA mal CASCADE")

    assert {name: result.returncode for name, result in results.items()} == {
        "migrate": 2, "dbstatus": 4, "dbhealth": 4, "dbadopt": 2,
    }  # fmt: skip
    assert "caught" not in "".join(result.stdout + result.stderr for result in results.values())
    assert "Function mal.evil(mal.kind), which table public.notifications uses" in results["dbstatus"].stdout
    assert results["dbadopt"].stderr.startswith("notifications.priority has a type of another role, whose code")


PLANTED = """
    GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role};
    CREATE FUNCTION public.equal(varchar, varchar) RETURNS bool LANGUAGE sql RETURN false;
    CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.equal); RESET ROLE
"""
VARCHAR = "ALTER TABLE users ALTER phone TYPE varchar(40)"


@pytest.mark.parametrize(
    ("statements", "is_refused"),
    [
        (f"{VARCHAR}; {PLANTED}", True),
        (f"{VARCHAR}; GRANT CREATE ON SCHEMA public TO PUBLIC", False),
        (PLANTED, False),
        (f"{VARCHAR}; {PLANTED.replace('public.=', 'public.<->')}", True),
        (f"{VARCHAR}; {PLANTED.replace('public.=', 'public.<<~')}", False),
    ],
    ids=["planted", "none yet", "our type", "another operator", "a name of its own"],
)
def test_a_column_of_another_type_is_not_compared_by_another_roles_operator(migrated, other_role_of, statements, is_refused):
    """PostgreSQL has no operator for varchar = varchar of its own."""
    said, _ = ask(
        migrated,
        statements.format(role=other_role_of(migrated)),
        lambda alias: User.objects.using(alias).filter(phone="1").exists(),
    )
    migrated.execute("DROP FUNCTION IF EXISTS public.equal(varchar, varchar) CASCADE")

    refusal = (
        "users.phone does not have our type, and another role has a function or operator for its type with the name of one of PostgreSQL's,"
        " whose code this command would run: change the column back to its own type with the cure that `manage.py dbstatus` prints, and"
        " run the command again."
    )
    assert said == (refusal if is_refused else "")


def test_no_index_is_built_with_another_roles_function(migrated, other_role_of):
    planted = "GRANT CREATE ON SCHEMA public TO {role}; CREATE FUNCTION public.upper(varchar) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1::text; ALTER FUNCTION public.upper(varchar) OWNER TO {role}"

    def build(alias):
        with connections[alias].cursor() as cursor:
            cursor.execute('CREATE INDEX made ON "users" (upper("phone"))')

    said, _ = ask(migrated, f"{VARCHAR}; {planted.format(role=other_role_of(migrated))}", build)
    migrated.execute("DROP FUNCTION public.upper(varchar) CASCADE")

    assert said.startswith("users.phone does not have our type, and another role has a function")


def test_retention_compares_no_ids_by_another_roles_operator(migrated, other_role_of, tmp_path):
    migrated.execute("ALTER TABLE price_history ALTER id TYPE varchar(40)")
    migrated.execute(PLANTED.format(role=other_role_of(migrated)).replace("RETURN false", "RETURN 1/0 = 0"))
    put(migrated, "price_history", "old", CASES["price_history"][0])

    result = manage("dbmaintain", "weekly", url=migrated.url, RETENTION="price_history=30", ARCHIVE_LOCATION=str(tmp_path))
    left = migrated.execute("SELECT id::text FROM price_history")
    migrated.execute("DROP FUNCTION public.equal(varchar, varchar) CASCADE")

    assert ("price_history.id does not have our type" in result.stdout + result.stderr, left) == (True, [("old",)])
