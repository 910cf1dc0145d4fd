"""The rows of a list as HTML, as `items_for_result` of Django's admin makes them, with each column's properties computed once.

Django looks up the field of a column, its label and its classes again for each cell, which took two fifths of the time of a
page. Anything but text or HTML returned by a column's function is left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from django.contrib.admin.templatetags.admin_list import items_for_result
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.urls import NoReverseMatch
from django.utils.html import format_html
from django.utils.safestring import SafeString

from .markup import markup

Cell = Callable[[Any], str]  # (row) → cell.


def rows_of(cl: Any) -> str:
    """Return the table rows of the rows of the change list `cl`; none of its columns is editable in place."""
    cells: list[Cell] = []
    header = None  # The first column that links to the row; it is the row's header.
    for name in cl.list_display:
        links = cl.list_display_links
        linked = links is not None and (name in links if links else header is None)
        cells.append(_cell(cl, name, linked=linked, header=header))
        if linked and header is None:
            header = name
    row = markup(f"<tr>{'{}' * len(cells)}</tr>")
    return SafeString("".join(row(*[cell(found) for cell in cells]) for found in cl.result_list))


def _cell(cl: Any, name: Any, *, linked: bool, header: Any) -> Cell:
    """Return the function that makes a row's cell in the column `name`."""
    alone = copy(cl)
    alone.list_display = [name] if header is None or not linked else [header, name]
    alone.list_display_links = alone.list_display if linked else None

    def djangos(row):
        return [*items_for_result(alone, row, None)][-1]

    function = _function(cl, name)
    if function is None or (linked and (cl.is_popup or cl.preserved_filters)):
        return djangos
    tag = "th" if linked and header is None else "td"
    called = name.__name__ if callable(name) else name
    begin = format_html('<{} class="{}">', tag, "action-checkbox" if name == "action_checkbox" else f"field-{called}")
    plain, link = markup(f"{begin}{{}}</{tag}>"), markup(f'{begin}<a href="{{}}">{{}}</a></{tag}>')

    def cell(row):
        try:
            shown = function(row)
            if isinstance(shown, str) and shown.strip():
                return link(cl.url_for_result(row), shown) if linked else plain(shown)
        except (ObjectDoesNotExist, NoReverseMatch):
            pass
        return djangos(row)

    return cell


def _function(cl: Any, name: Any) -> Cell | None:
    """Return the function that computes a column from a row, None for a field or an attribute of the row."""
    if callable(name):
        return None if name.__name__ == "<lambda>" else name
    try:
        cl.opts.get_field(name)
    except FieldDoesNotExist:
        return None if name == "__str__" else getattr(cl.model_admin, name, None)
    return None
