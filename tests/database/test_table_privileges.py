"""A role that holds privileges on some of our tables and lacks them on others, on the schema, or on a sequence."""

import pytest
from django.db import connection

from fly2any.database.findings import Finding, Severity
from fly2any.database.report.collect import serious
from fly2any.database.roles import roles_sql
from fly2any.database.schema.untrusted_code import our_tables
from fly2any.database.verification import verify
from tests.conftest import manage
from tests.database.test_writes import run

GRANT = "CREATE ROLE site; GRANT USAGE ON SCHEMA public TO site; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO site"
TABLES = "SELECT string_agg(quote_ident(relname), ', ') FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname ~ '^(auth|axes|django|fly2any|otp)'"


def seen_by(role, *statements, codes=("server.privileges",)):
    """The findings of these codes for a role, once the owner has run the statements."""
    run(*statements, f"SET ROLE {role}")
    try:
        return [one for one in verify(connection).findings if one.code in codes]
    finally:
        run("RESET ROLE")


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("damage", "severity", "message", "cure"),
    [
        ("REVOKE INSERT ON notifications FROM site", "warning", "does not hold INSERT on notifications, but", "GRANT INSERT ON public.notifications TO site;"),
        ("REVOKE UPDATE ON users FROM site; GRANT UPDATE (name) ON users TO site", "warning", "does not hold UPDATE on users, but", "GRANT UPDATE ON public.users TO site;"),
        ("REVOKE SELECT ON users FROM site; GRANT SELECT (id, email, name) ON users TO site", "warning", "does not hold SELECT on users, but",
         "GRANT SELECT ON public.users TO site;"),
        ("REVOKE ALL ON users, sessions FROM site", "warning", "does not hold SELECT, INSERT, UPDATE, DELETE on sessions, users, but",
         "GRANT SELECT, INSERT, UPDATE, DELETE ON public.sessions, public.users TO site;"),
        ("REVOKE DELETE ON django_session FROM site", "warning", "does not hold DELETE on django_session, but", "GRANT DELETE ON public.django_session TO site;"),
        ("REVOKE USAGE ON SCHEMA public FROM site, PUBLIC", "error", "but not USAGE on their schema public, so it can read and write none", "GRANT USAGE ON SCHEMA public TO site;"),
    ],
)  # fmt: skip
def test_what_the_site_lacks_on_some_tables_is_reported(damage, severity, message, cure):
    (finding,) = seen_by("site", GRANT, damage)

    assert (str(finding.severity), message in finding.message, [*finding.cure.replace('"', "").splitlines()]) == (
        severity,
        True,
        ["-- As its owner:" if severity == "error" else "-- As their owner:", cure],
    )
    assert (finding.is_sql, finding.loses != "") == (True, True)  # `--sql` prints it as a comment.
    assert serious(seen_by("site", finding.cure)) == ()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("damage", "column"),
    [
        ("ALTER TABLE users ADD n serial", "users.n"),
        ("ALTER TABLE fly2any_accesses ALTER id DROP IDENTITY; CREATE SEQUENCE s; ALTER TABLE fly2any_accesses ALTER id SET DEFAULT nextval('s')",
         "fly2any_accesses.id"),
    ],
)  # fmt: skip
def test_a_sequence_that_the_site_may_not_use_is_reported_once(damage, column):
    found = seen_by("site", GRANT, damage, codes=("server.privileges", "column.sequence"))

    assert [(str(one.severity), one.code, one.where) for one in found if "may not use" in one.message] == [
        ("error", "column.sequence", column)
    ]
    cure = next(one.cure for one in found if "may not use" in one.message).partition(": ")[2]
    replaced = "" if column == "users.n" else "as an identity, the column needs no privilege on its sequence"
    run("ALTER ROLE site LOGIN")
    [warning] = [one for one in verify(connection).findings if one.code == "grants.missing"]
    assert warning.message.startswith(f"The role site may INSERT into {column.partition('.')[0]}, but may not use ")
    assert warning == Finding(Severity.WARNING, "grants.missing", "site", warning.message, cure, is_sql=True, loses=replaced)
    [by_another] = seen_by("monitor", "CREATE ROLE monitor", codes=("grants.missing",))
    assert (by_another.cure, by_another.loses) == (
        f"-- As its owner:\n{cure}",
        replaced or "the owner of the sequence must run it",
    )
    assert serious(seen_by("site", cure, codes=("server.privileges", "column.sequence"))) == ()


