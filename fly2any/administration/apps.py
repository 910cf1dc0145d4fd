from django.apps import AppConfig
from django.apps import apps as registry
from django.contrib.admin import apps


class AdministrationConfig(AppConfig):
    """The templates and static files of our layer, before those of Django's admin."""

    name = "fly2any.administration"
    verbose_name = "Administration"

    def ready(self):
        registry.get_app_config("otp_totp").verbose_name = "Second factor: apps"
        registry.get_app_config("django_otp_webauthn").verbose_name = "Second factor: passkeys"


class AdminConfig(apps.AdminConfig):
    default_site = "fly2any.administration.site.AdminSite"
