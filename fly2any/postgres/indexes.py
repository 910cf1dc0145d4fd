"""Indexes with PostgreSQL's limit on names. Migrations import this path: it is frozen."""

from django.db import models


class Index(models.Index):
    """An index whose name may have 63 characters; Django stops at 30, for Oracle."""

    max_name_length = 63