@pytest.mark.django_db
def test_a_site_without_the_tables_of_the_admin_and_a_role_without_any_are_notes():
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
        [(admin,)] = cursor.fetchall()

    site = seen_by("site", GRANT, f"REVOKE ALL ON {admin} FROM site")
    watcher = seen_by("watcher", "CREATE ROLE watcher")

    assert [str(one.severity) for one in (*site, *watcher)] == ["note", "note"]


@pytest.mark.django_db
@pytest.mark.parametrize("end", ["app", "read", "migrate"])
def test_the_roles_of_dbroles_get_a_note_at_most(end):
    made = roles_sql(connection, our_tables(), prefix="ours").replace("BEGIN;\n", "").replace("COMMIT;\n", "")

    found = seen_by(f"ours_{end}", made)

    assert {str(one.severity) for one in found} <= {"note"}
    if end == "app":
        assert [one.message.partition(":")[0] for one in found] == [
            "The role ours_app does not hold ALTER, CREATE in the schema"
        ]


@pytest.mark.django_db
def test_a_role_that_may_read_every_column_by_its_own_grants_lacks_nothing():
    run(GRANT)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0"
        )
        [(columns,)] = cursor.fetchall()

    found = seen_by("site", f"REVOKE SELECT ON users FROM site; GRANT SELECT ({columns}) ON users TO site")

    assert [str(one.severity) for one in found] == ["note"]


@pytest.mark.django_db
def test_a_role_that_owns_some_of_our_tables_is_told_which_it_may_not_change():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        names = [name for (name,) in cursor.fetchall()]
    given = [f'ALTER TABLE "{name}" OWNER TO web' for name in names if name not in ("notifications", "users_groups")]
    granted = "GRANT SELECT, INSERT, UPDATE, DELETE ON notifications, users_groups TO web"

    [finding] = seen_by("web", "CREATE ROLE web; GRANT ALL ON SCHEMA public TO web", *given, granted)

    owner = connection.settings_dict["USER"] or "postgres"
    assert (finding.severity, finding.message, finding.cure, finding.loses) == (
        "warning",
        f"The role web may change our other tables, but not notifications, users_groups (owner: {owner}): migrations that change these fail.",
        '-- As a superuser:\nALTER TABLE "public"."notifications" OWNER TO "web";\nALTER TABLE "public"."users_groups" OWNER TO "web";',
        "a superuser must run it",
    )
    assert seen_by("web", finding.cure) == []


@pytest.mark.django_db
def test_cures_of_tables_that_the_role_does_not_own_are_comments_of_the_script():
    damage = 'DROP INDEX "users_createdAt_idx"; ALTER TABLE notifications ALTER title DROP NOT NULL'
    given = "CREATE ROLE web; GRANT ALL ON SCHEMA public TO web; ALTER TABLE users OWNER TO web"

    index, column = seen_by("web", damage, given, codes=("index.missing", "column.weaker"))[::-1]

    owner = connection.settings_dict["USER"] or "postgres"
    assert (index.cure.startswith('CREATE INDEX CONCURRENTLY "users_createdAt_idx"'), index.loses) == (True, "")
    assert (column.cure.splitlines()[0], column.loses) == (
        f"-- As {owner}, the owner of notifications:",
        "the owner of the table, or a superuser, must run it",
    )
    seen_by("web", index.cure.replace(" CONCURRENTLY", ""), column.cure)
    assert seen_by(owner, codes=("index.missing", "column.weaker")) == []


