"""Rows as CSV: from the server to the disk by COPY, so that a million rows take no more memory than one, and from there to the client.

A client may read slowly: it keeps neither a connection to the server nor a snapshot, and few clients a thread.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from threading import BoundedSemaphore
from typing import Any

from django.contrib import admin, messages
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import PermissionDenied
from django.db import connections, models
from django.db.models import Func, TextField
from django.http import FileResponse, HttpResponseRedirect
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST

from fly2any.database.sql import time_limits

from .accesses import note, record
from .deadlines import WRITING
from .filters import BadParameter
from .models import Access

CHUNK = 64 * 1024  # Bytes sent at once.
LARGEST = 1024**3  # Bytes of an export.
AT_ONCE = 3  # Exports of a process that are being sent: fewer than its threads.

FORMULAS = "=+@＝＋＠－-"  # The first characters of formulas, as a regular expression has them in brackets.

places = BoundedSemaphore(AT_ONCE)


class Export:
    """An export on the disk; it occupies a slot until it is closed."""

    def __init__(self) -> None:
        if not places.acquire(blocking=False):
            raise BadParameter("Other exports are still being sent. Try again when one of them is complete.")
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
    """Write `chunks` to the disk; raise BadParameter if no slot or no space is free."""
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


class PartsEscaped(Func):
    """A value as text in which no part is a formula where a spreadsheet separates cells by ; or tab, or begins a row within quotes.

    Excel opens a CSV with the list separator of its locale, which is ; in much of Europe and in Brazil.
    """

    template = rf"""regexp_replace(%(expressions)s::text, '([;\t\r\n][ "]*)([{FORMULAS}])', '\1''\2', 'g')"""
    output_field = TextField()


class FormulaEscaped(PartsEscaped):
    """A text that no spreadsheet treats as a formula: an apostrophe precedes = + - @, their full-width forms, tab, return or line feed (OWASP)."""

    template = rf"(CASE WHEN %(expressions)s ~ '^[\t\r\n{FORMULAS}]' THEN '''' ELSE '' END || {PartsEscaped.template})"


def _cell(field: models.Field) -> Func | models.F:
    if isinstance(field, models.CharField | TextField):
        return FormulaEscaped(field.attname)
    return PartsEscaped(field.attname) if isinstance(field, models.JSONField | ArrayField) else models.F(field.attname)


def rows_as_csv(rows: models.QuerySet, *, without: tuple[str, ...]) -> Iterator[bytes]:
    """Yield `rows` as CSV (UTF-8, a header line), in no order, without the fields in `without`."""
    fields = [field for field in rows.model._meta.local_fields if field.name not in without]
    columns = [_cell(field) for field in fields]
    plain = rows.order_by().select_related(None).values_list(*columns)
    sql, parameters = plain.query.get_compiler(rows.db, elide_empty=False).as_sql()
    yield (",".join(field.attname for field in fields) + "\r\n").encode()
    connection = connections[rows.db]
    chunk = bytearray()
    with (
        time_limits(connection, statement=WRITING, read_only=True),
        connection.wrap_database_errors,
        connection.connection.cursor() as cursor,
        cursor.execute("SET LOCAL extra_float_digits = 1"),  # At 0 or less, numbers would be rounded.
        cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv)", parameters) as copy,
    ):
        for data in copy:
            chunk += data
            if len(chunk) >= CHUNK:
                yield bytes(chunk)
                chunk.clear()
    yield bytes(chunk)


class ExportMixin(admin.ModelAdmin):
    """Sends the rows of a list, as it is filtered, as CSV to those with the permission; each export is recorded.

    The model's `secret_fields` are left out.
    """

    def get_urls(self):
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        return [path("export/", self.admin_site.admin_view(self.export_view), name=name), *super().get_urls()]

    def has_export_permission(self, request) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.export_{self.opts.model_name}")

    @method_decorator(require_POST)
    def export_view(self, request):
        """Send the rows of the list, as it is filtered, as CSV."""
        if not (self.has_view_permission(request) and self.has_export_permission(request)):
            raise PermissionDenied
        try:
            changes: Any = super().get_changelist_instance(request)  # Not self's, which may record that a list is opened.
            if changes.found.is_partial:
                raise BadParameter(f"The search does not find every row, so nothing was exported. {changes.found.note}")
        except BadParameter as error:
            note(request, Access.Action.OPENED, self.model, query=request.GET.urlencode())
            record(request)  # The refusal may reveal whether rows were found.
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect("../")
        note(request, Access.Action.EXPORTED, self.model, query=request.GET.urlencode())
        record(request)
        export = spooled(rows_as_csv(changes.queryset, without=getattr(self.model, "secret_fields", ())))
        name, length = f"{self.opts.db_table}.csv", {"Content-Length": str(export.size)}
        return FileResponse(export, as_attachment=True, filename=name, content_type="text/csv; charset=utf-8", headers=length)

    def changelist_view(self, request, extra_context=None):
        extra = {"may_export": self.has_export_permission(request)}
        return super().changelist_view(request, {**extra, **(extra_context or {})})
