from django.contrib import admin


class AdminSite(admin.AdminSite):
    site_header = "Fly2Any database"
    site_title = "Fly2Any"
    index_title = "Data"
