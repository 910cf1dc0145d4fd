"""Database defaults of the Fly2Any schema. Migrations import this path: it is frozen."""

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models.functions import Cast


class CurrentTimestamp(models.Func):
    """CURRENT_TIMESTAMP, the start of the transaction, as Prisma's `@default(now())` writes it.

    Django's Now() is STATEMENT_TIMESTAMP(), another definition in the catalogue.
    """

    template = "CURRENT_TIMESTAMP"
    output_field = models.DateTimeField()


def random_text_id():
    """Return the expression `gen_random_uuid()::text`."""
    return Cast(RandomUUID(), models.TextField())
