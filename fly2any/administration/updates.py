"""Updates several rows one by one, for the history of each."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, models, transaction

from fly2any.database.units import plural


def update_each(rows: models.QuerySet, **values: Any) -> list[Any]:
    """Update `rows`, and return them as they were; raise DatabaseError unless the database wrote each of them."""
    with transaction.atomic():
        found = [*rows.select_for_update(of=("self",), no_key=True)]
        written = rows.model._base_manager.filter(pk__in=[row.pk for row in found]).update(**values)
        if written < len(found):
            raise DatabaseError(f"Of {plural(len(found), 'row')}, {plural(len(found) - written, 'was', 'were')} not written.")
    return found
