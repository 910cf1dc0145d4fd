"""Aggregates of the ORM are PostgreSQL's own, whatever another role has created in the search path."""

import pytest
from django.contrib.auth.models import Group
from django.contrib.postgres.aggregates import ArrayAgg
from django.db import connection
from django.db.models import Avg, Count, F, Max, Min, Sum
from django.db.models.functions import Length

PLANTED = """
    CREATE FUNCTION public.count(integer) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$;
    CREATE FUNCTION public.array_agg(integer) RETURNS integer[] LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$;
    CREATE FUNCTION public.max(varchar) RETURNS varchar LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$
"""


@pytest.mark.django_db
def test_another_roles_aggregate_is_not_called():
    first, second = (Group.objects.create(name=name).pk for name in ("first", "second"))
    rows = Group.objects.filter(pk__in=[first, second])
    with connection.cursor() as cursor:
        cursor.execute(PLANTED)

    found = rows.aggregate(
        number=Count("id"), last=Max("name"), least=Min("id"), ids=ArrayAgg("id", order_by="id"), sum=Sum(F("id") - F("id"))
    )
    each = (
        rows.annotate(number=Count("permissions__id"), length=Avg(Length("name")))
        .order_by("id")
        .values_list("number", "length")
    )

    assert found == {"number": 2, "last": "second", "least": first, "ids": [first, second], "sum": 0}
    assert [*each] == [(0, 5.0), (0, 6.0)]
    assert rows.filter(pk__in=Group.objects.values("name").annotate(one=Max("id")).values("one")).count() == 2
