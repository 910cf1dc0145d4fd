"""Rows as CSV: from the server to the disk by COPY, so that a million rows take no more memory than one, and from there to the client.

A client may read slowly: it keeps neither a connection to the server nor a snapshot, and few clients a thread.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from threading import BoundedSemaphore

from django.db import connections, models
from django.db.models import Func, TextField

from fly2any.database.sql import time_limits

from .deadlines import WRITING
from .filters import BadParameter

CHUNK = 64 * 1024  # Bytes that are sent at once.
LARGEST = 1024**3  # Bytes of an export.
AT_ONCE = 3  # Exports of a process, until their clients have them: fewer than its threads.

places = BoundedSemaphore(AT_ONCE)


class Export:
    """An export on the disk, in one of the places until it is closed."""

    def __init__(self) -> None:
        if not places.acquire(blocking=False):
            raise BadParameter("Other exports are still being sent: try again when one of them is complete.")
        with ExitStack() as stack:
            stack.callback(places.release)
            self.file = stack.enter_context(tempfile.TemporaryFile())
            self.close = weakref.finalize(self, stack.pop_all().close)
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > LARGEST:
            raise BadParameter("The export exceeds 1 GB: filter the list, and export it in parts.")
        self.file.write(chunk)

    def read(self, size: int) -> bytes:
        return self.file.read(size)


def spooled(chunks: Iterable[bytes]) -> Export:
    """Return `chunks` on the disk; raise BadParameter where there is no place for them."""
    try:
        with ExitStack() as stack:
            export = Export()
            stack.callback(export.close)
            for chunk in chunks:
                export.write(chunk)
            export.file.seek(0)
            stack.pop_all()
            return export
    except OSError as error:
        raise BadParameter(f"The export cannot be written to {tempfile.gettempdir()}: {error.strerror}.") from error


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
        time_limits(connection, statement=WRITING, read_only=True),
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
