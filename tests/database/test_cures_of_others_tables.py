"""Cures that read or rewrite another role's table: they run its owner's code as the role that follows them, so only the owner should."""

import pytest

from fly2any.database.report.collect import collect
from fly2any.database.report.script import status_as_sql
from fly2any.database.schema.unmanaged_findings import AGREE
from fly2any.database.verification import verify
from tests.conftest import django

CHILD = "CREATE TABLE {schema}.child (a text REFERENCES public.users{target}); ALTER TABLE {schema}.child OWNER TO {role}"
AGAIN = 'ALTER TABLE {schema}.child DROP CONSTRAINT "child_a_fkey", ADD CONSTRAINT "child_a_fkey" FOREIGN KEY (a) REFERENCES {users}'


@pytest.fixture
def stranger(migrated):
    """Another role, with a schema of its own and tables in ours."""
    role = f"{migrated.name}_stranger"
    migrated.execute(f"CREATE ROLE {role}; CREATE SCHEMA theirs; GRANT USAGE, CREATE ON SCHEMA public, theirs TO {role}")
    yield role
    migrated.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def found(database, *codes):
    with django(database) as connection:
        return [one for one in verify(connection).findings if one.code in codes]


def script(database):
    with django(database) as connection:
        return status_as_sql(collect(connection, verification=verify(connection)))


def of_them(role, cure):
    return f"Ask its owner to connect as {role} and run this, because it runs that role's code: {cure}"


@pytest.mark.parametrize("target", ["", " (email)"])
def test_only_the_owner_creates_a_foreign_key_of_a_table_again(migrated, stranger, target):
    migrated.execute(CHILD.format(schema="theirs", target=target, role=stranger))
    follows = "ON DELETE CASCADE ON UPDATE CASCADE"
    cure = f"{AGAIN.format(schema='theirs', users='users' + (target.strip() or '(id)'))} {follows};"

    before = [one.cure for one in found(migrated, "foreign_key.restricts")]
    printed = script(migrated)
    migrated.execute("ALTER TABLE theirs.child OWNER TO postgres")
    after = [one.cure for one in found(migrated, "foreign_key.restricts")]

    assert (set(before), set(after)) == ({of_them(stranger, cure)}, {f"{AGREE}{cure}"})
    assert f"-- No SQL: {of_them(stranger, cure)}" in printed


def test_only_the_owner_changes_the_type_of_a_column_of_a_table(migrated, stranger):
    migrated.execute("CREATE DOMAIN theirs.required AS text NOT NULL")
    child = CHILD.format(schema="theirs", target=" ON DELETE SET NULL", role=stranger).replace("a text", "a theirs.required")
    migrated.execute(child)

    [finding] = found(migrated, "foreign_key.restricts")

    assert finding.cure == of_them(stranger, 'ALTER TABLE theirs.child ALTER COLUMN "a" TYPE text;')


def test_the_cure_of_an_included_column_names_the_foreign_key_of_another_roles_table(migrated, stranger):
    migrated.execute(
        "ALTER TABLE users DROP CONSTRAINT users_email_key, ADD CONSTRAINT users_email_key UNIQUE (email) INCLUDE (bio)"
    )
    migrated.execute(CHILD.format(schema="public", target=" (email)", role=stranger))
    first = "first save the definition of what uses the key and drop it; create it again afterwards: constraint child_a_fkey on table public.child"

    [finding] = found(migrated, "unique.different")
    migrated.execute("ALTER TABLE child OWNER TO postgres")
    [ours] = found(migrated, "unique.different")

    assert (finding.loses, "ALTER TABLE" in finding.cure, '"child"' in finding.cure) == (first, True, False)
    assert (ours.loses, '"child"' in ours.cure) == ("", True)


def test_the_cure_of_a_type_creates_no_foreign_key_of_another_roles_table(migrated, stranger):
    migrated.execute("ALTER TABLE price_history ALTER id TYPE uuid USING id::uuid")
    migrated.execute(f"CREATE TABLE child (a uuid REFERENCES price_history); ALTER TABLE child OWNER TO {stranger}")
    first = "first save the definition of what uses the column and drop it; create it again afterwards: constraint child_a_fkey on table child"

    [finding] = found(migrated, "column.different")
    migrated.execute("ALTER TABLE child OWNER TO postgres")
    [ours] = found(migrated, "column.different")

    assert (finding.loses, '"child"' in finding.cure) == (first, False)
    assert (ours.loses, '"child"' in ours.cure) == ("it changes the type of child.a too: ask the owner first", True)
    migrated.execute(ours.cure)
    assert found(migrated, "column.different") == []


WEAK = "ALTER TABLE price_history ALTER provider DROP NOT NULL; ALTER TABLE price_history OWNER TO {role}"
LOOSE = """ALTER TABLE ai_messages DROP CONSTRAINT "ai_messages_conversationId_fkey"; ALTER TABLE ai_conversations OWNER TO {role}"""


@pytest.mark.parametrize(
    ("damage", "code", "table", "statement"),
    [
        (WEAK, "column.weaker", "price_history", 'ALTER TABLE "price_history" ALTER COLUMN "provider" SET NOT NULL;'),
        (LOOSE, "foreign_key.missing", "ai_conversations", 'ALTER TABLE "ai_messages" VALIDATE CONSTRAINT "ai_messages_conversationId_fkey";'),
    ],
    ids=["a column", "a foreign key"],
)  # fmt: skip
def test_no_cure_that_reads_a_table_of_ours_which_another_role_made_is_run(migrated, stranger, damage, code, table, statement):
    migrated.execute(damage.format(role=stranger))
    why = (
        f"it runs code of {stranger}, the owner of {table}, as the role that runs it: follow the cure of tables.untrusted first"
    )

    [finding] = found(migrated, code)

    assert (finding.loses, finding.cure.splitlines()[0]) == (why, f"-- I{why[1:]}")
    lines = script(migrated).splitlines()
    assert (f"-- {statement}" in lines, statement in lines) == (True, False)
