"""What keeps the site from deleting or changing a row: tried on a real server, found, and resolved by its cure."""

import psycopg
import pytest
from django.db import connection

from fly2any.database.findings import Severity
from fly2any.database.schema import read_catalog
from fly2any.database.schema.unmanaged_findings import AGREE
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.mutation import EXPECTED
from tests.database.test_writes import run

DELETE = "DELETE FROM users WHERE id = 'u'"
CHANGE = "UPDATE users SET email = 'v@example.com' WHERE id = 'u'"
CHILD = "CREATE TABLE child (a text {column} REFERENCES users{target} {action} {more}); INSERT INTO child (a) VALUES ('{row}')"


def child(action, *, column="", target="", more="", row="u"):
    return CHILD.format(action=action, column=column, target=target, more=more, row=row)


TENANTS = """ALTER TABLE users ADD tenant int NOT NULL DEFAULT 1; CREATE UNIQUE INDEX ON users (tenant, id);
             CREATE TABLE child (tenant int, a text, FOREIGN KEY (tenant, a) REFERENCES users (tenant, id) ON DELETE CASCADE)"""
CASES = {
    "publication": (child("ON DELETE CASCADE") + "; CREATE PUBLICATION every FOR ALL TABLES", DELETE),
    "default": (child("ON DELETE SET DEFAULT", column="DEFAULT 'nobody'"), DELETE),
    "check": (child("ON DELETE SET NULL", column="CHECK (a IS NOT NULL)"), DELETE),
    "domain": (
        "CREATE DOMAIN required AS text NOT NULL; " + child("ON DELETE SET NULL").replace("a text", "a required"),
        DELETE,
    ),
    "rule": (child("ON DELETE CASCADE") + "; CREATE RULE keep AS ON DELETE TO child DO INSTEAD NOTHING", DELETE),
    "owner": (child("ON DELETE CASCADE") + "; ALTER TABLE child OWNER TO {role}; REVOKE DELETE ON child FROM {role}", DELETE),
    "match full": (
        "CREATE UNIQUE INDEX ON users (name, id); UPDATE users SET name = 'n'; CREATE TABLE child (t text DEFAULT 'n', a text,"
        " CONSTRAINT child_a_fkey FOREIGN KEY (t, a) REFERENCES users (name, id) MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL (a));"
        " INSERT INTO child VALUES ('n', 'u')",
        DELETE,
    ),
    "domain with a check": (
        "CREATE DOMAIN required AS text CHECK (VALUE IS NOT NULL); CREATE DOMAIN above AS required; "
        + child("ON DELETE SET NULL").replace("a text", "a above"),
        DELETE,
    ),
    "cleared key": (
        "CREATE TABLE prof (u text UNIQUE REFERENCES users ON DELETE SET NULL); INSERT INTO prof VALUES ('u'); "
        + child("ON DELETE CASCADE").replace("users", "prof (u)"),
        DELETE,
    ),
    "e-mail address further on": (
        "CREATE TABLE news (email text PRIMARY KEY REFERENCES users (email) ON UPDATE CASCADE ON DELETE CASCADE);"
        " INSERT INTO news VALUES ('u@example.com'); "
        + child("ON DELETE CASCADE", row="u@example.com").replace("users", "news (email)"),
        CHANGE,
    ),
    "owner of rows that follow an e-mail address": (
        child("ON DELETE CASCADE ON UPDATE CASCADE", target="(email)", row="u@example.com")
        + "; ALTER TABLE child OWNER TO {role}; REVOKE UPDATE ON child FROM {role}",
        CHANGE,
    ),
    "e-mail address": (
        child("ON DELETE CASCADE", target="(email)", row="u@example.com"),
        CHANGE,
    ),
}


@pytest.fixture
def person(migrated):
    """A database with the person u, and a role that owns nothing yet."""
    role = f"{migrated.name}_theirs"
    migrated.execute(f"""CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role}; GRANT ALL ON users TO {role};
                         GRANT CREATE ON SCHEMA public TO {role} WITH GRANT OPTION;
                         INSERT INTO users (id, email, "updatedAt") VALUES ('u', 'u@example.com', now())""")
    yield role
    migrated.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}")


def found(database):
    with django(database) as connection:
        return [one for one in verify(connection).findings if one.code.startswith(("foreign_key", "table", "trigger", "check"))]


