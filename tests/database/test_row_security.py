"""Row-level security on a table of ours: what its policies restrict for this role, compared with what PostgreSQL does."""

import pytest
from django.core.management import call_command
from django.db import Error, connection, transaction

from fly2any.database.adoption import assess
from fly2any.database.adoption.blockers import name_taken, unreadable
from fly2any.database.errors import Refusal, explain
from fly2any.database.migration.journal import recorded
from fly2any.database.migration.other_tools import refuse_hidden_records, refuse_tables_of_other_tools
from fly2any.database.schema import Catalog, read_catalog
from fly2any.database.verification import verify
from tests.database.test_table_privileges import GRANT, seen_by
from tests.database.test_writes import run

ADMIT = "CREATE POLICY everyone ON users USING (true)"
EVERY = ("SELECT", "INSERT", "UPDATE", "DELETE")
NOTE = (
    "Table users has row-level security enabled, whose policies admit every row for this role; a backup by it needs BYPASSRLS."
)
BYPASSED = "Table users has row-level security enabled, which applies to other roles, but not to this one."
STATEMENTS = {
    "SELECT": "SELECT FROM users",
    "INSERT": "INSERT INTO users (id, email, \"updatedAt\") VALUES ('two', 'two@fly2any.example', now())",
    "UPDATE": "UPDATE users SET name = 'changed'",
    "DELETE": "DELETE FROM users",
}


def refused(role):
    """The statements that PostgreSQL refuses this role, or that find no row, on a table with one row."""
    found = []
    for command, statement in STATEMENTS.items():
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL ROLE {role}")
                cursor.execute(statement)
                number = cursor.rowcount
                transaction.set_rollback(True)
        except Error:
            number = 0
        found += [command] * (number == 0)
    return tuple(found)


@pytest.mark.sampled(8)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("policies", "restricted"),
    [
        ("SELECT", EVERY),
        (ADMIT, ()),
        ("CREATE POLICY site ON users TO site USING (true)", ()),
        ("CREATE POLICY another ON users TO pg_monitor USING (true)", EVERY),
        ("GRANT pg_monitor TO site; CREATE POLICY group_of_ours ON users TO pg_monitor USING (true)", ()),
        ("CREATE POLICY few ON users USING (name = 'nobody')", EVERY),
        ("CREATE POLICY reads ON users FOR SELECT USING (true)", ("INSERT", "UPDATE", "DELETE")),
        ("CREATE POLICY adds ON users FOR INSERT WITH CHECK (true)", ("SELECT", "UPDATE", "DELETE")),
        ("CREATE POLICY removes ON users FOR DELETE USING (true)", ("SELECT", "INSERT", "UPDATE")),
        ("CREATE POLICY changes ON users FOR UPDATE USING (true)", ("SELECT", "INSERT", "DELETE")),
        ("CREATE POLICY keeps ON users USING (true) WITH CHECK (name = 'nobody')", ("INSERT", "UPDATE")),
        ("CREATE POLICY fills ON users WITH CHECK (true)", ("SELECT", "UPDATE", "DELETE")),
        (f"{ADMIT}; CREATE POLICY less ON users AS RESTRICTIVE FOR DELETE USING (name = 'nobody')", ("DELETE",)),
        (f"{ADMIT}; CREATE POLICY none ON users AS RESTRICTIVE USING (true)", ()),
        (f"{ADMIT}; CREATE POLICY theirs ON users AS RESTRICTIVE TO pg_monitor USING (false)", ()),
    ],
)  # fmt: skip
def test_what_policies_restrict_is_what_postgresql_refuses(policies, restricted):
    row = "INSERT INTO users (id, email, \"updatedAt\") VALUES ('one', 'one@fly2any.example', now())"
    (finding,) = seen_by(
        "site", GRANT, row, "ALTER TABLE users ENABLE ROW LEVEL SECURITY", policies, codes=("table.different",)
    )

    words = " and ".join(filter(None, [", ".join(restricted[:-1]), *restricted[-1:]]))
    expected = (
        ("error", f"Table users has row-level security enabled, which restricts this role's {words}.")
        if restricted
        else ("note", NOTE)
    )
    assert ((str(finding.severity), finding.message), refused("site")) == (expected, restricted)