@pytest.mark.django_db
@pytest.mark.parametrize("is_owner", [True, False])
def test_the_cure_of_a_database_that_the_role_does_not_own_is_a_comment_of_the_script(is_owner):
    name = connection.settings_dict["NAME"]
    given = f"ALTER DATABASE {name} OWNER TO site" if is_owner else "SELECT"

    [finding] = seen_by("site", GRANT, given, f"ALTER DATABASE {name} SET lock_timeout TO '1ms'", codes=("database.timeout",))

    who = "he owner of the database, or a superuser, must run it"
    cure = f"ALTER DATABASE {name} RESET lock_timeout;"
    assert (finding.cure, finding.loses) == ((cure, "") if is_owner else (f"-- T{who}\n{cure}", f"t{who}"))


@pytest.mark.django_db
def test_a_role_that_migrates_and_may_create_nothing_in_the_schema_is_told():
    """Since PostgreSQL 15, only the owner of the database may create tables in public."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        given = [f'ALTER TABLE "{name}" OWNER TO web' for (name,) in cursor.fetchall()]

    [finding] = seen_by(
        "web", "CREATE ROLE web; GRANT ALL ON SCHEMA public TO web", *given, "REVOKE CREATE ON SCHEMA public FROM web"
    )

    assert (finding.severity, finding.message, finding.cure, finding.loses) == (
        "warning",
        "The role web may not create tables or indexes in the schema public: migrations and cures that create one fail.",
        '-- As its owner:\nGRANT CREATE ON SCHEMA "public" TO "web";',
        "the owner of the schema must run it",
    )
    assert seen_by("web", finding.cure) == []


def test_a_role_that_may_not_create_the_first_table_is_told(database):
    with database.role() as url:
        result = manage("dbstatus", url=url)

    role = f"{database.name}_role"
    assert (result.returncode, f"The role {role} may not create tables or indexes in the schema public" in result.stdout) == (
        5,
        True,
    )
    assert f'GRANT CREATE ON SCHEMA "public" TO "{role}";' in result.stdout


@pytest.mark.django_db
def test_tables_that_a_member_may_not_change_are_given_to_the_group_that_owns_the_others():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        given = [f'ALTER TABLE "{name}" OWNER TO owners' for (name,) in cursor.fetchall() if name != "notifications"]
    roles = "CREATE ROLE owners; CREATE ROLE web IN ROLE owners; GRANT ALL ON SCHEMA public TO owners"
    granted = "GRANT SELECT, INSERT, UPDATE, DELETE ON notifications TO web"

    [finding] = seen_by("web", roles, *given, granted)

    assert finding.cure == '-- As a superuser:\nALTER TABLE "public"."notifications" OWNER TO "owners";'
    assert seen_by("web", finding.cure) == []


@pytest.mark.django_db
def test_what_the_owner_of_a_table_lacks_is_granted_by_the_owner():
    run("CREATE ROLE person; ALTER TABLE users OWNER TO person; REVOKE SELECT ON users FROM person")

    [finding] = seen_by("site", GRANT, "GRANT ALL ON SCHEMA public TO person WITH GRANT OPTION", codes=("table.owner",))

    assert (finding.cure, finding.loses) == (
        '-- As their owner:\nGRANT SELECT ON public.users TO "person";',
        "the owner of the tables must run it",
    )


@pytest.mark.django_db
def test_a_member_that_does_not_inherit_from_the_owner_is_told_to_become_it():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        given = [f'ALTER TABLE "{name}" OWNER TO owners' for (name,) in cursor.fetchall()]
    roles = (
        "CREATE ROLE owners; CREATE ROLE web NOINHERIT IN ROLE owners; GRANT ALL ON SCHEMA public TO owners WITH GRANT OPTION"
    )

    cures = [one.cure for one in seen_by("web", roles, *given)]

    assert cures == [
        "The role is a member of owners, the owner of the tables, but does not inherit its privileges:"
        ' ALTER ROLE "web" SET role TO "owners";'
    ]