def fails(database, statement):
    with database.connect() as client:
        client.autocommit = False
        try:
            client.execute(statement)
        except psycopg.Error:
            return True
        finally:
            client.rollback()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_keeps_a_person_is_found_and_resolved_by_its_cure(migrated, person, case):
    made, statement = CASES[case]
    if "SET NULL (" in made and migrated.execute("SHOW server_version_num") < [("150000",)]:
        pytest.skip("The columns of ON DELETE SET NULL are new in PostgreSQL 15.")
    migrated.execute(made.format(role=person))

    before = fails(migrated, statement), [(one.severity, one.code, one.where) for one in found(migrated)]
    for one in found(migrated):
        migrated.execute(one.cure.removeprefix(AGREE))
    after = fails(migrated, statement), found(migrated)

    name = "child_a_fkey"
    assert before == (True, [(Severity.WARNING, "foreign_key.restricts", f"child.{name}")])
    assert after == (False, [])


@pytest.mark.parametrize(
    ("made", "prevents"),
    [
        (child("ON DELETE SET NULL", column="NOT NULL"), "the deletion of the rows of users that it refers to: it would set NULL in a, which may not be NULL"),
        (child("ON DELETE CASCADE", target="(email)", row="u@example.com"), "a change of users.email"),
        (
            "CREATE TABLE target (id text PRIMARY KEY, a text REFERENCES users ON DELETE CASCADE); CREATE TABLE child (a text REFERENCES target)",
            "the deletion of the rows of target that it refers to, to which deletions from users cascade",
        ),
        (
            "CREATE TABLE target (a text UNIQUE REFERENCES users ON DELETE SET NULL); CREATE TABLE child (a text REFERENCES target (a))",
            "the deletion of the rows of target that it refers to, to which deletions from users cascade:"
            " the deletions change the columns of target that it refers to",
        ),
    ],
)  # fmt: skip
def test_what_a_foreign_key_prevents_is_named(migrated, person, made, prevents):
    migrated.execute(made)

    messages = [one.message for one in found(migrated) if one.code == "foreign_key.restricts"]

    assert messages == [f"Foreign key child_a_fkey of child is unmanaged, and prevents {prevents}."]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (child("ON DELETE SET DEFAULT", column="DEFAULT 'nobody'") + """; INSERT INTO users (id, email, "updatedAt") VALUES ('nobody', 'n', now())""", []),
        (child("ON DELETE SET NULL", more=", b int, CHECK (num_nonnulls(a, b) = 1)"), ["child.child_a_fkey"]),
        (child("ON DELETE SET DEFAULT", column="DEFAULT current_setting('application_name')"), ["child.child_a_fkey"]),
        (child("", target="(email) ON DELETE CASCADE ON UPDATE CASCADE", row="u@example.com"), []),
        (child("ON DELETE SET NULL", more=", s text); CREATE UNIQUE INDEX one ON child (s) WHERE a IS NULL; CREATE TABLE other (o int"), ["child.child_a_fkey"]),
        (child("ON DELETE SET NULL", more="); CREATE UNIQUE INDEX one ON child (coalesce(a, 'none')); CREATE TABLE other (o text"), ["child.child_a_fkey"]),
        (child("ON DELETE SET NULL", more=", EXCLUDE USING btree ((coalesce(a, 'none')) WITH =)"), ["child.child_a_fkey"]),
        (child("ON DELETE SET NULL", more=", g text NOT NULL GENERATED ALWAYS AS ('u:' || a) STORED"), ["child.child_a_fkey"]),
        (child("ON DELETE SET NULL").replace("a text", "a lengthy"), ["child.child_a_fkey"]),
        (child("ON DELETE CASCADE ON UPDATE CASCADE", target="(email)", column="CHECK (a LIKE '%@example.com')", row="u@example.com"), ["child.child_a_fkey"]),
        (child("ON DELETE SET NULL", more=", s text); CREATE UNIQUE INDEX one ON child (a) WHERE s IS NULL; CREATE UNIQUE INDEX two ON child (a, lower(s)); CREATE TABLE other (o text"), []),
        (TENANTS, []),
    ],
    ids=["a default with a row", "a check of two columns", "another default", "a key that follows", "a unique index of rows without it",
         "a unique index of what replaces NULL", "an exclusion of what replaces NULL", "a generated column", "a domain with another check",
         "a check of what follows", "unique indexes that ignore NULL", "a key of a tenant"],
)  # fmt: skip
def test_what_only_may_keep_a_person_is_a_note_and_what_does_not_is_none(migrated, person, made, said):
    migrated.execute("CREATE DOMAIN lengthy AS text CHECK (length(VALUE) > 0)")
    migrated.execute(made)

    assert [(one.severity, one.where) for one in found(migrated)] == [(Severity.NOTE, where) for where in said]


