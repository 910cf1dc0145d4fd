"""Loads what pages need into gunicorn's first process, before it forks those that serve: they share it, and their first
responses take about as long as later ones. Only connections cannot be shared: each process opens its first itself.
"""

import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django import forms
from django.contrib import admin
from django.db import Error, connection
from django.forms.renderers import get_default_renderer
from django.template import Context, Template
from django.template.loader import get_template
from django.template.loader_tags import ExtendsNode
from django.template.utils import get_app_template_dirs
from django.urls import reverse

from fly2any.administration.airports import suggested

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


def connect() -> None:
    """Open the first connection of this process's pool, so that the first request finds one. A page reports a database that does not answer."""
    with suppress(Error):
        connection.ensure_connection()
    connection.close()


def _names(folder: Path, below: str) -> Iterator[str]:
    for path in folder.glob(f"{below}/**/*.html"):
        yield path.relative_to(folder).as_posix()


def _load_parents(template: Template) -> None:
    context = Context()
    with context.bind_template(template), context.render_context.push_state(template):
        while extends := template.nodelist.get_nodes_by_type(ExtendsNode):
            template = extends[0].get_parent(context)  # type: ignore[attr-defined]
