"""The statements of the demo data, one a table: those of the apps' modules `demo`, in the order of the apps."""

from importlib import import_module

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from ..sql import PEOPLE

# Parents before children: no app has a foreign key to one after it.
STATEMENTS: dict[str, str] = {
    model._meta.db_table: statement
    for app in apps.get_app_configs()
    if app.module is not None and module_has_submodule(app.module, "demo")
    for model, statement in import_module(f"{app.name}.demo").ROWS.items()
}

# A user who exists under another id is an error, because rows would reference a missing user; other existing rows stay.
ON_CONFLICT = dict.fromkeys(STATEMENTS, " ON CONFLICT DO NOTHING") | {PEOPLE: " ON CONFLICT (id) DO NOTHING"}
