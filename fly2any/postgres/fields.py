"""Fields of the Fly2Any schema. Migrations import this path: it is frozen."""

import uuid_utils
from django.db import models


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562) as text: 36 characters that sort by time."""
    return str(uuid_utils.uuid7())


class TextIdField(models.TextField):
    """The text primary key of every Fly2Any table.

    The site makes its ids itself (cuid, UUIDv4), so the form of an id is never validated; rows made here get a UUIDv7.
    """

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("primary_key", True)
        kwargs.setdefault("default", new_id)
        kwargs.setdefault("editable", False)
        super().__init__(*args, **kwargs)

    def deconstruct(self):
        name, path, args, kwargs = super().deconstruct()
        for fixed in ("primary_key", "default", "editable"):
            kwargs.pop(fixed, None)
        return name, path, args, kwargs

    def get_internal_type(self):
        return "TextField"