@pytest.mark.django_db
def test_a_role_that_bypasses_the_policies_is_told_that_they_apply_to_others():
    run("CREATE ROLE backs_up BYPASSRLS", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO backs_up")
    (finding,) = seen_by("backs_up", "ALTER TABLE users ENABLE ROW LEVEL SECURITY", codes=("table.different",))

    assert (str(finding.severity), finding.message) == ("note", BYPASSED)


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("made", "rejected"),
    [
        ("", EVERY),
        (ADMIT, ()),
        ("CREATE POLICY another ON users TO pg_monitor USING (true)", EVERY),
        ("GRANT pg_monitor TO site; CREATE POLICY group_of_ours ON users TO pg_monitor USING (true)", ()),
        ("CREATE POLICY none ON users USING (false)", EVERY),
        ("CREATE POLICY reads ON users FOR SELECT USING (true)", ("INSERT", "UPDATE", "DELETE")),
        ("CREATE POLICY keeps ON users USING (true) WITH CHECK (false)", ("INSERT",)),
        ("REVOKE DELETE ON users FROM site", ("SELECT", "INSERT", "UPDATE")),
        ("ALTER ROLE site BYPASSRLS", ()),
        ("ALTER TABLE users OWNER TO site", ()),
        ("ALTER TABLE users OWNER TO site; ALTER TABLE users FORCE ROW LEVEL SECURITY", EVERY),
    ],
)
def test_another_role_that_writes_and_that_no_policy_admits_is_an_error(made, rejected):
    """A policy with a condition may admit few rows on purpose; one with WITH CHECK (false) restricts UPDATE too, which is not asked."""
    row = "INSERT INTO users (id, email, \"updatedAt\") VALUES ('one', 'one@fly2any.example', now())"
    run(GRANT, "ALTER ROLE site LOGIN", row, "ALTER TABLE users ENABLE ROW LEVEL SECURITY", *filter(None, [made]))
    (finding,) = [one for one in verify(connection).findings if one.code == "table.different"]

    words = " and ".join(filter(None, [", ".join(rejected[:-1]), *rejected[-1:]]))
    others = f"; no policy admits any row for the {words} of the role site" if rejected else ""
    message = f"Table users has row-level security enabled, which applies to other roles, but not to this one{others}."
    assert (str(finding.severity), finding.message) == ("error" if rejected else "note", message)
    assert {*rejected} <= {*refused("site")}


@pytest.mark.django_db
def test_row_security_of_supabase_is_no_error():
    """Its API's roles hold every privilege, and no policy admits them on purpose; the one that signs in does not inherit from them."""
    run(
        "CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS",
        "CREATE ROLE authenticator LOGIN NOINHERIT; GRANT anon, authenticated, service_role TO authenticator",
        "CREATE ROLE reports LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reports",
        "GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role, reports",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
    )
    (finding,) = [one for one in verify(connection).findings if one.code == "table.different"]

    assert (str(finding.severity), finding.message) == ("note", BYPASSED)


