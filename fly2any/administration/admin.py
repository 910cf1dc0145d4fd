from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.models import Group

from .models import Access
from .options import ModelAdmin, ReadOnlyModelAdmin
from .search import Key

admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(ModelAdmin, DjangoGroupAdmin):  # type: ignore[misc]
    list_display = ["name"]
    search = (Key("name"),)
    search_help_text = "A group's name."
    ordering = ["name"]
    filter_horizontal = []


@admin.register(Access)
class AccessAdmin(ReadOnlyModelAdmin):
    list_display = ["at", "staff_email", "action", "table", "row_id", "person_id", "query"]
    list_filter = ["at", "action"]
    search = (Key("person_id"), Key("staff_id"))
    search_help_text = "The id of a person, or of one of the staff."
    ordering = ["-at"]

    def has_delete_permission(self, request, obj=None):
        return False
