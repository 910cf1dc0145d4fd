"""Rows as CSV: streamed from the server by COPY, so that a million rows take no more memory than one."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connections, models
from django.db.models import Func, TextField

from fly2any.database.sql import time_limits

CHUNK = 64 * 1024  # Bytes that are sent at once.
LONGEST = 900_000  # Milliseconds that an export may take, with the client that receives it.


class Harmless(Func):
    """A text that no spreadsheet takes for a formula: with an apostrophe before = + - @, their full-width forms, tab, return or line feed (OWASP)."""

    template = r"(CASE WHEN %(expressions)s ~ '^[=+@＝＋＠－\t\r\n-]' THEN '''' || %(expressions)s ELSE %(expressions)s END)"
    output_field = TextField()


def rows_as_csv(rows: models.QuerySet, *, without: tuple[str, ...]) -> Iterator[bytes]:
    """Yield `rows` as CSV (UTF-8, a header line), in no order, without the fields in `without`."""
    fields = [field for field in rows.model._meta.local_fields if field.name not in without]
    columns = [Harmless(field.attname) if isinstance(field, TextField) else models.F(field.attname) for field in fields]
    plain = rows.order_by().select_related(None).values_list(*columns)
    sql, parameters = plain.query.get_compiler(rows.db, elide_empty=False).as_sql()
    yield (",".join(field.attname for field in fields) + "\r\n").encode()
    connection = connections[rows.db]
    chunk = bytearray()
    with (
        time_limits(
            connection, statement=LONGEST, read_only=True
        ),  # Begun by Django, which sets the schema where that is needed.
        connection.wrap_database_errors,
        connection.connection.cursor() as cursor,
        cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv)", parameters) as copy,
    ):
        for data in copy:
            chunk += data
            if len(chunk) >= CHUNK:
                yield bytes(chunk)
                chunk.clear()
    yield bytes(chunk)