HIDDEN = "Row-level security hides rows of django_migrations from the role site"
REVEAL = (
    "Connect as a role with BYPASSRLS, or as the owner of django_migrations if it has no FORCE ROW LEVEL SECURITY; or run as the owner:"
    ' CREATE POLICY fly2any ON django_migrations FOR SELECT TO "site" USING (true);'
    " (or ALTER TABLE django_migrations DISABLE ROW LEVEL SECURITY;)"
)
OF_RECORDS = ("migrations.unreadable", "migrations.unrecorded", "table.different", "permissions.missing")


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("policy", "hidden"),
    [
        ("", True),
        ("CREATE POLICY none ON django_migrations USING (app = 'nobody')", True),
        ("CREATE POLICY several ON django_migrations USING (app <> 'travel')", True),
        ("CREATE POLICY one ON django_migrations USING (name NOT LIKE '%_route_index')", True),
        ("CREATE POLICY reads ON django_migrations FOR SELECT TO site USING (true)", False),
        ("CREATE POLICY most ON django_migrations FOR SELECT USING (id > 0)", False),
        ("ALTER ROLE site BYPASSRLS", False),
        ("ALTER TABLE django_migrations OWNER TO site", False),
        ("ALTER TABLE django_migrations OWNER TO site; ALTER TABLE django_migrations FORCE ROW LEVEL SECURITY", True),
    ],
)
def test_a_record_of_migrations_whose_rows_are_hidden_is_not_taken_for_an_empty_one(policy, hidden):
    secured = "ALTER TABLE django_migrations ENABLE ROW LEVEL SECURITY; ALTER TABLE users ENABLE ROW LEVEL SECURITY"
    found = seen_by("site", GRANT, secured, *filter(None, [policy]), codes=OF_RECORDS)
    run("SET ROLE site")
    refused = []
    for action in (refuse_tables_of_other_tools, refuse_hidden_records, assess):
        try:
            action(connection)
        except Refusal as refusal:
            refused.append(str(refusal))
    run("RESET ROLE")

    places = [(str(one.severity), one.where, one.message, one.cure) for one in found if one.code == "migrations.unreadable"]
    why = f"{HIDDEN}, so the schema is compared as if every migration were applied, and `migrate` refuses to run."
    assert places == ([("error", "django_migrations", why, REVEAL)] if hidden else [])
    assert refused == ([f"{HIDDEN}. {REVEAL.replace('FOR SELECT ', '')}"] * 3 if hidden else [])
    rest = {(one.code, one.where) for one in found if one.code != "migrations.unreadable"}
    assert rest == {("table.different", "users"), ("table.different", "django_migrations")}


@pytest.mark.django_db
@pytest.mark.parametrize(("condition", "pending"), [("true", True), ("current_user = 'site'", True), ("id > 0", False)])
def test_a_policy_that_shows_a_role_every_record_hides_no_pending_migration(condition, pending):
    """A condition on a column may hide some rows; what is pending is then not known, which is the safe side."""
    secured = (
        f"ALTER TABLE django_migrations ENABLE ROW LEVEL SECURITY; CREATE POLICY shown ON django_migrations USING ({condition})"
    )
    run(GRANT, secured, "DELETE FROM django_migrations WHERE name = '0005_alert_route_index'", "SET ROLE site")
    try:
        assert verify(connection).migrations.pending == (("travel.0005_alert_route_index",) if pending else ())
    finally:
        run("RESET ROLE")


@pytest.mark.django_db
@pytest.mark.parametrize("options", [["--plan"], ["--check"]])
def test_migrate_lists_no_hidden_record_as_pending(options):
    run(GRANT, "ALTER TABLE django_migrations ENABLE ROW LEVEL SECURITY", "SET ROLE site")
    try:
        with pytest.raises(Refusal, match=f"^{HIDDEN}"):
            call_command("migrate", *options)
    finally:
        run("RESET ROLE")


@pytest.mark.django_db
def test_a_hidden_record_of_prisma_prevents_an_adoption():
    columns = "id text, migration_name text, started_at timestamptz, finished_at timestamptz, rolled_back_at timestamptz"
    run(f"CREATE TABLE _prisma_migrations ({columns})", GRANT, "ALTER TABLE _prisma_migrations ENABLE ROW LEVEL SECURITY")
    run("SET ROLE site")
    live = read_catalog(connection, schema="public")
    (finding,) = unreadable(connection, "public", live, "site")
    run("RESET ROLE", finding.cure.partition("owner: ")[2], "SET ROLE site")
    assert [*unreadable(connection, "public", read_catalog(connection, schema="public"), "site")] == []
    run("RESET ROLE")

    assert (finding.code, finding.where) == ("adopt.prisma_unreadable", "_prisma_migrations")
    assert finding.message.startswith("Row-level security may hide rows of Prisma's migration ledger from the role site,")


