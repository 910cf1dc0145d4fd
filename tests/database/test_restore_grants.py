"""Restores by a role that is no superuser: privileges that a grantee granted on, and a database of another role."""

import dataclasses

import pytest
from django.db import connection

from tests.conftest import manage
from tests.database.taken import databases, run

pytestmark = pytest.mark.slow
FULLY = " WITH INHERIT TRUE, SET TRUE"


@pytest.fixture
def owned(filled):
    """The names of a role that owns the tables and may create databases, and of two others; they are removed at the end."""
    role, partner, third = (f"{filled.name}_{name}" for name in ("owner", 'part"ner', "third"))
    every = f"""{role}, "{partner.replace('"', '""')}", {third}"""
    filled.execute(
        f"CREATE ROLE {role} LOGIN CREATEDB; CREATE ROLE {third}; GRANT pg_read_all_data, pg_signal_backend TO {role}"
    )
    filled.execute(f"""CREATE ROLE "{partner.replace('"', '""')}"; GRANT CREATE ON SCHEMA public TO {role}""")
    filled.give_tables(role)
    try:
        yield role, partner, third
    finally:
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')
        filled.execute(f"ALTER DATABASE {filled.name} OWNER TO postgres; REASSIGN OWNED BY {role} TO postgres")
        filled.execute(f"DROP OWNED BY {every} CASCADE; DROP ROLE {every}")


def test_privileges_that_a_grantee_granted_are_restored_as_that_role(filled, owned, place):
    role, partner, third = owned
    quoted = f"""\"{partner.replace('"', '""')}\""""
    filled.execute(f"ALTER DATABASE {filled.name} OWNER TO {role}")
    lines = '"a\n\\lines\nSET SESSION AUTHORIZATION postgres;\n"'  # A name may look like statements.
    filled.execute(f"CREATE TABLE {lines} (); ALTER TABLE {lines} OWNER TO {role}")
    for what in ("SELECT ON users", "CREATE ON SCHEMA public", f"SELECT ON {lines}"):
        filled.execute(f"GRANT {what} TO {quoted} WITH GRANT OPTION; SET ROLE {quoted}; GRANT {what} TO {third}")
    question = """SELECT relacl::text FROM pg_class WHERE oid = 'users'::regclass
                  UNION ALL SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'"""
    url = dataclasses.replace(filled, user=role).url
    fully = FULLY if connection.pg_version >= 160000 else ""
    before, granted = databases(filled), filled.execute(question)
    assert manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place).returncode == 0

    refused = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)
    unchanged = databases(filled)
    filled.execute(f'GRANT {quoted} TO "{role}"{fully}')
    restored = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)

    assert (refused.returncode, refused.stderr, unchanged) == (
        2,
        f"Privileges in the backup were granted by {partner}, which this role may not act as: connect as a superuser, or run"
        f' GRANT {quoted} TO "{role}"{fully};\n',
        before,
    )
    assert (restored.returncode, restored.stderr) == (0, "")
    assert len(databases(filled) - before) == 1
    assert filled.execute(question) == granted


@pytest.mark.parametrize("cured", [True, False])
def test_a_database_of_another_role_is_replaced_only_by_a_member(filled, owned, place, cured):
    role, _, third = owned
    url = dataclasses.replace(filled, user=role).url
    own = f'ALTER DATABASE "{filled.name}" OWNER TO "{role}";'
    fully = FULLY if connection.pg_version >= 160000 else ""
    assert manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place).returncode == 0
    before = databases(filled)

    refused = [manage("dbrestore", "latest", *words, url=url, BACKUP_LOCATION=place) for words in ([], ["--yes"])]
    filled.execute(f"ALTER DATABASE {filled.name} OWNER TO {third}")
    of_third = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)
    unchanged = databases(filled)
    filled.execute(own if cured else f'GRANT "{third}" TO "{role}"{fully}')
    restored = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)
    filled.execute(f"ALTER ROLE {role} NOCREATEDB")
    may_not = manage("dbrestore", "latest", url=url, BACKUP_LOCATION=place)

    sentence = f"The database {filled.name} belongs to {{}}, so this role cannot replace it: as a superuser, run {{}} or restore with --into NAME.\n"
    assert [(one.returncode, one.stderr) for one in refused] == [(2, sentence.format("postgres", own))] * 2
    assert (of_third.stderr, unchanged) == (sentence.format(third, f'GRANT "{third}" TO "{role}"{fully}; or {own}'), before)
    assert (restored.returncode, restored.stderr) == (0, "")
    owner = filled.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
    assert owner == [(role if cured else third,)]
    assert may_not.stderr == (
        f'The role {role} may not create databases, as this command must: as a superuser, run ALTER ROLE "{role}" CREATEDB;\n'
    )


