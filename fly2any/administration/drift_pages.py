"""Pages that fail because the schema differs from the migrations name the finding instead of an error.

stand_ins.py refuses pages while another role could create what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DEFAULT_DB_ALIAS, Error, InterfaceError, OperationalError, models, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse

from fly2any.database.findings import Finding, Severity

from .dashboard import read_verification
from .deadlines import STATEMENT, TooSlow
from .filters import BadParameter
from .replica import current

MOST_SHOWN = 5
PENDING = "Migrations are pending: run manage.py migrate."
LISTED = "Run manage.py dbstatus: it lists the differences and their cures."
UNNAMED = {"found": [], "more": False, "pending": LISTED}  # Findings are shown to staff only.
# Errors that are handled elsewhere.
ANSWERS = (Http404, PermissionDenied, SuspiciousOperation, OperationalError, InterfaceError, BadParameter, TooSlow)
_log = logging.getLogger("fly2any.schema")


def differences(models_: Iterable[type[models.Model]] = ()) -> list[Finding] | None:
    """Return the errors that verification finds in the schema, those of the tables of `models_` first; None where nothing differs.

    The list is empty where only migrations are pending.
    """
    try:
        with transaction.atomic(using=DEFAULT_DB_ALIAS):
            verification, _ = read_verification(STATEMENT)  # If this fails, the page's own error is raised.
    except Error:
        return None
    if verification is None:
        return None
    tables = {model._meta.db_table for model in models_}
    found = [finding for finding in verification.findings if finding.severity is Severity.ERROR]
    found.sort(key=lambda finding: finding.where.partition(".")[0] not in tables)
    return found if found or verification.migrations.pending else None


def explain_differences(site, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Return `view`; if it fails and the schema differs, a page that names the findings is shown instead."""

    @wraps(view)
    def answered(request, *args, **kwargs):
        try:
            return rendered(view(request, *args, **kwargs))
        except ANSWERS:
            raise
        except Exception as error:
            found = differences(_models_of(site, request))
            if found is None:
                raise
            _log.exception("a page failed on a schema that differs: %s", type(error).__name__)
            return _page(site, request, found)

    return answered


def read_or_each(read: Callable[[], Any], each: Callable[[Any], Any], items: Iterable[Any]) -> tuple[Any, list[Any]]:
    """Return the result of `read`; if it fails and the schema differs, the results of `each` for the items, and the items that failed."""
    try:
        with transaction.atomic(using=current().alias):
            return read(), []
    except ANSWERS:
        raise
    except Exception:
        if differences() is None:
            raise
    results, broken = [], []
    for item in items:
        try:
            with transaction.atomic(using=current().alias):
                results.append(each(item))
        except Exception:
            broken.append(item)
    return results, broken


def rendered(response: HttpResponse) -> HttpResponse:
    """Render a response here, because its template may fail too."""
    if isinstance(response, TemplateResponse) and not response.is_rendered:
        response.render()
    return response


def _models_of(site, request: HttpRequest) -> list[type[models.Model]]:
    """Return the model of the requested page."""
    name = (request.resolver_match.url_name if request.resolver_match else None) or ""
    return [model for model in site._registry if name.startswith(f"{model._meta.app_label}_{model._meta.model_name}_")]


def _page(site, request: HttpRequest, found: list[Finding]) -> HttpResponse:
    """Return the page within the admin's frame, or without it if the tables of the signed-in user are among those that differ."""
    context = {
        "title": "The database differs from what this page needs",
        "found": found[:MOST_SHOWN],
        "more": len(found) > MOST_SHOWN,
        "pending": PENDING,
    }
    try:
        with transaction.atomic(using=DEFAULT_DB_ALIAS):
            framed = {**site.each_context(request), **context, "may_see_database": site.may_see_database(request)}
            if not site.has_permission(request):
                framed |= UNNAMED
            return TemplateResponse(request, "admin/drift.html", framed, status=503).render()
    except Exception:  # The user, their permissions or their messages cannot be read.
        if SESSION_KEY not in getattr(request, "session", {}):
            context |= UNNAMED
        return HttpResponse(render_to_string("admin/drift_bare.html", context), status=503)
