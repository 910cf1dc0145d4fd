from datetime import datetime
from urllib.parse import quote

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from fly2any.administration.formats import NOTHING, amount, when

register = template.Library()


@register.filter
def contents(field):
    """Return what a read-only field of a form shows: as our ModelAdmin shows it, else as Django's admin does."""
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
    """Return an amount of money as every page shows it."""
    return amount(value, currency)


@register.filter
def header_class(header, cl):
    """Return the classes of the header of a list's column, with that of numbers where the column is one of them."""
    names = header.get("class_attrib", "").removeprefix(' class="').removesuffix('"').split()
    numbers = {f"column-{name}" for name in cl.model_admin.numeric_columns}
    return " ".join([*names, *(["numbers"] if numbers & {*names} else [])])


@register.filter
def moment(value):
    """Return how a figure is shown: a time as its distance from now, anything else as it is, nothing as a dash."""
    if isinstance(value, datetime):
        return when(value)
    return NOTHING if value is None else value


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
                format_html_join("", ROW, (_row(app["app_label"], model, path) for model in app["models"])),
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
    """Return what ROW has of a table."""
    name, url, add = model["object_name"].lower(), model["admin_url"], model["add_url"]
    described = f"{label}-{name}"
    adding = '<a href="{}" class="addlink" aria-describedby="{}">{}</a>'
    return (
        name,
        " current-model" if url and url in path else "",
        described,
        _link(model, path) if url else model["name"],
        format_html(adding, add, described, gettext("Add")) if add else "",
    )


def _link(model, path):
    url = model["admin_url"]
    return format_html('<a href="{}"{}>{}</a>', url, CURRENT if url in path else "", model["name"])
