from django.apps import AppConfig
from django.contrib.admin import apps


class AdministrationConfig(AppConfig):
    """The templates and static files of our layer, before those of Django's admin."""

    name = "fly2any.administration"
    verbose_name = "Administration"


class AdminConfig(apps.AdminConfig):
    default_site = "fly2any.administration.site.AdminSite"