def test_no_table_of_another_role_is_queried_for_the_row_of_a_default(migrated, person):
    """Planning the query runs the functions of its indexes, with the privileges of the role that reads."""
    migrated.execute(
        f"""CREATE TABLE target (id text PRIMARY KEY, a text REFERENCES users ON DELETE CASCADE);
            CREATE TABLE child (id text DEFAULT 'x' REFERENCES target ON DELETE SET DEFAULT);
            ALTER TABLE target OWNER TO {person}; REVOKE CREATE ON SCHEMA public FROM {person}"""
    )

    said = [one.message for one in found(migrated) if one.code == "foreign_key.restricts" and "child" in one.where]

    assert said == [
        "Foreign key child_id_fkey of child is unmanaged, and sets the default 'x'::text when the rows of target that it refers to, to"
        " which deletions from users cascade, are deleted, which fails if target has no row for it."
    ]


@pytest.mark.parametrize(
    ("sql", "where", "cure"),
    [
        ("REVOKE USAGE ON SCHEMA public FROM PUBLIC, {role}", "{role}", "GRANT USAGE ON SCHEMA public TO {role};"),
        ("REVOKE SELECT ON users FROM {role}", "users", "GRANT SELECT ON public.users TO {role};"),
    ],
)
def test_an_owner_without_privileges_is_an_error(migrated, person, sql, where, cure):
    """PostgreSQL checks foreign keys as the owner of the table that they refer to."""
    migrated.execute(f"ALTER TABLE users OWNER TO {person}; ALTER TABLE sessions OWNER TO {person}")
    migrated.execute(sql.format(role=person))
    write = """INSERT INTO sessions (id, "sessionToken", "userId", expires) VALUES ('s', 't', 'u', now())"""

    before = fails(migrated, write), [(one.severity, one.code, one.where, one.cure) for one in found(migrated)]
    migrated.execute(before[1][0][3])

    quoted = f'"{person}"'
    assert before == (True, [(Severity.ERROR, "table.owner", where.format(role=person), cure.format(role=quoted))])
    assert (fails(migrated, write), found(migrated)) == (False, [])


@pytest.mark.django_db
def test_only_tables_of_the_contract_are_followed():
    """Chains of other tables would take quadratic time."""
    run(
        "CREATE TABLE theirs (id int PRIMARY KEY, u text REFERENCES users ON DELETE CASCADE)",
        "CREATE TABLE next (id int REFERENCES theirs ON DELETE CASCADE); CREATE RULE kept AS ON DELETE TO next DO INSTEAD NOTHING",
    )

    tables = read_catalog(connection, schema="public").tables

    assert {table.name: [met[:5] for met in table.met] for table in tables if table.met} == {
        "users": [("next", "next_id_fkey", "theirs", "rule", "kept")]
    }


@pytest.mark.django_db
@pytest.mark.parametrize("action", ["NO ACTION", "RESTRICT", "SET NULL"])
@pytest.mark.parametrize("first", [False, True])
def test_a_second_foreign_key_is_reported_if_its_action_comes_before_ours(action, first):
    ours = next(fk for fk in EXPECTED.foreign_keys if (fk.on_delete, fk.on_update) == ("CASCADE", "CASCADE"))
    alter = f'ALTER TABLE "{ours.table}"'
    target, column = ours.target, ours.columns[0]
    # The triggers fire in the order of their names as text, which end with their oids: 100000 comes before 99999.
    theirs = f'CONSTRAINT theirs FOREIGN KEY ("{column}") REFERENCES "{target}" ON DELETE {action} ON UPDATE {action}'
    keys = [theirs, ours.sql()] if first else [ours.sql(), theirs]
    run(f'{alter} DROP CONSTRAINT "{ours.name}"', *(f"{alter} ADD {key}" for key in keys))

    findings = [one for one in verify(connection).findings if one.code == "foreign_key.extra"]

    said = (
        f"Foreign key theirs of {ours.table} is unmanaged, and its ON DELETE {action} acts before the CASCADE of {ours.name}."
    )
    assert [(one.severity, one.message) for one in findings] == ([("warning", said)] if first else [])
