"""The methods of the apps' QuerySets are their API: the reference page lists each, as its code describes it."""

import inspect
import os

from django.apps import apps
from django.db import models

from fly2any.database.schema.contract import PHASE7_APPS
from tests.commands import PROJECT

PAGE = PROJECT / "docs" / "reference" / "querysets.md"
HEADER = "| method | returns |\n|---|---|\n"


def methods():
    """Yield a line for each method that an app's QuerySet adds to Django's."""
    for app in PHASE7_APPS:
        for model in apps.get_app_config(app).get_models():
            for name, method in vars(model._default_manager.get_queryset().__class__).items():
                if inspect.isfunction(method) and not name.startswith("_") and not hasattr(models.QuerySet, name):
                    arguments = ", ".join(
                        str(given) for given in inspect.signature(method).parameters.values() if given.name != "self"
                    )
                    arguments = arguments.replace("datetime.timedelta(seconds=21600)", "timedelta(hours=6)")
                    star = (
                        "*, "
                        if any(given.kind is given.KEYWORD_ONLY for given in inspect.signature(method).parameters.values())
                        else ""
                    )
                    yield f"| `{model.__name__}.objects.{name}({star}{arguments})` | {inspect.getdoc(method)} |\n"


def test_the_page_lists_each_method_as_its_code_describes_it():
    written = HEADER + "".join(methods())
    before, _, listed = PAGE.read_text().partition(HEADER)
    if os.environ.get("PRINT_PAGES"):
        PAGE.write_text(before + written)
        return

    assert HEADER + listed == written
