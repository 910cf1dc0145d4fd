from functools import wraps

from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm
from django.http import HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from .dashboard import read_state, read_tables, read_tiles
from .deadlines import read_only
from .filters import BadParameter


class SignInForm(AdminAuthenticationForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "E-mail"


class AdminSite(admin.AdminSite):
    site_header = "Fly2Any database"
    site_title = "Fly2Any"
    index_title = "Data"
    site_url = None  # The site is not here.
    login_form = SignInForm

    def index(self, request, extra_context=None):
        apps = self.get_app_list(request)
        admins = [
            (self._registry[model["model"]], model["admin_url"])
            for app in apps
            for model in app["models"]
            if model["admin_url"]
        ]
        tables = read_tables(admins)
        groups = [(app, [(entry, tables.get(entry["model"])) for entry in app["models"]]) for app in apps]
        context = {"groups": groups, "state": read_state(), "tiles": read_tiles(admins), **(extra_context or {})}
        return super().index(request, context)

    def admin_view(self, view, cacheable=False):
        return super().admin_view(read_only(_explained(view), self.too_slow), cacheable)

    def too_slow(self, request) -> HttpResponse:
        """Answer for a page that the database did not fill in time."""
        context = {**self.each_context(request), "title": "This takes too long"}
        response = TemplateResponse(request, "admin/too_slow.html", context, status=503)
        return response.render()


def _explained(view):
    """Return `view` with what the address says wrongly said in a sentence, above the page without it."""

    @wraps(view)
    def explained(request, *args, **kwargs):
        try:
            return view(request, *args, **kwargs)
        except BadParameter as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(request.path)

    return explained
