"""The permissions of the staff in the admin: rows that `migrate` creates, and that groups lose with them if they are deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.contrib.auth import get_permission_codename, get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import DataError, ProgrammingError, transaction

from .findings import Finding, Severity
from .schema import Catalog
from .sql import fetch_one, quote
from .units import plural

GROUPS_OF_PEOPLE: Any = get_user_model()._meta.get_field("groups").remote_field.through
PERMISSIONS_OF_GROUPS: Any = Group.permissions.through
TABLES = [model._meta.db_table for model in (ContentType, Permission, Group, PERMISSIONS_OF_GROUPS, GROUPS_OF_PEOPLE)]
EXISTING_SQL = """
    SELECT ARRAY(SELECT t.app_label::text || '.' || p.codename::text
                 FROM {schema}.{permission} AS p JOIN {schema}.{type} AS t ON t.id = p.content_type_id),
           ARRAY(SELECT g.name::text FROM {schema}.{group} AS g
                 WHERE NOT EXISTS (SELECT FROM {schema}.{granted} AS x WHERE x.group_id = g.id)
                   AND EXISTS (SELECT FROM {schema}.{member} AS m WHERE m.group_id = g.id)
                 ORDER BY g.name::text COLLATE "C")
"""


def is_readable(catalog: Catalog) -> bool:
    """Return whether a role may read all rows of the tables of permissions without running code of other roles."""
    seen = (table for table in catalog.tables if table.readable and "SELECT" not in table.restricted)
    found = {table.name for table in seen if table.kind == "table" and table.trusted}
    return found >= {*TABLES}


def read_permissions(connection, schema: str) -> Iterator[Finding]:
    """Yield the permissions of the admin that are missing, and the groups with members and without any permission."""
    names = dict(zip(("type", "permission", "group", "granted", "member"), map(quote, TABLES), strict=True))
    try:
        with transaction.atomic(using=connection.alias):
            existing, empty = fetch_one(connection, EXISTING_SQL.format(schema=quote(schema), **names))
    except (DataError, ProgrammingError):  # A column is missing or of another type, which is a finding of its own.
        return
    missing = sorted({*_expected()} - {*existing})
    if missing:
        them = "it" if len(missing) == 1 else "them"
        what = (
            f"The permission {missing[0]} is"
            if len(missing) == 1
            else f"{plural(len(missing), 'permission')}, such as {missing[0]}, are"
        )
        yield Finding(
            Severity.WARNING, "permissions.missing", Permission._meta.db_table,
            f"{what} missing, so only superusers may do what requires {them} in the admin.",
            f"Run `manage.py migrate`, which creates {them}, then give {them} to the groups again (Groups in the admin), or restore a backup.",
        )  # fmt: skip
    for name in empty:
        yield Finding(
            Severity.WARNING, "permissions.missing", f"group {name}",
            f"The group {name} has members but no permissions, so it gives them no permission in the admin.",
            f"Run `manage.py migrate`, then give the group {name} its permissions (Groups in the admin), or restore a backup.",
        )  # fmt: skip


def _expected() -> Iterator[str]:
    for model in apps.get_models():
        options = model._meta
        for codename in (
            *(get_permission_codename(action, options) for action in options.default_permissions),
            *(codename for codename, _ in options.permissions),
        ):
            yield f"{options.app_label}.{codename}"
