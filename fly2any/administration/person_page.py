"""Exports and erases a person, as `dbperson` does, with the certificate in the access records."""

from __future__ import annotations

import json

from django.contrib import admin, messages
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from fly2any.database.errors import Refusal
from fly2any.database.person import Certificate, Person, erase, export, find_by_id, plan
from fly2any.database.person.search import Unsearched
from fly2any.database.person.without_foreign_key import ERASED

from .accesses import access_of, certificate_page, note, record
from .deadlines import writing_limit
from .drift_pages import read_or_each
from .edits import require_row
from .export import spooled
from .models import Access, Note
from .overview import page_of_row

MOST_NOTES = 20  # Notes on an overview.
LONGEST_NOTE = 10_000  # Characters.
EXPORT, ERASE = "administration.export_person", "administration.erase_person"
VIEW_RECORD = "administration.view_access"
NOT_SEARCHED = Unsearched("other texts in the database", "not searched by the admin for the e-mail address")
NEEDS_ADMINISTRATOR = "Only administrators and members of the group Administrators can erase this person."


def read_notes(person_id: str) -> tuple[list[Note], dict[str, str]]:
    """Return the newest MOST_NOTES notes about a person, and the e-mail addresses of their authors by id."""
    notes = list(Note.objects.filter(person=person_id).order_by("-at", "-pk")[:MOST_NOTES])
    staff = get_user_model()._default_manager.filter(pk__in={note.staff_id for note in notes})
    return notes, dict(staff.values_list("pk", "email"))


class AccessKeeper:
    """Keeps the certificate of an erasure in the access records, and an entry in the admin's log: both commit with the erasure."""

    def __init__(self, request, model) -> None:
        self.access = access_of(request, Access.Action.ERASED, model)
        content_type = ContentType.objects.get_for_model(model)
        self.entry = LogEntry(
            user_id=request.user.pk,
            content_type=content_type,
            object_repr=ERASED,
            action_flag=DELETION,
            change_message="Erased.",
        )

    def keep(self, certificate: Certificate) -> None:
        self.access.row_id = self.access.person_id = self.entry.object_id = certificate.person
        self.access.certificate = json.loads(certificate.as_json())
        self.access.save()
        self.entry.save()

    def confirm(self) -> None:
        pass

    def discard(self) -> None:
        pass


