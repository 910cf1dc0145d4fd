"""Sequences that the role may not read are named, and do not leave out the others; the others are judged by their next value."""

from contextlib import nullcontext

import pytest
from django.db import Error, IntegrityError, connection, transaction

from fly2any.database.verification import verify
from tests.database.test_writes import found, run

TAKEN = (
    "error",
    "auth_group.id",
    "The sequence of column id of auth_group returns 1 next, but values up to 3 are in use: an INSERT that gets one of them fails.",
)


def of_sequences():
    return [(one.severity, one.where, one.message) for one in verify(connection).findings if one.code == "column.sequence"]


@pytest.fixture
def monitor(db):  # RESTART is rolled back, unlike setval.
    run("CREATE ROLE monitor", "ALTER SEQUENCE auth_group_id_seq RESTART WITH 1")


@pytest.mark.django_db
def test_a_monitor_is_told_which_sequences_it_may_not_read_and_its_cure_works(monitor):
    run("SET LOCAL ROLE monitor")

    (note,) = (one for one in verify(connection).findings if one.code == "column.sequence")

    assert (note.severity, note.where) == ("note", "sequences")
    assert note.message.startswith("The sequences of ")
    assert "auth_group.id" in note.message
    run("RESET ROLE", note.cure.removeprefix("As their owner: "), "SET LOCAL ROLE monitor")
    assert of_sequences() == [TAKEN]


@pytest.mark.django_db
def test_a_role_that_may_only_use_a_sequence_does_not_know_its_first_value(monitor):
    run(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO monitor; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO monitor",
        "REVOKE SELECT ON SEQUENCE auth_group_id_seq FROM monitor; GRANT USAGE ON SEQUENCE auth_group_id_seq TO monitor",
        "SET LOCAL ROLE monitor",
    )

    (note,) = (one for one in verify(connection).findings if one.code == "column.sequence")

    assert (note.severity, note.where, note.cure) == (
        "note", "sequences", 'As their owner: GRANT SELECT ON SEQUENCE public.auth_group_id_seq TO "monitor";'
    )  # fmt: skip
    run("RESET ROLE", note.cure.removeprefix("As their owner: "), "SET LOCAL ROLE monitor")
    assert of_sequences() == [TAKEN]


