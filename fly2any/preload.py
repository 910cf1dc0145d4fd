"""Loads what pages need into gunicorn's first process, before it forks those that serve: they share it, and their first
responses take about as long as later ones. Each process then makes one page for itself, because connections cannot be shared.
"""

import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import Error, connection, transaction
from django.forms.renderers import get_default_renderer
from django.template import Context, Template
from django.template.loader import get_template
from django.template.loader_tags import ExtendsNode
from django.template.utils import get_app_template_dirs
from django.test import RequestFactory
from django.urls import reverse

from fly2any.administration.airports import suggested
from fly2any.administration.deadlines import STATEMENT
from fly2any.administration.stand_ins import may_read

FORMS, ADMIN = (Path(str(package.__file__)).parent / "templates" for package in (forms, admin))


def load_pages() -> None:
    """Read the URL patterns, compile the templates of the admin and of forms, and read the list of airports."""
    reverse("admin:index")
    suggested()
    for folder in map(Path, get_app_template_dirs("templates")):
        for name in _names(folder, "admin"):
            _load_parents(get_template(name).template)  # type: ignore[attr-defined]
    renderer = get_default_renderer()
    for folder, below in ((FORMS, "django"), (ADMIN, "admin/widgets")):
        for name in _names(folder, below):
            renderer.get_template(name)
    gc.collect()
    gc.freeze()  # No later collection looks at what is loaded, nor does it copy the pages of memory that are shared.


def make_a_page() -> None:
    """Render a page in advance, so that this process's first request does not pay for what Django does only once.

    If the database does not answer, requests will report it.
    """
    request: Any = RequestFactory().get(reverse("admin:accounts_user_changelist"))
    request.user = get_user_model()(is_staff=True, is_superuser=True)
    request.user.is_verified = lambda: True  # Which django_otp's middleware adds.
    with suppress(Error), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {STATEMENT}")
        if may_read(connection):
            page: Any = admin.site._registry[get_user_model()].changelist_view(request)
            page.render()
    connection.close()


def _names(folder: Path, below: str) -> Iterator[str]:
    for path in folder.glob(f"{below}/**/*.html"):
        yield path.relative_to(folder).as_posix()


def _load_parents(template: Template) -> None:
    context = Context()
    with context.bind_template(template), context.render_context.push_state(template):
        while extends := template.nodelist.get_nodes_by_type(ExtendsNode):
            template = extends[0].get_parent(context)  # type: ignore[attr-defined]
