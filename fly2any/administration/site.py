from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.http import HttpResponse
from django.template.response import TemplateResponse

from .deadlines import read_only


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

    def admin_view(self, view, cacheable=False):
        return super().admin_view(read_only(view, self.too_slow), cacheable)

    def too_slow(self, request) -> HttpResponse:
        """Answer for a page that the database did not fill in time."""
        context = {**self.each_context(request), "title": "This takes too long"}
        response = TemplateResponse(request, "admin/too_slow.html", context, status=503)
        return response.render()
