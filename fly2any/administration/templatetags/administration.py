from django import template

register = template.Library()


@register.filter
def contents(field):
    """Return what a read-only field of a form shows: as our ModelAdmin shows it, else as Django's admin does."""
    name = field.field["field"]
    show = getattr(field.model_admin, "show_readonly", None)
    shown = show(name, field.form.instance) if show and isinstance(name, str) else None
    return field.contents() if shown is None else shown