@pytest.mark.django_db
def test_the_first_value_of_another_roles_sequence_is_not_read_by_name(monitor):
    """That role may rename it, and create a view of its name."""
    run("CREATE ROLE stranger; CREATE SEQUENCE theirs; ALTER TABLE users ADD theirs bigint DEFAULT nextval('theirs')")
    run("ALTER SEQUENCE theirs OWNER TO stranger; ALTER SEQUENCE theirs RESTART WITH 1")

    assert [one.message for one in verify(connection).findings if one.where == "sequences"] == [
        "The sequences of users.theirs were not checked, or not compared with the values in use: whether an INSERT fails there is not known."
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("owner", ["stranger", "CURRENT_USER"])
def test_the_first_value_is_not_read_by_name_in_the_schema_of_another_role(monitor, owner):
    """That role may give the name to a view while it is read."""
    run(
        f"CREATE ROLE stranger; CREATE SCHEMA mal AUTHORIZATION {owner}; CREATE SEQUENCE mal.s; ALTER TABLE users ADD theirs bigint DEFAULT nextval('mal.s')"
    )
    run("ALTER SEQUENCE mal.s RESTART WITH 1")

    notes = [(one.message, one.cure) for one in verify(connection).findings if one.where == "sequences"]

    assert notes == (
        []
        if owner != "stranger"
        else [
            (
                "The sequences of users.theirs were not checked, or not compared with the values in use: whether an INSERT fails there is not known.",
                "Give mal.s the owner and the schema of the column's table (ALTER SEQUENCE … OWNER TO …, SET SCHEMA …): until then, another role may give that name to another relation.",
            )
        ]
    )
    if notes:
        run("ALTER SEQUENCE mal.s SET SCHEMA public")
        assert of_sequences() == [TAKEN]


@pytest.mark.django_db
def test_a_sequence_that_fails_does_not_leave_out_the_others(monitor):
    run(
        "ALTER TABLE users ADD theirs bigint; CREATE SEQUENCE theirs; ALTER TABLE users ALTER theirs SET DEFAULT nextval('theirs')"
    )
    run(
        "UPDATE pg_sequence SET seqmax = 9223372036854775807, seqincrement = 9223372036854775807 WHERE seqrelid = 'theirs'::regclass"
    )
    run("SELECT setval('theirs', 5)")

    assert of_sequences() == [
        TAKEN,
        ("note", "sequences", "The sequences of users.theirs were not checked, or not compared with the values in use: whether an INSERT fails there is not known."),
    ]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("granted", ["USAGE", "UPDATE", ""])
def test_a_sequence_that_the_inserting_role_may_not_use_is_an_error(granted):
    run(
        "CREATE ROLE monitor; GRANT INSERT ON users TO monitor; CREATE SEQUENCE theirs; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO monitor"
    )
    run("ALTER TABLE users ADD theirs bigint, ALTER theirs SET DEFAULT nextval('theirs')")
    run(*[f"GRANT {granted} ON SEQUENCE theirs TO monitor"] * bool(granted), "SET LOCAL ROLE monitor")

    errors = [one for one in verify(connection).findings if one.where == "users.theirs"]

    assert [(one.severity, one.message) for one in errors] == (
        []
        if granted
        else [("error", "monitor may not use public.theirs, from which the default of column theirs of users takes its values, so every INSERT that uses the default fails.")]
    )  # fmt: skip
    run("RESET ROLE", *(one.cure.removeprefix("As its owner: ") for one in errors), "SET LOCAL ROLE monitor")
    assert [one for one in verify(connection).findings if one.where == "users.theirs"] == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("restarted", "following"),
    [
        ("ALTER SEQUENCE auth_group_id_seq RESTART WITH 1; SELECT setval('auth_group_id_seq', 10, false)", None),
        ("ALTER SEQUENCE auth_group_id_seq RESTART WITH 10", None),
        ("ALTER SEQUENCE auth_group_id_seq START WITH 10 RESTART WITH 2", 2),
    ],
)
def test_a_sequence_is_judged_by_its_first_value_and_not_by_its_start(restarted, following):
    run(restarted)

    messages = [one.message for one in verify(connection).findings]

    assert messages == (
        [
            f"The sequence of column id of auth_group returns {following} next, but values up to 3 are in use: an INSERT that gets one of them fails."
        ]
        if following
        else []
    )
    with pytest.raises(IntegrityError) if following else nullcontext(), transaction.atomic():
        run("INSERT INTO auth_group (name) VALUES ('theirs')")


@pytest.mark.django_db
def test_an_exhausted_sequence_is_found_before_its_first_value():
    run(
        "CREATE SEQUENCE theirs; ALTER TABLE users ADD theirs int; ALTER TABLE users ALTER theirs SET DEFAULT nextval('theirs')"
    )
    run("ALTER SEQUENCE theirs RESTART WITH 2147483648")

    assert found() == [("error", "column.sequence", "users.theirs")]


@pytest.mark.django_db
def test_a_sequence_of_a_smaller_type_than_its_column_is_enlarged():
    run(
        "ALTER SEQUENCE django_migrations_id_seq AS integer RESTART WITH 2147483647",
        "SELECT nextval('django_migrations_id_seq')",
    )

    (finding,) = verify(connection).findings

    assert finding.message == "The sequence of column id of django_migrations is exhausted: an INSERT fails."
    run(finding.cure)
    assert found() == []
    run("INSERT INTO django_migrations (app, name, applied) VALUES ('a', 'b', now())")


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("type_", "options", "last", "following"),
    [
        ("smallint", "CYCLE", 32767, "error"),
        ("smallint", "INCREMENT -1 CYCLE", -32768, "error"),
        ("smallint", "INCREMENT -1", -32768, "error"),
        ("smallint", "INCREMENT -1", -32767, None),
        ("smallint", "MAXVALUE 32767 CYCLE", 32767, None),
        ("smallint", "INCREMENT -1 MINVALUE -32768 CYCLE", -32768, None),
        ("integer", "INCREMENT -1", -2147483648, "error"),
        ("bigint", "CYCLE", 9223372036854775806, None),
    ],
)  # fmt: skip
def test_a_sequence_is_exhausted_where_the_type_of_its_column_ends(type_, options, last, following):
    run(
        f"ALTER TABLE users ADD theirs {type_}; CREATE SEQUENCE theirs {options}; ALTER TABLE users ALTER theirs SET DEFAULT nextval('theirs')"
    )
    run(f"SELECT setval('theirs', {last})")

    assert found() == ([(following, "column.sequence", "users.theirs")] if following else [])
    with pytest.raises(Error) if following else nullcontext(), transaction.atomic():
        run("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
