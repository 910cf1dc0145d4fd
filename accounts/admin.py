from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.utils.html import format_html

from fly2any.administration.options import ModelAdmin, OfUser, OpenModelForm, ReadOnlyModelAdmin, SchemaForms, is_set

from .models import Account, Session, User, UserPreferences, VerificationToken


class PreferencesInline(SchemaForms, admin.StackedInline):
    model = UserPreferences
    can_delete = False
    classes = ["collapse"]


@admin.register(User)
class UserAdmin(ModelAdmin, DjangoUserAdmin):
    form = OpenModelForm
    add_form = AdminUserCreationForm
    list_display = ["email", "name", "country", "has_password", "is_staff", "is_active", "created_at", "last_login"]
    list_filter = ["is_staff", "is_superuser", "is_active"]
    search_fields = ["id__exact", "email__startswith", "name__startswith"]
    search_help_text = "An id, or the beginning of an e-mail address or a name."
    ordering = ["email"]
    long_texts = ("bio",)
    secrets = ("password",)
    readonly_fields = ["id", "password_state", "created_at", "updated_at", "last_login"]
    filter_horizontal = ["groups", "user_permissions"]
    inlines = [PreferencesInline]
    fieldsets = [
        (None, {"fields": ["id", "email", "email_verified", "name", "first_name", "last_name", "password_state"]}),
        (
            "Profile",
            {
                "fields": [
                    "phone",
                    "date_of_birth",
                    "gender",
                    "country",
                    "timezone",
                    "bio",
                    "image",
                    "avatar_url",
                    "profile_completed",
                ]
            },
        ),
        ("Staff", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"], "classes": ["collapse"]}),
        ("Times", {"fields": ["created_at", "updated_at", "last_login"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "usable_password", "password1", "password2"]})]
    has_password = is_set("password")

    @admin.display(description="password")
    def password_state(self, user):
        return format_html(
            '{} <a href="../password/">Set a password</a>', "Set." if user.password else "None: signs in by OAuth only."
        )

    def get_inlines(self, request, obj):
        return super().get_inlines(request, obj) if obj else []


@admin.register(Account)
class AccountAdmin(OfUser, ReadOnlyModelAdmin):
    list_display = ["provider", "provider_account_id", "user_link", "type", "scope"]
    search_fields = [*OfUser.search_fields, "provider_account_id__exact"]
    search_help_text = "An id, the user's e-mail address, or the account at the provider."
    ordering = ["pk"]
    secrets = ("refresh_token", "access_token", "id_token", "session_state")


@admin.register(Session)
class SessionAdmin(OfUser, ReadOnlyModelAdmin):
    list_display = ["id", "user_link", "expires"]
    ordering = ["pk"]
    secrets = ("session_token",)


@admin.register(VerificationToken)
class VerificationTokenAdmin(ReadOnlyModelAdmin):
    list_display = ["identifier", "expires"]
    search_fields = ["id__exact", "identifier__startswith"]
    search_help_text = "An id, or the beginning of an e-mail address."
    ordering = ["pk"]
    secrets = ("token",)


@admin.register(UserPreferences)
class UserPreferencesAdmin(OfUser, ModelAdmin):
    list_display = ["user_link", "preferred_cabin_class", "home_airport", "currency", "language", "theme", "newsletter_opt_in"]
    list_filter = ["currency", "language", "theme", "newsletter_opt_in"]
    ordering = ["pk"]
    readonly_fields = ["id", "created_at", "updated_at"]