@pytest.mark.django_db
def test_a_run_that_could_not_record_its_end_does_not_begin():
    policies = ("FOR SELECT USING (true)", "FOR INSERT WITH CHECK (true)", "FOR UPDATE USING (true)")
    run(GRANT, "ALTER TABLE fly2any_migration_runs ENABLE ROW LEVEL SECURITY")
    said, done = [], []
    for number, policy in enumerate(policies):
        run(f"CREATE POLICY p{number} ON fly2any_migration_runs {policy}", "SET ROLE site")
        try:
            with transaction.atomic(), recorded(connection, "travel.0001_initial", "forwards"):
                done.append(policy)
        except (Error, Refusal) as error:
            said.append(explain(error))
        run("RESET ROLE")

    assert done == [policies[-1]]
    assert [sentence[:36] for sentence in said] == [
        "Row-level security refuses this (new",
        "Row-level security keeps the role si",
    ]


@pytest.mark.django_db
def test_a_hidden_journal_says_nothing_of_failed_runs():
    failed = "INSERT INTO fly2any_migration_runs (migration, direction, person, code) VALUES ('travel.0005_alert_route_index', 'forwards', 'a', 'b')"
    missing = "DELETE FROM django_migrations WHERE name = '0005_alert_route_index'"
    secured = "ALTER TABLE fly2any_migration_runs ENABLE ROW LEVEL SECURITY; CREATE POLICY some_runs ON fly2any_migration_runs USING (error IS NULL)"
    codes = ("migrations.failed",)

    assert len(seen_by("site", GRANT, failed, missing, codes=codes)) == 1
    assert seen_by("site", secured, codes=codes) == []


@pytest.mark.django_db
def test_the_cure_for_a_hidden_record_reveals_it():
    cure = REVEAL.partition("owner: ")[2].partition(" (or")[0]

    assert not seen_by(
        "site", GRANT, "ALTER TABLE django_migrations ENABLE ROW LEVEL SECURITY", cure, codes=("migrations.unreadable",)
    )


@pytest.mark.django_db
@pytest.mark.parametrize("table", ["auth_permission", "django_content_type", "auth_group_permissions"])
def test_hidden_permissions_are_not_reported_as_missing(table):
    secured = f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
    person = "INSERT INTO users (id, email, \"updatedAt\") VALUES ('one', 'one@fly2any.example', now())"
    member = "INSERT INTO users_groups (user_id, group_id) SELECT 'one', min(group_id) FROM auth_group_permissions"
    found = seen_by(
        "site",
        GRANT,
        person,
        member,
        "SET CONSTRAINTS ALL IMMEDIATE",
        secured,
        codes=("permissions.missing", "table.different"),
    )

    assert [(one.code, one.where) for one in found] == [("table.different", table)]


@pytest.mark.django_db
def test_hidden_runs_are_a_note_and_their_table_remains_ours():
    run(GRANT, "ALTER TABLE fly2any_migration_runs ENABLE ROW LEVEL SECURITY")
    (note,) = seen_by("site", codes=("migrations.unreadable",))
    live = read_catalog(connection, schema="public")
    taken = [one.where for one in name_taken(connection, "public", Catalog(), live)]
    after = seen_by("site", note.cure.partition("owner: ")[2], codes=("migrations.unreadable",))

    assert (str(note.severity), note.where) == ("note", "fly2any_migration_runs")
    assert note.message.endswith("from the role site: no failed run of a migration is reported.")
    assert ("fly2any_migration_runs" in taken, after) == (False, [])
