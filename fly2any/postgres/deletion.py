"""What happens to a row's children when it is deleted. Migrations import this path: it is frozen."""


def DB_CASCADE(collector, field, sub_objs, using):
    """Leave the children to the database's ON DELETE CASCADE: not one of them is fetched.

    Named like Django 6.1's, which will replace it by a change of import. As there, no signal is sent for the children.
    What QuerySet.delete() deletes itself, the parents, it still fetches: Django 5.2 spares that only without any relation.
    """


# Django evaluates `sub_objs`, which would fetch them, only for a function without this mark.
DB_CASCADE.lazy_sub_objs = True  # type: ignore[attr-defined]
