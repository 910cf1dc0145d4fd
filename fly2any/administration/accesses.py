"""The access records: which staff opened a conversation, exported rows, or erased a person.

A page calls `note`, as in ai_consultant/admin.py; deadlines.py writes its records before it responds. export.py, person_page.py and
site.py write their own.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.db import models
from django.http import HttpRequest
from django.urls import reverse

from .client_address import address_of
from .models import Access


def note(request: HttpRequest, action: Access.Action, model: type[models.Model], *, row_id=None, person_id=None, query=None):
    """Remember what `request` shows; it is recorded before the response is sent, because the page itself is read-only."""
    request.accesses = [  # type: ignore[attr-defined]
        *getattr(request, "accesses", ()),
        access_of(request, action, model, row_id=row_id, person_id=person_id, query=query),
    ]


def access_of(request: HttpRequest, action: Access.Action, model: type[models.Model], **values) -> Access:
    """Return an unsaved access by the user of `request` to rows of `model`."""
    user: Any = request.user
    return Access(
        staff_id=user.pk,
        staff_email=user.get_username(),
        action=action,
        table=model._meta.db_table,
        ip_address=address_of(request),
        **values,
    )


def certificate_page(access: Access) -> str:
    """Return the URL of the page of an erasure's certificate."""
    people = get_user_model()._meta
    return reverse(f"admin:{people.app_label}_{people.model_name}_erased", args=[access.pk])


def record(request: HttpRequest) -> None:
    """Write the noted accesses; raise DatabaseError if that fails, so that nothing is shown without a record."""
    Access.objects.bulk_create(request.__dict__.pop("accesses", ()))
