"""The permissions on a table, including one to export it. models.py declares those for the Database page and for a person's data.

Migrations import this path: it is frozen.
"""

PERMISSIONS = ("add", "change", "delete", "view", "export")


def label(permission) -> str:
    """Return a permission by the name of its model on the pages: the stored name has that of the package's migrations."""
    model = permission.content_type.model_class()
    action, _, name = permission.codename.partition("_")
    if model is None or action not in PERMISSIONS or name != model._meta.model_name:
        return str(permission)
    return f"{permission.content_type} | Can {action} {model._meta.verbose_name}"
