"""Actions of a list: each is confirmed with the number of rows, and reports its result."""

from __future__ import annotations

from functools import wraps

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.template.response import TemplateResponse

from fly2any.database.units import plural

from .counts import nouns
from .formats import beginning


def counted(number: int, options) -> str:
    """Return the number of rows with the model's noun."""
    return plural(number, *nouns(options.model))


def confirmed(description: str, done: str, *, permission: str = "change"):
    """Return a decorator that asks for confirmation before an action of a list runs.

    `description` is what it does, with {} for the rows, `done` what it did: "Mark {} as read", "marked as read". The decorated
    function returns the rows that it changed.
    """

    def decorate(write):
        @admin.action(description=description.format("%(verbose_name_plural)s"), permissions=[permission])
        @wraps(write)
        def action(page, request, rows):
            if not request.POST.get("post"):
                return page.ask(request, rows, write.__name__, description)
            page.log_action(request, write(page, request, rows), done)
            return None

        return action

    return decorate


class ListActionsMixin(admin.ModelAdmin):
    """Confirms actions of a list before they run."""

    def ask(self, request, rows, action: str, description: str, **more):
        """Return the confirmation page, which states the action (`description`) and names the rows."""
        sentence = description.format(counted(len(rows), self.opts))
        context = {
            **self.admin_site.each_context(request),
            "title": f"{sentence}?",
            "opts": self.opts,
            "sentence": sentence,
            "action": action,
            "checkbox": ACTION_CHECKBOX_NAME,
            "rows": [(row.pk, beginning(row)) for row in rows],
            "back": request.get_full_path(),
            **more,
        }
        return TemplateResponse(request, "admin/confirm_list_action.html", context)