class PersonMixin(admin.ModelAdmin):
    """Pages about a person: the export of all their data as JSON, and their erasure."""

    def get_urls(self):
        place = f"{self.opts.app_label}_{self.opts.model_name}"
        wrap = self.admin_site.view_with_own_transactions  # type: ignore[attr-defined]
        return [
            path("<path:object_id>/overview/note/", self.admin_site.admin_view(self.note_view), name=f"{place}_note"),
            path("<path:object_id>/overview/give-out/", wrap(self.export_person_view), name=f"{place}_give_out"),
            path("<path:object_id>/overview/erase/", wrap(self.erase_view), name=f"{place}_erase"),
            path("erased/<int:number>/", self.admin_site.admin_view(self.erased_view), name=f"{place}_erased"),
            *super().get_urls(),
        ]

    def person_actions(self, request, row) -> list[tuple[str, str]]:
        """Return the labels and URLs of the user's actions here; none for staff, whom dbperson refuses."""
        if row.is_staff or row.is_superuser:
            return []
        known = [(EXPORT, "Export everything", "give-out/"), (ERASE, "Erase", "erase/")]
        return [(label, url) for permission, label, url in known if self._may(request, permission, row)]

    def beside_overview(self, request, row):
        """Return who may erase a person, for users who may not, and the newest staff notes, for users who may see them."""
        may_erase = row.is_staff or row.is_superuser or self._may(request, ERASE, row)
        return {"actions_note": "" if may_erase else NEEDS_ADMINISTRATOR, **self._notes(request, row)}

    def _notes(self, request, row):
        may_add, may_see = (request.user.has_perm(f"administration.{one}_note") for one in ("add", "view"))
        if not (may_see or may_add):
            return {}
        found, failed = read_or_each(lambda: [read_notes(row.pk)], read_notes, [row.pk]) if may_see else ([], [])
        notes, authors = found[0] if found else ([], {})
        shown = [(note.at, authors.get(note.staff_id, note.staff_id), note.text) for note in notes]
        return {
            "notes": shown,
            "notes_broken": failed,
            "may_add_note": may_add,
            "has_notes": True,
            "longest_note": LONGEST_NOTE,
        }

    @method_decorator(require_POST)
    def note_view(self, request, object_id):
        """Add a note about a person."""
        return self.redirect_on_refusal(request, self._note, object_id)  # type: ignore[attr-defined]

    def _note(self, request, object_id):
        request.back = self._list()  # In case the person is gone.
        row = self._row(request, object_id, "administration.add_note")
        request.back = self._overview(row.pk)
        text = request.POST.get("text", "").replace("\0", "").strip()
        if not text or len(text) > LONGEST_NOTE:
            messages.error(request, f"A note must have 1 to {LONGEST_NOTE:,} characters: nothing was added.")
        else:
            require_row(Note.objects.create(person=row, staff_id=request.user.pk, text=text))
            messages.success(request, "The note was added.")
        return HttpResponseRedirect(request.back)

    def _may(self, request, permission: str, row) -> bool:
        return request.user.has_perm(permission) and self.has_view_permission(request, row)

    def _row(self, request, object_id: str, permission: str):
        """Return the row of a person; raise PermissionDenied, and Refusal if there is none."""
        if not request.user.has_perm(permission):
            raise PermissionDenied
        row = self.get_queryset(request).filter(pk=unquote(object_id)).first()
        if row is None:
            raise Refusal("This person does not exist: another member of the staff may have erased or deleted them.")
        if not self._may(request, permission, row):
            raise PermissionDenied
        return row

    def _person(self, request, object_id: str, permission: str) -> Person:
        """Return the person of a page; raise PermissionDenied, and Refusal for staff and if there is none."""
        row = self._row(request, object_id, permission)
        with writing_limit():
            return find_by_id(connection, row.pk)

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def export_person_view(self, request, object_id):
        """Describe the export; by POST, send all data about a person as JSON, without secrets."""
        try:
            person = self._person(request, object_id, EXPORT)
            if request.method != "POST":
                return self._page(request, "admin/export_person.html", person, "Export everything about")
            note(request, Access.Action.EXPORTED, self.model, row_id=person.id, person_id=person.id)
            record(request)
            with writing_limit():
                held = spooled(text.encode() for text in export(connection, person))
        except Refusal as refusal:
            return self._refused(request, object_id, refusal)
        headers = {"Content-Length": str(held.size), "Content-Disposition": 'attachment; filename="person.json"'}
        return StreamingHttpResponse(iter(lambda: held.read(65_536), b""), content_type="application/json", headers=headers)

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def erase_view(self, request, object_id):
        """Show what an erasure removes, and by POST, with the e-mail address or the ID typed, erase the person."""
        try:
            person = self._person(request, object_id, ERASE)
            wrong = ""
            if request.method == "POST":
                if request.POST.get("email", "").strip().lower() == person.address_or_id.lower():
                    return self._erase(request, person)
                wrong = f"The text does not match {person.address_or_id}: nothing was erased."
            with writing_limit():
                planned = plan(connection, person, searched=False)
        except Refusal as refusal:
            return self._refused(request, object_id, refusal)
        return self._page(request, "admin/erase.html", person, "Erase", plan=planned, wrong=wrong)

    def _erase(self, request, person: Person):
        keeper = AccessKeeper(request, self.model)
        with writing_limit():
            erase(connection, person, keeper, searched=False, unsearched=NOT_SEARCHED)
        messages.success(request, "The person was erased. This is the certificate.")
        return HttpResponseRedirect(certificate_page(keeper.access))

    @method_decorator(require_safe)
    def erased_view(self, request, number):
        """Show the certificate of an erasure, or send it as a file."""
        if not (request.user.has_perm(ERASE) or request.user.has_perm(VIEW_RECORD)):
            raise PermissionDenied
        access = Access.objects.filter(pk=number, certificate__isnull=False).first()
        if access is None:
            raise Http404
        if "download" in request.GET:
            name = {"Content-Disposition": 'attachment; filename="certificate.json"'}
            text = json.dumps(access.certificate, indent=2)
            return HttpResponse(text, content_type="application/json", headers=name)
        context = {
            **self.admin_site.each_context(request),
            "title": "Certificate of erasure",
            "opts": self.opts,
            "access": access,
        }
        return TemplateResponse(request, "admin/erased.html", context)

    def _refused(self, request, object_id: str, refusal: Refusal) -> HttpResponse:
        """Lead back to the person, or to the list if the person is gone, with the reason."""
        messages.error(request, str(refusal))
        is_there = self.get_queryset(request).filter(pk=unquote(object_id)).exists()
        return HttpResponseRedirect(self._overview(unquote(object_id)) if is_there else self._list())

    def _page(self, request, template: str, person: Person, verb: str, **more):
        context = {
            **self.admin_site.each_context(request),
            "title": f"{verb} {person.address_or_id}",
            "opts": self.opts,
            "person": person,
            "overview_url": self._overview(person.id),
            **more,
        }
        return TemplateResponse(request, template, context)

    def _overview(self, key: str) -> str:
        return page_of_row(self.model(pk=key), "overview")

    def _list(self) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
