"""The groups of the staff, as each app's migration grants them. Migrations import this path: it is frozen.

staff.py gives people these roles; database/roles.py defines the roles of PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.contrib.auth.management import create_permissions
from django.db import migrations, router

SUPPORT = "Support"
OPERATIONS = "Operations"
ADMINISTRATORS = "Administrators"  # Unlike the role `administrator` of staff.py, which is a superuser without a group.
GROUPS = (SUPPORT, OPERATIONS, ADMINISTRATORS)  # They exclude each other: a new role replaces the others.


class Grant(migrations.RunPython):
    """The operation that gives groups permissions of an app: group → code names, such as `view_user`.

    The permissions are made here, since Django makes them only when all migrations have run. When it is reversed, the groups lose these,
    and a group with neither permissions nor people is deleted. It asks for each model it needs, so that not all of them are
    rendered, and `squashmigrations` can write it.
    """

    requests_each_model = True

    def __init__(self, app: str, grants: Mapping[str, Iterable[str]]):
        self.app, self.grants = app, {name: list(codenames) for name, codenames in grants.items()}
        super().__init__(self.give, self.take)

    def deconstruct(self):
        return type(self).__name__, [self.app, self.grants], {}

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if router.allow_migrate(schema_editor.connection.alias, app_label):
            self.code(from_state.apps, schema_editor)

    def give(self, apps, editor):
        using = editor.connection.alias
        config = apps.get_app_config(self.app)
        config.models_module = True  # Requested here so that the state has it when the function needs it.
        create_permissions(config, verbosity=0, using=using, apps=apps)  # And the content types.
        permissions = apps.get_model("auth", "Permission").objects.using(using).filter(content_type__app_label=self.app)
        for name, codenames in self.grants.items():
            group, _ = apps.get_model("auth", "Group").objects.using(using).get_or_create(name=name)
            # By id: Django's own executor may have rendered the model twice.
            group.permissions.add(*permissions.filter(codename__in=codenames).values_list("pk", flat=True))

    def take(self, apps, editor):
        groups = apps.get_model("auth", "Group").objects.using(editor.connection.alias)
        for name, codenames in self.grants.items():
            for group in groups.filter(name=name):
                given = group.permissions.filter(content_type__app_label=self.app, codename__in=codenames)
                group.permissions.remove(*given)  # Other permissions, which people have granted since, stay.
                if not group.permissions.exists() and not group.user_set.exists():
                    group.delete()


grant = Grant


def codenames(actions: str, models: str) -> list[str]:
    """Return the code names of each of the `actions` on each of the `models`, both lists of words."""
    return [f"{action}_{model}" for action in actions.split() for model in models.split()]
