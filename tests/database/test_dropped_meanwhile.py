"""A report while other sessions drop objects: PostgreSQL's own functions then fail with an internal error."""

import pytest
from django.db import InternalError
from psycopg.errors import InternalError_

from fly2any.database.management.commands import dbstatus
from tests.conftest import django


def raised():
    error = InternalError("cache lookup failed for attribute 4 of relation 7")
    error.__cause__ = InternalError_()
    return error


@pytest.mark.parametrize(("failures", "calls"), [(2, 3), (3, 3)])
def test_the_catalogue_is_read_again_twice(migrated, monkeypatch, failures, calls):
    real, seen = dbstatus.verify, []

    def verify(connection, **options):
        seen.append(connection.alias)
        if len(seen) <= failures:
            raise raised()
        return real(connection, **options)

    monkeypatch.setattr(dbstatus, "verify", verify)
    with django(migrated) as connection:
        try:
            found = dbstatus.Command().verify(connection, False, False, 0).findings
        except InternalError:
            found = "failed"

    assert (len(seen), found) == (calls, () if failures < 3 else "failed")
