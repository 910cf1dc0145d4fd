"""Secret columns of stored rows are never shown: lists show a fingerprint (formats.py), forms omit them, and a row is found by sending the whole
secret. Only the pages that set up a second factor show its new key and codes, once, to their owner.

The models declare them (`secret_fields`); database/facts.py says what follows, and database/roles.py does not grant them to the role that only reads.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.text import get_text_list
from django.views.decorators.http import require_POST

from .columns import ColumnsMixin
from .overview import page_of_row


class SecretsMixin(ColumnsMixin):
    """Keeps the model's `secret_fields` out of every form; ColumnsMixin shows their fingerprints instead.

    If a unique index covers a secret, the list has a form to find its row; the secret is sent by POST.
    """

    def get_urls(self):
        name = f"{self.opts.app_label}_{self.opts.model_name}_find"
        ours = [path("find/", self.admin_site.admin_view(self.find_view), name=name)] if self.findable else []
        return ours + super().get_urls()

    @property
    def findable(self) -> list[str]:
        """Return the secrets by which a row can be found: those with a unique index."""
        unique = {field.name for field in self.opts.local_fields if field.unique}
        return [name for name in self.secrets if name in unique]

    @property
    def secret_label(self) -> str:
        """Return what these secrets are called: "token"."""
        return get_text_list([str(field.verbose_name) for field in self.opts.local_fields if field.name in self.findable], "or")

    @method_decorator(require_POST)
    def find_view(self, request):
        """Redirect to the row with the submitted secret; by POST, so that it is in no URL and no log."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        secret = request.POST.get("secret", "").strip()
        if secret and (row := self.row_of_secret(request, secret)):
            return HttpResponseRedirect(page_of_row(row))
        self.message_user(request, f"No {self.opts.verbose_name} has this {self.secret_label}.", messages.WARNING)
        return HttpResponseRedirect("../")

    def row_of_secret(self, request, secret: str) -> Any:
        """Return the row with this secret, only its key loaded; None without one."""
        rows = (self.get_queryset(request).filter(**{name: secret}).only("pk").first() for name in self.findable)
        return next(filter(None, rows), None)

    def changelist_view(self, request, extra_context=None):
        return super().changelist_view(request, {"secret_label": self.secret_label, **(extra_context or {})})

    def get_exclude(self, request, obj=None):
        return [*(super().get_exclude(request, obj) or ()), *self.secrets]

    def get_readonly_fields(self, request, obj=None):
        return [*super().get_readonly_fields(request, obj), *(self.columns[name] for name in self.secrets)]

    def get_fields(self, request, obj=None):
        hidden = () if obj else {*self.readonly_fields, *(self.columns[name] for name in self.secrets)}
        return [name for name in super().get_fields(request, obj) if name not in hidden]
