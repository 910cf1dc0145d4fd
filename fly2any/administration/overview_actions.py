"""Actions of staff on the overview of a row: each is confirmed with the number of rows, then done, logged and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.text import get_text_list
from django.views.decorators.http import require_http_methods

from .counts import Count, bounded, nouns
from .formats import beginning
from .overview import page_of_row

MOST_CHOICES = 50  # The most rows that staff can choose from on a page.


@dataclass(frozen=True, slots=True)
class Action:
    """An action of an overview: `label` is its button there, `verb` the confirming button, `done` the participle in the report.

    `note` says what it does not do, `nothing` why it is not offered while it has no rows. Of an action that `chooses`,
    staff choose the rows.
    """

    name: str
    label: str
    verb: str
    done: str
    note: str = ""
    nothing: str = ""
    chooses: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The part of an action that concerns one table: rows that belong to the row of the overview, which is of the model `of`.

    `permission` is needed on the table of the ModelAdmin that has the step; `allows` asks (request, row) for more. `do` returns the rows as
    they were; those that `remain` get an entry in their history. `nouns` is what one of them and several are called, where
    that is not what their model says.
    """

    action: Action
    of: type[models.Model]
    permission: str
    rows: Callable[[Any, Any], models.QuerySet]
    do: Callable[[models.QuerySet], Sequence[models.Model]]
    allows: Callable[[Any, Any], bool] = lambda request, row: True
    remain: bool = False
    nouns: tuple[str, str] | None = None

    def counted(self, count: Count, model: type[models.Model]) -> str:
        """Return the number of rows with a noun."""
        one, many = self.nouns or nouns(model)
        if count.number is None:
            return f"an unknown number of {many}"
        return f"{count} {one if count.number == 1 and count.is_exact else many}"


def steps_of(owner: Any, request, row: models.Model) -> Iterator[tuple[Step, models.QuerySet]]:
    """Yield the steps available to the user on the overview of `row`, with the rows that they affect."""
    for other in owner.admin_site._registry.values():
        for step in getattr(other, "overview_steps", ()):
            may = getattr(other, f"has_{step.permission}_permission")
            permitted = step.of is owner.model and (may(request, row) if other is owner else may(request))
            if permitted and step.allows(request, row):
                yield step, step.rows(request, row)


def actions_of(owner: Any, request, row: models.Model) -> dict[Action, bool]:
    """Return the actions available to the user on the overview of `row`, each with whether it would change something."""
    found: dict[Action, bool] = {}
    for step, rows in steps_of(owner, request, row):
        found[step.action] = found.get(step.action, False) or rows.exists()
    return found


def _change_row(steps: Sequence[tuple[Step, models.QuerySet]], row: models.Model) -> bool:
    """Return whether steps of an action change the row of the overview itself, and not only rows that belong to it."""
    return any(step.remain and rows.model is type(row) for step, rows in steps)


class StepsMixin(admin.ModelAdmin):
    """Offers, on the overview of a row, the actions in `overview_steps` of all ModelAdmins."""

    overview_steps: tuple[Step, ...] = ()

    def get_urls(self):
        name = f"{self.opts.app_label}_{self.opts.model_name}_act"
        view = self.admin_site.admin_view(self.act_view)
        ours = [path("<path:object_id>/overview/<slug:name>/", view, name=name)] if getattr(self, "overview", ()) else []
        return ours + super().get_urls()

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def act_view(self, request, object_id, name):
        """Ask for confirmation of an action of the overview; by POST, run it."""
        return self.redirect_on_refusal(request, self._act, object_id, name)  # type: ignore[attr-defined]

    def _act(self, request, object_id, name):
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        known = {
            step.action.name: step.action
            for other in self.admin_site._registry.values()
            for step in getattr(other, "overview_steps", ())
        }
        if name not in known:
            raise Http404
        steps = [(step, rows) for step, rows in steps_of(self, request, row) if step.action.name == name]
        if not steps:
            raise PermissionDenied
        if request.method == "POST":
            return self._do(request, row, known[name], steps)
        return self._confirm(request, row, known[name], steps)

    def _confirm(self, request, row, action, steps):
        counts = [(step, rows, bounded(rows)) for step, rows in steps]
        concerned = get_text_list([step.counted(count, rows.model) for step, rows, count in counts if count.number != 0], "and")
        context = {
            **self.admin_site.each_context(request),
            "title": f"{action.label}: {beginning(row)}",
            "opts": self.opts,
            "original": row,
            "action": action,
            "concerned": concerned,
            "changes_row": _change_row(steps, row),
            "choices": [one for _, rows, _ in counts for one in rows[:MOST_CHOICES]] if action.chooses else [],
            "button": action.verb if action.chooses else f"{action.verb} {concerned}",
            "overview_url": page_of_row(row, "overview"),
        }
        return TemplateResponse(request, "admin/confirm.html", context)

    def _do(self, request, row, action, steps):
        results = []
        for step, rows in steps:
            chosen = rows.filter(pk__in=request.POST.getlist("chosen")) if action.chooses else rows
            done = step.do(chosen)
            if step.remain and done:
                LogEntry.objects.log_actions(request.user.pk, done, CHANGE, f"{action.done[0].upper()}{action.done[1:]}.")
            if done:
                results.append(step.counted(Count(len(done)), rows.model))
        if results:
            sentence = f"{get_text_list(results, 'and')} {action.done}."
            if not _change_row(steps, row):
                LogEntry.objects.log_actions(request.user.pk, [row], CHANGE, f"{action.label}: {sentence}", single_object=True)
            messages.success(request, sentence[0].upper() + sentence[1:])
        else:
            messages.info(request, "Nothing was chosen." if action.chooses else "Nothing needed to be changed.")
        return HttpResponseRedirect(page_of_row(row, "overview"))
