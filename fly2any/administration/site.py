from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm


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
