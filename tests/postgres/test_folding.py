"""fold() in Python gives what Folded gives in PostgreSQL: a search by either ignores the same accents."""

import airportsdata
import pytest
from django.db import connection

from fly2any.administration.airports import airports_named
from fly2any.postgres.expressions import Folded, fold


@pytest.mark.django_db
def test_python_and_postgresql_fold_every_airport_alike():
    facts = airportsdata.load("IATA").values()
    names = sorted({text for fact in facts for text in (fact["name"], fact["city"])} | {Folded.accented, Folded.marks})
    sql = Folded.template % {"expressions": "name"}

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql} FROM unnest(%s::text[]) WITH ORDINALITY AS names (name, place) ORDER BY place", [names])
        assert [fold(name) for name in names] == [folded for (folded,) in cursor.fetchall()]


@pytest.mark.parametrize("term", ["Tromsø", " tromso"])
def test_an_airport_is_found_without_its_accents(term):
    assert [airport.code for airport in airports_named(term)] == ["TOS"]
