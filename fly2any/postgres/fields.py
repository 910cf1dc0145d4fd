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
        super().__init__(*args, **{"primary_key": True, "default": new_id, "editable": False, **kwargs})

    def deconstruct(self):
        name, path, args, kwargs = super().deconstruct()
        for option, standard, djangos in (
            ("primary_key", True, False),
            ("default", new_id, models.NOT_PROVIDED),
            ("editable", False, True),
        ):
            if kwargs.pop(option, djangos) != standard:
                kwargs[option] = getattr(self, option)
        return name, path, args, kwargs

    def get_internal_type(self):
        return "TextField"
