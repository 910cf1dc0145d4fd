"""The admin's site: its first page, search, sign-in and Database page, and what is done around each view."""

import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar
from urllib.parse import urlencode

from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_lockout_response
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.validators import MaxLengthValidator
from django.db import DatabaseError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import get_script_prefix, get_urlconf, path, reverse
from django.utils.decorators import method_decorator
from django.utils.encoding import escape_uri_path
from django.utils.translation import get_language
from django.views.decorators.http import require_http_methods, require_safe

from fly2any.database.errors import Refusal, explain
from fly2any.database.health.security import TOPICS as SECURITY
from fly2any.database.health.topics import TOPICS
from fly2any.database.report.waivers import Waiver, read_waivers
from fly2any.database.retention.rules import switched_on
from fly2any.database.schema.contract import PHASE7_APPS

from .accesses import record
from .backends import in_turn, remember_device, signing_out, take_turn, verify
from .client_address import OLD_PASSWORD
from .dashboard import read_page, read_report, read_summary
from .deadlines import hurry, in_time
from .delete_preview import delete_selected
from .drift_pages import differences, explain_differences, read_or_each
from .filters import BadParameter
from .forms import PasswordFormMixin
from .refusals import in_one_sentence, is_refusal
from .replica import remember_writing
from .search_page import search_view, searched
from .second_factor import Enrol, Leave, RecoveryCodes, Verify

T = TypeVar("T")
_log = logging.getLogger("fly2any.admin")
MOST_APP_LISTS = 100  # Cached lists of tables per process, by permissions and page.
PLACES = {app: place for place, app in enumerate(PHASE7_APPS)}


