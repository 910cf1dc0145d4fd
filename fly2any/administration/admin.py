from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django_otp.plugins.otp_static.admin import StaticDevice
from django_otp.plugins.otp_totp.admin import TOTPDevice
from django_otp_webauthn.models import WebAuthnCredential

from . import permissions
from .accesses import certificate_page
from .admin_sessions import admin_sessions
from .columns import LINK
from .models import Access, Note
from .options import ModelAdmin, ReadOnlyModelAdmin, link_to
from .roles import GROUPS
from .saving import remove_rows
from .search import Key, Related

for model in (Group, StaticDevice, TOTPDevice):
    admin.site.unregister(model)


@admin.register(Group)
class GroupAdmin(ModelAdmin, DjangoGroupAdmin):
    description = "A role of staff, with its permissions."
    list_display = ["name"]
    search = (Key("name"),)
    search_help_text = "A group's name."
    ordering = ["name"]
    filter_horizontal = []

    def formfield_for_manytomany(self, db_field, request=None, **kwargs):
        field = super().formfield_for_manytomany(db_field, request=request, **kwargs)
        if field and db_field.name == "permissions":
            field.label_from_instance = permissions.label
        return field

    def get_readonly_fields(self, request, obj=None):
        """The groups of the roles keep their names, by which migrations and `dbstaff` find them."""
        return [*super().get_readonly_fields(request, obj), *(["name"] if obj and obj.name in GROUPS else [])]


@admin.register(Access)
class AccessAdmin(ReadOnlyModelAdmin):
    list_display = ["at", "staff_email", "action", "table", "row_id", "person_id", "query"]
    list_filter = ["at", "action"]
    search = (Key("person_id"), Key("staff_id"))
    search_help_text = "The ID of a person or of a staff member."
    shown = {"certificate": lambda certificate, access: LINK(certificate_page(access), "Certificate of erasure")}
    ordering = ["-at"]

    def has_delete_permission(self, request, obj=None):
        return False


@admin.register(Note)
class NoteAdmin(ReadOnlyModelAdmin):
    """Notes are added on the overview of the person."""

    person_link = link_to("person")
    list_display = ["at", "person_link", "staff_id", "text"]
    list_filter = ["at"]
    list_select_related = ["person"]
    search = (Related("person", "email", is_address=True), Key("person"), Key("id"))
    search_help_text = "The e-mail address or ID of a person, or the ID of a note."
    ordering = ["-at"]
    in_overviews = False

    def has_delete_permission(self, request, obj=None):
        return False


class DeviceAdmin(ReadOnlyModelAdmin):
    """The second factors of the staff: to remove one that is lost."""

    user_link = link_to("user")
    list_display = ["id", "user_link", "name", "confirmed", "created_at", "last_used_at"]
    search = (Related("user", "email"), Key("user"))
    search_help_text = "The e-mail address or ID of a staff member."
    ordering = ["-pk"]
    list_select_related = ["user"]
    description = "A second factor that a staff member has set up."
    deletion = ("Remove", "removed")
    of_staff = True

    def has_delete_permission(self, request, obj=None):
        return request.user.is_superuser

    def delete_queryset(self, request, queryset):
        """Also remove the recovery codes of a user who has no device left: both are then set up again.

        The users are signed out, because a lost device may be the browser that is still signed in, and whoever has it could set up
        a factor of their own.
        """
        people = set(queryset.values_list("user", flat=True))
        with transaction.atomic():
            super().delete_queryset(request, queryset)
            TOTPDevice.objects.filter(user__in=people, confirmed=False).delete()
            left = StaticDevice.objects.filter(user__in=people)
            left.exclude(user__totpdevice__confirmed=True).exclude(user__webauthncredential__confirmed=True).delete()
            signed_out = remove_rows(admin_sessions(request, people))
        if signed_out:
            self.message_user(request, f"The {'user was' if len(people) == 1 else 'users were'} signed out of the admin.")

    def delete_model(self, request, obj):
        self.delete_queryset(request, self.model._default_manager.filter(pk=obj.pk))


@admin.register(TOTPDevice)
class TOTPDeviceAdmin(DeviceAdmin):
    pass


@admin.register(WebAuthnCredential)
class WebAuthnCredentialAdmin(DeviceAdmin):
    exclude = ["credential_id", "public_key"]
