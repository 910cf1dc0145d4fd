from django.contrib.admin import apps


class AdminConfig(apps.AdminConfig):
    default_site = "fly2any.administration.site.AdminSite"
