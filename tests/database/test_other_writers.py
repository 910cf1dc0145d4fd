"""Other roles that write our tables, such as the site's: those that cannot connect or use the schema, or that lack privileges on some."""

import dataclasses

import pytest

from fly2any.database.verification import verify
from tests.conftest import django, manage

pytestmark = pytest.mark.usefixtures("server")

WRITES = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"


def notes(database, role):
    """The findings at `role`."""
    with django(database) as connection:
        found = verify(connection).findings
    return [(str(one.severity), one.code, one.message, one.cure) for one in found if one.where == role]


def test_a_role_that_may_write_and_is_shut_out_is_noted(migrated):
    role = f"{migrated.name}_role"
    with migrated.role(WRITES):
        before = notes(migrated, role)
        migrated.execute(f"REVOKE CONNECT ON DATABASE {migrated.name} FROM PUBLIC; REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        [(severity, code, message, cure)] = notes(migrated, role)
        migrated.execute(cure)
        after = notes(migrated, role)

    assert (before, after) == ([], [])
    assert (severity, code, message, cure) == (
        *("note", "server.privileges"),
        f"The role {role} may write our tables, but lacks CONNECT on the database {migrated.name} and USAGE on the schema public,"
        " so each of its queries fails.",
        f'GRANT CONNECT ON DATABASE "{migrated.name}" TO "{role}";\nGRANT USAGE ON SCHEMA "public" TO "{role}";',
    )


def test_a_role_that_only_reads_may_lack_them(migrated):
    with migrated.role("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"):
        migrated.execute(f"REVOKE CONNECT ON DATABASE {migrated.name} FROM PUBLIC; REVOKE USAGE ON SCHEMA public FROM PUBLIC")

        assert notes(migrated, f"{migrated.name}_role") == []


ALL = "SELECT, INSERT, UPDATE, DELETE"


def test_a_role_that_lacks_privileges_on_a_few_tables_is_a_warning(migrated):
    role = f"{migrated.name}_role"
    with migrated.role(WRITES):
        migrated.execute(f"REVOKE ALL ON notifications, price_alerts FROM {role}; REVOKE UPDATE ON django_session FROM {role}")
        [found] = notes(migrated, role)
        released = manage("dbstatus", "--release", url=migrated.url)
        migrated.execute(found[3])
        after = notes(migrated, role)

    assert found == (
        *("warning", "grants.missing"),
        f"The role {role} does not hold {ALL} on notifications, price_alerts; UPDATE on django_session, but holds the same on our other tables.",
        f'GRANT {ALL} ON "public"."notifications", "public"."price_alerts" TO "{role}";\n'
        f'GRANT UPDATE ON "public"."django_session" TO "{role}";',
    )
    assert (released.returncode, after) == (4, [])


def test_what_public_lacks_is_found_where_no_role_holds_it(migrated):
    """A table that is created after GRANT … ON ALL TABLES … TO PUBLIC."""
    with migrated.role():
        migrated.execute(f"{WRITES.format(role='PUBLIC')}; REVOKE ALL ON notifications FROM PUBLIC")
        [found] = notes(migrated, "PUBLIC")
        script = manage("dbstatus", "--sql", url=migrated.url).stdout
        migrated.execute(f"GRANT {ALL} ON notifications TO {migrated.name}_role")
        [noted] = notes(migrated, "PUBLIC")
        migrated.execute(found[3])
        after = notes(migrated, "PUBLIC")

    assert f"-- {found[3]}" in script.splitlines()  # Every role would hold it.
    assert (found, noted[0], after) == (
        (
            *("warning", "grants.missing"),
            f"PUBLIC does not hold {ALL} on notifications, but holds the same on our other tables.",
            f'GRANT {ALL} ON "public"."notifications" TO PUBLIC;',
        ),
        "note",
        [],
    )


@pytest.mark.slow
def test_a_lack_that_another_role_has_not_is_a_note(migrated):
    role = f"{migrated.name}_role"
    other = f"{migrated.name}_other"
    migrated.execute(f"CREATE ROLE {other} LOGIN; {WRITES.format(role=other)}")
    try:
        with migrated.role(WRITES):
            migrated.execute(f"REVOKE SELECT ON sessions FROM {role}")
            found = notes(migrated, role)
    finally:
        migrated.execute(f"DROP OWNED BY {other}; DROP ROLE {other}")

    assert [one[:2] for one in found] == [("note", "grants.missing")]


@pytest.fixture
def rotating(migrated):
    """Three roles of the site, as Vault creates them, and a fourth that writes."""
    roles = [f"{migrated.name}_{number}" for number in range(4)]
    every = ", ".join(roles)
    migrated.execute("; ".join(f"CREATE ROLE {role} LOGIN" for role in roles))
    migrated.execute(WRITES.format(role=every))
    yield roles[:3]
    migrated.execute(f"DROP OWNED BY {every}; DROP ROLE {every}")


def test_many_roles_that_lack_the_same_are_one_warning(migrated, rotating):
    """One that holds it does not make it a note: most do not."""
    three = ", ".join(rotating)
    migrated.execute(
        f"REVOKE ALL ON notifications FROM {three}; REVOKE SELECT ON sessions FROM {three}; GRANT SELECT (id) ON sessions TO {three}"
    )
    migrated.execute("ALTER TABLE price_alerts ADD seq bigserial")
    migrated.execute(f"REVOKE CREATE, USAGE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {migrated.name}_3")
    found = notes(migrated, "roles")
    migrated.execute("; ".join(cure.rstrip(";") for *_, cure in found))
    after = notes(migrated, "roles")

    named, to = f"The roles {', '.join(rotating)}", ", ".join(f'"{role}"' for role in rotating)
    sequence = "public.price_alerts_seq_seq"
    assert set(found) == {
        (
            *("note", "server.privileges"),
            f"{named} may write our tables, but lack USAGE on the schema public, so each of their queries fails.",
            f'GRANT USAGE ON SCHEMA "public" TO {to};',
        ),
        (
            *("note", "grants.missing"),
            f"{named} do not hold SELECT on sessionToken, userId, expires of sessions, but on the other columns: each query that names all"
            " columns fails.",
            f'GRANT SELECT ON "public"."sessions" TO {to};',
        ),
        (
            *("warning", "grants.missing"),
            f"{named} do not hold {ALL} on notifications, but hold the same on our other tables.",
            f'GRANT {ALL} ON "public"."notifications" TO {to};',
        ),
        (
            *("warning", "grants.missing"),
            f"{named} and 1 more may INSERT into price_alerts, but may not use {sequence}, from which the default of column seq of price_alerts"
            " takes its values, so every INSERT that uses the default fails.",
            f'GRANT USAGE, SELECT ON SEQUENCE {sequence} TO {to}, "{migrated.name}_3";',
        ),
    }
    assert after == []


def test_columns_that_a_role_may_not_read_are_a_note(migrated):
    """Privileges on columns do not cover one that is added later."""
    role = f"{migrated.name}_role"
    with migrated.role(WRITES):
        migrated.execute(f'REVOKE SELECT ON sessions FROM {role}; GRANT SELECT (id, "userId", expires) ON sessions TO {role}')
        [found] = notes(migrated, role)
        migrated.execute(found[3])
        after = notes(migrated, role)

    assert (found, after) == (
        (
            *("note", "grants.missing"),
            f"The role {role} does not hold SELECT on sessionToken of sessions, but on the other columns: each query that names all columns fails.",
            f'GRANT SELECT ON "public"."sessions" TO "{role}";',
        ),
        [],
    )


@pytest.mark.slow
def test_the_owner_of_the_tables_is_no_other_role_that_writes(migrated):
    """Otherwise each lack would be a note for a role that is not the owner."""
    site, monitor = f"{migrated.name}_role", f"{migrated.name}_monitor"
    migrated.execute(f"CREATE ROLE {monitor} LOGIN; GRANT pg_monitor TO {monitor}")
    try:
        with migrated.role(WRITES):
            migrated.execute(f"REVOKE UPDATE ON price_alerts FROM {site}")
            found = notes(dataclasses.replace(migrated, user=monitor), site)
    finally:
        migrated.execute(f"DROP ROLE {monitor}")

    assert [one[:2] for one in found] == [("warning", "grants.missing")]


@pytest.mark.slow
def test_a_role_that_reads_or_that_writes_few_tables_lacks_nothing(migrated):
    reads = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", "REVOKE SELECT ON sessions FROM {role}"
    adds_a_few = ("GRANT SELECT, INSERT ON notifications, price_alerts TO {role}",)
    needs_no_more = WRITES, "REVOKE UPDATE, DELETE ON fly2any_accesses FROM {role}"
    keeps_rows = WRITES, "REVOKE DELETE ON ALL TABLES IN SCHEMA public FROM {role}"
    has_columns = WRITES, "REVOKE UPDATE ON users FROM {role}; GRANT UPDATE (name) ON users TO {role}"
    serves_nobody = WRITES, "REVOKE ALL ON sessions FROM {role}", "ALTER ROLE {role} NOLOGIN"
    for grants in (reads, adds_a_few, needs_no_more, keeps_rows, has_columns, serves_nobody):
        with migrated.role(*grants):
            assert notes(migrated, f"{migrated.name}_role") == [], grants


@pytest.mark.slow
@pytest.mark.parametrize("by", ["default privileges", "dbroles"])
def test_a_site_that_lost_every_privilege_is_a_warning(migrated, by):
    """A restore without privileges (pg_restore -x) leaves no grant."""
    role, owner = f"{migrated.name}_role", migrated.user
    with migrated.role():
        if by == "dbroles":
            owner, site = f"{migrated.name}_migrate", f"{migrated.name}_app"
            migrated.execute(f"CREATE ROLE {owner} SUPERUSER; ALTER ROLE {role} RENAME TO {site}")
            migrated.give_tables(owner)
        else:
            site = role
            migrated.execute(f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT {ALL} ON TABLES TO {site}")
        [found] = notes(migrated, site)
        migrated.execute(found[3])
        after = notes(migrated, site)
        if by == "dbroles":
            migrated.execute(
                f"ALTER ROLE {site} RENAME TO {role}; REASSIGN OWNED BY {owner} TO {migrated.user}; DROP ROLE {owner}"
            )

    assert (found[:2], after) == (("warning", "grants.missing"), [])
    assert found[2].endswith(", but default privileges give it the same on new tables, or dbroles created it for the site.")
    assert 'GRANT SELECT, INSERT ON "public"."fly2any_accesses"' in found[3]
