from django.apps import AppConfig
from django.apps import apps as registry
from django.contrib.admin import apps, autodiscover
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks

from .lazy_packages import defer

defer("webauthn", "webauthn.helpers")  # Before django-otp-webauthn, whose app comes later, is imported.


class AdministrationConfig(AppConfig):
    """The templates and static files of our layer, before those of Django's admin."""

    name = "fly2any.administration"
    verbose_name = "Administration"

    def ready(self):
        from .package_facts import declare  # Imported here, because it imports models.

        declare()
        registry.get_app_config("otp_static").verbose_name = "Second factor: recovery codes"
        registry.get_app_config("otp_totp").verbose_name = "Second factor: apps"
        registry.get_app_config("django_otp_webauthn").verbose_name = "Second factor: passkeys"


class AdminConfig(apps.SimpleAdminConfig):
    """The admin, whose pages are imported only by the URLconf and by their check, not by each command."""

    default_site = "fly2any.administration.site.AdminSite"

    def ready(self):
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(check_pages, checks.Tags.admin)


def check_pages(app_configs, **options):
    """Check the ModelAdmins of all apps."""
    autodiscover()
    return check_admin_app(app_configs, **options)
