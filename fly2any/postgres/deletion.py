"""DB_CASCADE: a deletion leaves a row's children to the database's ON DELETE CASCADE, which postgres/schema.py creates.

Migrations import this path: it is frozen.
"""

try:
    from django.db.models import DB_CASCADE as DB_CASCADE  # From Django 6.1 on.
except ImportError:

    def DB_CASCADE(collector, field, sub_objs, using):  # type: ignore[misc]
        """Leave the children to the database's ON DELETE CASCADE, without fetching them.

        As with Django 6.1's, no signal is sent for the children.
        What QuerySet.delete() deletes itself, the parents, it still fetches: Django 5.2 spares that only without any relation.
        """

    # Django evaluates `sub_objs`, which would fetch them, only for a function without this mark.
    DB_CASCADE.lazy_sub_objs = True  # type: ignore[attr-defined]