class SignInForm(AdminAuthenticationForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "E-mail"
        # Wrong codes and old passwords are counted under the address and a word, in 255 characters.
        self.fields["username"].validators.append(MaxLengthValidator(255 - len(OLD_PASSWORD)))

    def confirm_login_allowed(self, user):
        """Count the right password of a person who is not staff as a failure; otherwise the missing lockout would reveal it."""
        try:
            super().confirm_login_allowed(user)
        except ValidationError:
            credentials = {"username": self.cleaned_data["username"]}
            user_login_failed.send(sender=type(self).__module__, credentials=credentials, request=self.request)
            raise


class OwnPasswordForm(PasswordFormMixin, AdminPasswordChangeForm):
    pass


class OwnPassword(PasswordChangeView):
    """Change your own password; guesses of the old one are limited as at sign-in, but counted separately."""

    form_class = OwnPasswordForm

    def lockout_credentials(self):
        name = self.request.user.get_username()
        return {"username": f"{name}{OLD_PASSWORD}", "email": name}

    @method_decorator(in_turn)
    def post(self, request, *args, **kwargs):
        hurry()
        take_turn(request, self.lockout_credentials()["username"])
        if not AxesProxyHandler.is_allowed(request, self.lockout_credentials()):
            return get_lockout_response(request, credentials=self.lockout_credentials())
        return super().post(request, *args, **kwargs)

    def form_valid(self, form):
        response = super().form_valid(form)
        remember_device(self.request, response)  # The browser's cookie was issued for the old password.
        return response

    def form_invalid(self, form):
        if "old_password" in form.errors:
            user_login_failed.send(sender=__name__, credentials=self.lockout_credentials(), request=self.request)
        return super().form_invalid(form)


class AdminSite(admin.AdminSite):
    site_header = "Fly2Any database"
    site_title = "Fly2Any"
    index_title = "Data"
    site_url = None  # The site is hosted elsewhere.
    login_form = SignInForm

    def __init__(self, name="admin"):
        super().__init__(name)
        self.add_action(delete_selected, "delete_selected")
        self._app_lists: dict[Any, list[dict[str, Any]]] = {}

    def get_app_list(self, request, app_label=None):
        """Return the groups in a fixed order: those of the data in the order of the apps, then those of the admin.

        Users with the same permissions share the result, so it must not be changed.
        """
        allowed = tuple(
            (model, admin.has_module_permission(request), *admin.get_model_perms(request).items())
            for model, admin in self._registry.items()
        )
        key = (app_label, get_script_prefix(), get_urlconf(), get_language(), allowed)
        if key not in self._app_lists:
            if len(self._app_lists) >= MOST_APP_LISTS:
                self._app_lists.clear()
            apps = super().get_app_list(request, app_label)
            self._app_lists[key] = sorted(apps, key=lambda app: PLACES.get(app["app_label"], len(PLACES)))
        return self._app_lists[key]

    @method_decorator(require_safe)
    def index(self, request, extra_context=None):
        tables = self.tables_of(request, self.get_app_list(request))
        report, verified_at = read_summary(waivers=self.waivers(request))
        extra = {"is_first_page": True, "report": report, "verified_at": verified_at}
        return super().index(request, {**tables, **extra, **(extra_context or {})})

    def may_see_database(self, request) -> bool:
        return request.user.has_perm("administration.view_database")

    @method_decorator(require_safe)
    def database(self, request):
        """Show the reports of `dbstatus --security` and `dbhealth`, and the rules of retention."""
        if not self.may_see_database(request):
            raise PermissionDenied
        report = read_report(health=TOPICS, security=SECURITY, waivers=self.waivers(request))
        context = {
            **self.each_context(request),
            "title": "Database",
            "report": report,
            "topics": [("Health", report.health), ("Security", report.security)],
            "retention": self.read_or_report(request, lambda: switched_on(settings.RETENTION["days"])),
        }
        return TemplateResponse(request, "admin/database.html", context)

    def waivers(self, request) -> tuple[Waiver, ...]:
        return self.read_or_report(request, lambda: read_waivers(settings.WAIVERS)) or ()

    def read_or_report(self, request, read: Callable[[], T]) -> T | None:
        """Return what `read` returns, or None if a file or variable is invalid, with a message for users who may see the Database page."""
        try:
            return read()
        except Refusal as refusal:
            if self.may_see_database(request):
                messages.error(request, str(refusal))
            return None

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def search(self, request):
        """Show the results of a search of all tables that the user may see."""
        admins = sorted(searched(self, request), key=lambda admin: PLACES.get(admin.opts.app_label, len(PLACES)))
        return search_view(self, request, admins)

    @method_decorator(require_safe)
    def app_index(self, request, app_label, extra_context=None):
        tables = self.tables_of(request, self.get_app_list(request, app_label))
        return super().app_index(request, app_label, {**tables, **(extra_context or {})})

    def tables_of(self, request, apps):
        """Return the tables that the pages of all groups, and of one, show."""
        admins = [
            (self._registry[model["model"]], model["admin_url"])
            for app in apps
            for model in app["models"]
            if model["admin_url"]
        ]
        found, broken = read_or_each(lambda: [read_page(admins)], lambda one: read_page([one]), admins)
        tables = {model: table for some, _ in found for model, table in some.items()}
        failing = {admin.model for admin, _ in broken}
        groups = [
            (app, [(entry, tables.get(entry["model"]), entry["model"] in failing) for entry in app["models"]]) for app in apps
        ]
        tiles = [tile for _, some in found for tile in some]
        return {"groups": groups, "tiles": tiles, "may_see_database": self.may_see_database(request)}

    def has_permission(self, request):
        """Return whether the user is staff and, if SECOND_FACTOR is set, has shown a second factor in this session."""
        return super().has_permission(request) and (request.user.is_verified() or not settings.SECOND_FACTOR)

    def get_urls(self):
        return [
            path("second-factor/", self.second_factor_view(Verify), name="second_factor"),
            path("second-factor/leave/", self.second_factor_view(Leave), name="second_factor_leave"),
            path("second-factor/new/", self.second_factor_view(Enrol), name="second_factor_new"),
            path("second-factor/codes/", self.second_factor_view(RecoveryCodes), name="second_factor_codes"),
            path("search/", self.admin_view(self.search), name="search"),
            path("database/", self.admin_view(self.database), name="database"),
            *super().get_urls(),
        ]

    def second_factor_view(self, page):
        return explain_differences(self, self.report_refusals(page.as_view(site=self), in_place=True))

    def login(self, request, extra_context=None):
        """Ask for a password, or for the second factor if only that is missing."""
        return explain_differences(self, self._login)(request, {"title": "Sign in", **(extra_context or {})})

    def _login(self, request, extra_context=None):
        if request.user.is_active and request.user.is_staff and not self.has_permission(request):
            wanted = urlencode({"next": request.GET.get("next", "")})
            return HttpResponseRedirect(f"{reverse('admin:second_factor', current_app=self.name)}?{wanted}")
        login = super().login
        view = in_turn(login, before=partial(verify, form=self.login_form)) if request.method == "POST" else login
        response = self.report_refusals(view, in_place=True)(request, extra_context)
        if request.method == "POST" and request.user.is_authenticated:
            remember_device(request, response)
        return response

    def logout(self, request, extra_context=None):
        view = self.report_refusals(signing_out(super().logout), in_place=True)
        return view(request, {"title": "Signed out", **(extra_context or {})})

    def password_change(self, request, extra_context=None):
        """Django's page, whose form leaves every other column of the user as it is."""
        context = {**self.each_context(request), **(extra_context or {})}
        done = reverse("admin:password_change_done", current_app=self.name)
        request.current_app = self.name
        return OwnPassword.as_view(
            success_url=done,
            extra_context=context,
            template_name=self.password_change_template or "registration/password_change_form.html",
        )(request)

    def admin_view(self, view, cacheable=False):
        return explain_differences(
            self,
            super().admin_view(_with_bad_parameters_reported(self.report_refusals(in_time(view, self.too_slow))), cacheable),
        )

    def view_with_own_transactions(self, view):
        """Return a view of the admin that opens its own transactions, with their own time limits."""

        @wraps(view)
        def remembered(request, *args, **kwargs):
            response = view(request, *args, **kwargs)
            if request.method == "POST":
                remember_writing(request)
            return response

        return explain_differences(self, super().admin_view(_with_bad_parameters_reported(self.report_refusals(remembered))))

    def report_refusals(self, view, *, in_place=False):
        """Return `view`; what the database refuses is reported on the previous page, or in place of a page that only reads.

        With `in_place` it is always reported in place, because a message for another page is stored in the session, which is a write.
        """

        @wraps(view)
        def answered(request, *args, **kwargs):
            try:
                return view(request, *args, **kwargs)
            except DatabaseError as error:
                if not is_refusal(error):
                    raise
                if request.method != "POST" and differences() is not None:
                    raise
                sentence = in_one_sentence(error)
                _log.warning("the database refused %s: %s", escape_uri_path(request.path)[:500], explain(error))
            if request.method == "POST" and not in_place:
                raise BadParameter(sentence)
            context = {**self.each_context(request), "title": "The database rejected this request", "sentence": sentence}
            return TemplateResponse(request, "admin/refused.html", context, status=503).render()

        return answered

    def too_slow(self, request, *, locked: bool = False) -> HttpResponse:
        """Return the response for a page whose queries took too long, or waited for a lock."""
        name = request.resolver_match.url_name or ""
        context = {
            **self.each_context(request),
            "title": "This page waited for a lock" if locked else "This takes too long",
            "locked": locked,
            "is_list": name == "search" or name.endswith(("_changelist", "_export", "_find")),
            "back": _page_of(request),
        }
        response = TemplateResponse(request, "admin/too_slow.html", context, status=503)
        return response.render()


def _with_bad_parameters_reported(view):
    """Return `view`; if it raises BadParameter, its sentence is a message on the page without parameters, to which this redirects.

    The sentence is about a parameter of the URL, or is a refusal of the database that `report_refusals` passes on.
    """

    @wraps(view)
    def reported(request, *args, **kwargs):
        try:
            if "\0" in request.path:
                raise Http404
            queries = (request.GET,) if _is_form(request) else (request.GET, request.POST)
            if any("\0" in value for fields in queries for _, values in fields.lists() for value in values):
                raise BadParameter("The request contained a NUL character, so the request was ignored.")
            return view(request, *args, **kwargs)
        except BadParameter as error:
            record(request)  # What was noted may show in which parameter the database refused.
            messages.error(request, str(error))
            return HttpResponseRedirect(_page_of(request))

    return reported


def _page_of(request) -> str:
    """Return the URL of the page on which a request was made."""
    return "../" if request.path.endswith(("/find/", "/export/", "/overview/note/")) else request.path


def _is_form(request) -> bool:
    """Return whether a page is a form, which reports NUL characters itself and keeps what was entered."""
    return (request.resolver_match.url_name or "").endswith(("_add", "_change"))