def test_default_privileges_of_a_role_that_the_restoring_role_only_administers_are_left_out(filled, owned, place):
    """From 16 on, a role with CREATEROLE is such a member of the roles that it creates."""
    role, _, _ = owned
    site, of_role = f"{filled.name}_site", dataclasses.replace(filled, user=role)
    filled.execute(f"ALTER DATABASE {filled.name} OWNER TO {role}; ALTER ROLE {role} CREATEROLE")
    of_role.execute(f"CREATE ROLE {site} LOGIN")
    dataclasses.replace(filled, user=site).execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}")
    try:
        assert manage("dbbackup", "--verify", url=of_role.url, BACKUP_LOCATION=place).returncode == 0
        restored = manage("dbrestore", "latest", "--yes", url=of_role.url, BACKUP_LOCATION=place)

        sentence = (
            f"Default privileges for objects that {site} will create were not restored, because only {site} or a superuser may set them:"
            f" run `manage.py dbroles` again, and its SQL as {site}.\n"
        )
        assert (restored.returncode, restored.stderr) == (0, sentence)
    finally:
        for name in databases(filled):
            dataclasses.replace(filled, name=name).execute(f"DROP OWNED BY {site}")
        filled.execute(f"DROP ROLE {site}")


def test_objects_are_restored_whose_owners_may_no_longer_create_them(filled, owned, place):
    role, _, third = owned
    fully = FULLY if connection.pg_version >= 160000 else ""
    filled.execute(
        f"ALTER DATABASE {filled.name} OWNER TO {role}; GRANT {third} TO {role}{fully}; CREATE SCHEMA crm AUTHORIZATION {role}"
    )
    of_role, allowed = (
        dataclasses.replace(filled, user=role),
        f"GRANT CREATE ON SCHEMA public, crm TO {third}; GRANT CREATE ON DATABASE {filled.name} TO {third}",
    )
    filled.execute(
        f"{allowed}; SET ROLE {third}; CREATE TABLE trip (a int); CREATE TABLE crm.trip (a int); CREATE PUBLICATION trips FOR TABLE trip"
    )
    filled.execute(allowed.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    question = f"""
        SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner) FROM pg_class AS c WHERE c.relname = 'trip'
        UNION ALL SELECT pubname::text, pg_get_userbyid(pubowner) FROM pg_publication
        UNION ALL SELECT n.nspname::text, has_schema_privilege('{third}', n.oid, 'CREATE')::text FROM pg_namespace AS n WHERE n.nspname IN ('public', 'crm')
        UNION ALL SELECT '', has_database_privilege('{third}', current_database(), 'CREATE')::text ORDER BY 1"""
    before = filled.execute(question)
    assert run(of_role, "dbbackup", "--verify", place=place).returncode == 0

    restored = run(of_role, "dbrestore", "latest", "--yes", "--trust", third, place=place)

    assert (restored.returncode, restored.stderr, filled.execute(question)) == (0, "", before)
    assert before == [
        ("", "false"),
        ("crm", "false"),
        ("crm.trip", third),
        ("public", "false"),
        ("trip", third),
        ("trips", third),
    ]
