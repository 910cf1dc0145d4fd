"""Statements of the ORM call PostgreSQL's functions, not another role's whose argument types fit better."""

import pytest
from django.contrib.auth.models import Group
from django.core.management.color import no_style
from django.db import connection

BODY = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$"
PLANTED = [
    "unnest(varchar[]) RETURNS SETOF varchar",
    *(f"setval({sequence}, {kind}, bool) RETURNS bigint" for sequence in ("text", "varchar") for kind in ("int", "bigint")),
    "pg_get_serial_sequence(text, varchar) RETURNS text",
]


@pytest.fixture
def planted():
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value, is_called FROM auth_group_id_seq")
        state = cursor.fetchone()
        for signature in PLANTED:
            cursor.execute(f"CREATE FUNCTION public.{signature} {BODY}")
        yield cursor
        cursor.execute("SELECT pg_catalog.setval('auth_group_id_seq'::regclass, %s, %s)", state)  # No rollback does so.


@pytest.mark.django_db
def test_rows_of_one_column_are_inserted_by_postgresqls_unnest(planted):
    Group.objects.all().delete()

    Group.objects.bulk_create([Group(name="first"), Group(name="second")])

    assert list(Group.objects.order_by("name").values_list("name", flat=True)) == ["first", "second"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("statements", "state"),
    [
        (lambda: connection.ops.sequence_reset_sql(no_style(), [Group]), (900, True)),
        (lambda: connection.ops.sequence_reset_by_name_sql(no_style(), [{"table": "auth_group", "column": "id"}]), (1, False)),
    ],
    ids=["to the largest", "to the first"],
)
def test_sequences_are_set_by_postgresqls_setval(planted, statements, state):
    Group.objects.all().delete()
    Group.objects.create(pk=900, name="last")

    for statement in statements():
        planted.execute(statement)

    planted.execute("SELECT last_value, is_called FROM auth_group_id_seq")
    assert planted.fetchone() == state
