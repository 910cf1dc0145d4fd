"""The access records: which staff opened a conversation, exported rows, or erased a person.

deadlines.py writes a page's records before it responds. This module also determines the client's address, and the network by which
failed sign-ins are counted.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models
from django.http import HttpRequest
from django.urls import reverse

from .models import Access

# Guesses of these are counted apart from those of the password, under the user name followed by one of these.
CODE, OLD_PASSWORD = " (code)", " (old password)"


def address_of(request: HttpRequest) -> str | None:
    """Return the address that a request came from; behind a proxy that is trusted, the one that the proxy saw."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2] if settings.TRUST_PROXY else ""
    for text in (forwarded, forwarded.rpartition(":")[0], request.META.get("REMOTE_ADDR", "")):  # Some proxies add a port.
        with suppress(ValueError):
            address = ip_address(text.strip().strip("[]"))
            return str(
                getattr(address, "ipv4_mapped", None) or address
            )  # The form in which a dual-stack socket reports IPv4 addresses.
    return None


def network_of(request: HttpRequest) -> str | None:
    """Return the address under which guesses are counted: for IPv6 the /64, which belongs to one subscriber."""
    address = address_of(request)
    if address is None or ":" not in address:
        return address
    return str(ip_network((address, 64), strict=False).network_address)


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
