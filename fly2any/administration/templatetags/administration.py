from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

from django import template
from django.apps import apps
from django.contrib.admin.templatetags.admin_list import result_headers
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext

from fly2any.administration.formats import NOTHING, amount, when, when_in_full
from fly2any.administration.list_rows import rows_of

register = template.Library()


@register.filter
def contents(field):
    """Return the display of a read-only field: our ModelAdmin's, otherwise Django's."""
    name = field.field["field"]
    show = getattr(field.model_admin, "show_readonly", None)
    shown = show(name, field.form.instance) if show and isinstance(name, str) else None
    return field.contents() if shown is None else shown


@register.filter
def figure(value):
    """Return a number with commas between its thousands."""
    return f"{value:,}"


@register.filter
def money(value, currency):
    """Return an amount of money in the admin's format."""
    return amount(value, currency)


@register.filter
def table_title(table):
    """Return what the pages call a table, by its name; its name if no model has it."""
    return _titles().get(table, table)


@lru_cache(maxsize=1)
def _titles():
    return {model._meta.db_table: capfirst(model._meta.verbose_name_plural) for model in apps.get_models()}


@register.filter
def by_title(rows):
    """Return the (table, number of rows) of a plan or a certificate in the order of the tables' titles."""
    return sorted(((table_title(table), number) for table, number in rows.items()), key=lambda row: row[0].lower())


@register.inclusion_tag("admin/change_list_results.html")
def rows(cl):
    """Show the table of a list; its headers are Django's, with a class for those of numbers."""
    numbers = {f"column-{name}" for name in getattr(cl.model_admin, "numeric_columns", ())}
    headers = list(result_headers(cl))
    for header in headers:
        names = str(header["class_attrib"]).removeprefix(' class="').removesuffix('"').split()
        header["classes"] = " ".join([*names, *(["numbers"] if numbers & {*names} else [])])
    return {"cl": cl, "headers": headers, "rows": rows_of(cl)}


@register.filter
def moment(value):
    """Return a figure's display: a time relative to now, anything else unchanged, nothing as a dash."""
    if isinstance(value, datetime):
        return when(value)
    return NOTHING if value is None else value


@register.filter
def moment_in_full(value):
    """Return the display of a time with its date, and relative to now."""
    return when_in_full(value)


CURRENT = SafeString(' aria-current="page"')


@register.simple_tag(takes_context=True)
def navigation(context, apps):
    """Return the tables of the sidebar as Django's app_list.html has them; its loops took half the time of a short page."""
    path, headers = quote(context["request"].path), _headers()
    return format_html_join(
        "",
        '<div class="app-{} module{}"><table><caption><a href="{}" class="section" title="{}">{}</a></caption>{}{}</table></div>',
        (
            (
                app["app_label"],
                " current-app" if app["app_url"] in path else "",
                app["app_url"],
                gettext("Models in the %(name)s application") % {"name": app["name"]},
                app["name"],
                headers,
                format_html_join("", "{}", (_row(app["app_label"], model, path) for model in app["models"])),
            )
            for app in apps
        ),
    )


@register.simple_tag(takes_context=True)
def phone_links(context, apps):
    """Return the tables of the menu of narrow windows."""
    path = quote(context["request"].path)
    links = (
        (app["name"], format_html_join("", "<li>{}</li>", ((_link(one, path),) for one in app["models"] if one["admin_url"])))
        for app in apps
    )
    return format_html_join("", "<b>{}</b><ul>{}</ul>", links)


def _headers():
    names = (gettext("Model name"), gettext("Add link"), gettext("Change or view list link"))
    cells = format_html_join("", '<th scope="col">{}</th>', ((name,) for name in names))
    return format_html('<thead class="visually-hidden"><tr>{}</tr></thead>', cells)


ROW = '<tr class="model-{}{}"><th scope="row" id="{}">{}</th><td>{}</td></tr>'


def _row(label, model, path):
    """Return a table of the sidebar."""
    url = model["admin_url"]
    return (
        _row_of(
            label, model["object_name"].lower(), model["name"], url, model["add_url"], bool(url and url in path), gettext("Add")
        ),
    )


@lru_cache(maxsize=1_000)
def _row_of(label, called, name, url, add_url, current, add):
    described = f"{label}-{called}"
    adding = (
        format_html('<a href="{}" class="addlink" aria-describedby="{}">{}</a>', add_url, described, add) if add_url else ""
    )
    return format_html(ROW, called, " current-model" if current else "", described, _named(name, url, current), adding)


def _link(model, path):
    return _named(model["name"], model["admin_url"], model["admin_url"] in path)


@lru_cache(maxsize=1_000)
def _named(name, url, current):
    return format_html('<a href="{}"{}>{}</a>', url, CURRENT if current else "", name) if url else name
