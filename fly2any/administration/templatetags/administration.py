from datetime import datetime

from django import template

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
