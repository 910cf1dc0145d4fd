from contextlib import nullcontext

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminPasswordChangeForm, AdminUserCreationForm
from django.db import connection
from django.urls import reverse

from fly2any.administration import formats, permissions
from fly2any.administration.admin_sessions import admin_sessions
from fly2any.administration.forms import OpenModelForm, PasswordFormMixin, SchemaForms
from fly2any.administration.options import ModelAdmin, ReadOnlyModelAdmin, UserRowsMixin
from fly2any.administration.overview_actions import Action, Step
from fly2any.administration.person_page import PersonMixin
from fly2any.administration.saving import SavedInline, remove_rows
from fly2any.administration.search import Key, KeyWithin, PersonNamed
from fly2any.administration.staff import keep_an_administrator, remove_password

from .actions import deactivate, reactivate
from .models import Account, Session, User, UserPreferences, VerificationToken

KEPT = (
    "The history of the rows that {email} changed here. Clear “Active”, “Staff” and “Superuser” instead; "
    "after that, manage.py dbperson erase removes the person with this history."
)

REMOVED = (
    "The password of {email} was removed, because others may have set it before this person became staff. "
    "Set a new one, and use “Sign out everywhere” to end the stored sessions."
)
STAFF_HELP = {
    "is_staff": "May sign in to the admin, with the permissions of their groups.",
    "groups": "The roles of staff. The group Administrators sees and changes all data, but cannot grant staff status.",
    "is_superuser": "May do everything without a group, including granting staff status and changing groups: the role “administrator” of dbstaff.",
}
NOT_THE_SITE = "The site ignores “Active”, which decides only whether the person can use the admin."
IF_DISABLED = "If disabled, the person cannot sign in to the admin; they can still sign in to the site with a linked account."
NONE_SET = "None: cannot sign in with a password."
COOKIE = (
    "A browser may stay signed in to the site until its cookie expires, 30 days after its last use unless the site sets another time."
    " Nothing in this admin signs the browser out, not even Deactivate. If others use this account, ask an administrator to set a new password,"
    " and the developers of the site to change the key of its cookies, which signs everyone out."
)
SIGN_OUT = Action(  # Its steps are here and, for signed-in devices, in engagement/admin.py.
    "sign-out",
    "Sign out everywhere",
    "Sign out of",
    "signed out",
    COOKIE,
    nothing=f"There is nothing to sign out of: no session or signed-in device that you can revoke is stored. {COOKIE}",
)
DEACTIVATE = Action("deactivate", "Deactivate", "Deactivate", "deactivated", NOT_THE_SITE)
REACTIVATE = Action("reactivate", "Reactivate", "Reactivate", "reactivated", NOT_THE_SITE)
UNLINK = Action(
    "unlink",
    "Unlink an account",
    "Unlink",
    "unlinked",
    "A person with no password and no other linked account can no longer sign in to the site.",
    chooses=True,
)
CLEAR_TOKENS = Action(
    "clear-tokens", "Clear verification tokens", "Delete", "deleted", "Links in e-mails sent so far stop working."
)


class PreferencesInline(SavedInline, SchemaForms, admin.StackedInline):
    model = UserPreferences
    verbose_name = "preferences"
    can_delete = False
    classes = ["collapse"]
    airports = ("home_airport",)


class AddForm(AdminUserCreationForm):
    usable_password = AdminUserCreationForm.create_usable_password_field(IF_DISABLED)


class PasswordForm(PasswordFormMixin, AdminPasswordChangeForm):
    # The id is that of Django's script, which shows the warning.
    usable_password_help_text = (
        f'{IF_DISABLED}<ul id="id_unusable_warning" class="messagelist">'
        '<li class="warning">If disabled, the current password of this person is lost.</li></ul>'
    )


@admin.register(User)
class UserAdmin(PersonMixin, ModelAdmin, DjangoUserAdmin):
    form = OpenModelForm
    add_form = AddForm
    change_password_form = PasswordForm
    list_display = ["email", "name", "country", "is_staff", "is_active", "created_at", "last_login"]
    list_filter = ["is_staff", "is_active", "created_at"]
    search = (Key("id"), Key("email"), PersonNamed())
    search_help_text = (
        "An ID, an e-mail address, or parts of a name or an e-mail address, at least one with three consecutive letters or digits;"
        " accents and order do not matter."
    )
    ordering = ["-created_at"]
    overview = (
        "email",
        "name",
        "phone",
        "country",
        "timezone",
        "date_of_birth",
        "email_verified",
        "password",
        "is_active",
        "created_at",
        "last_login",
    )
    days = ("date_of_birth",)
    shown = {"date_of_birth": formats.day}
    readonly_fields = ["id", "password_state", "created_at", "updated_at", "last_login"]
    filter_horizontal = []
    inlines = [PreferencesInline]
    overview_steps = (
        Step(
            DEACTIVATE,
            User,
            "change",
            lambda request, user: User.objects.filter(pk=user.pk, is_active=True),
            deactivate,
            allows=lambda request, user: user.pk != request.user.pk,
            remain=True,
        ),
        Step(
            REACTIVATE,
            User,
            "change",
            lambda request, user: User.objects.filter(pk=user.pk, is_active=False),
            reactivate,
            remain=True,
        ),
    )
    fieldsets = [
        ("Person", {"fields": ["email", "email_verified", "name", ("first_name", "last_name"), "password_state"]}),
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
        ("Staff", {"fields": ["is_active", "is_staff", "groups", "is_superuser"], "classes": ["collapse"]}),
        (
            "Individual permissions",
            {
                "fields": ["user_permissions"],
                "classes": ["collapse"],
                "description": "In addition to those of the groups. Prefer a group, so that permissions are managed in one place.",
            },
        ),
        ("Record", {"fields": ["created_at", "updated_at", "last_login", "id"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "usable_password", "password1", "password2"]})]

    def save_model(self, request, obj, form, change):
        """Save the person, and remove the password of one who becomes staff: until then others may have set it."""
        super().save_model(request, obj, form, change)
        if obj.is_staff and "is_staff" in form.changed_data and obj.has_usable_password():
            remove_password(connection, obj)
            self.message_user(request, REMOVED.format(email=obj.email), messages.WARNING)

    def title_of(self, row):
        return formats.beginning(row.name or str(row))

    def guard(self, request):
        """Keep an administrator, except on pages that change no one's access: the guard waits for the rows of all administrators."""
        page = request.resolver_match
        changes_access = not page.url_name.endswith("_note") and page.kwargs.get("name", DEACTIVATE.name) == DEACTIVATE.name
        return keep_an_administrator(connection) if changes_access else nullcontext()

    def user_change_password(self, request, id, form_url=""):
        """Show Django's page; a refusal, such as to disable the last administrator's password, is a message."""
        return self.redirect_on_refusal(request, super().user_change_password, id, form_url)

    def formfield_for_dbfield(self, db_field, request, **kwargs):
        if db_field.name in STAFF_HELP:
            kwargs["help_text"] = STAFF_HELP[db_field.name]
        if db_field.name == "email":
            kwargs["error_messages"] = {"invalid": "Enter a valid e-mail address."}
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field, request, **kwargs):
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if field and db_field.name == "user_permissions":
            field.queryset = field.queryset.select_related(
                "content_type"
            )  # Their names include the content type: without the join, one query each.
            field.label_from_instance = permissions.label
        return field

    def overview_actions(self, request, row, actions):
        return [*super().overview_actions(request, row, actions), *self.person_actions(request, row)]

    @admin.display(description="password")
    def password_state(self, user):
        return "Set." if user.password else NONE_SET

    def show(self, name, row, *, in_list=False):
        return NONE_SET if name == "password" and not row.password else super().show(name, row, in_list=in_list)

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        if obj and self.has_change_permission(request, obj):
            context["password_url"] = reverse("admin:auth_user_password_change", args=[quote(obj.pk)])
        return super().render_change_form(request, context, add, change, form_url, obj)

    def get_readonly_fields(self, request, obj=None):
        """Only an administrator appoints staff or grants permissions, so staff cannot promote themselves."""
        power = () if request.user.is_superuser else ("is_staff", "is_superuser", "groups", "user_permissions")
        return [*super().get_readonly_fields(request, obj), *power]

    def has_change_permission(self, request, obj=None):
        return super().has_change_permission(request, obj) and _is_below(obj, request.user)

    def has_delete_permission(self, request, obj=None):
        return super().has_delete_permission(request, obj) and _is_below(obj, request.user)

    def get_deleted_objects(self, objs, request):
        """Protect staff who changed rows, because deleting them would delete the history of these rows."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        changed = LogEntry.objects.filter(user__in=[user.pk for user in objs]).order_by("user__email")
        kept = [KEPT.format(email=email) for email in changed.values_list("user__email", flat=True).distinct()]
        return to_delete, counts, perms_needed, [*protected, *kept]

    def get_inlines(self, request, obj):
        return super().get_inlines(request, obj) if obj else []


def _is_below(user, staff):
    """Return whether `staff` may change `user`; only administrators may change staff, because a changed password would grant their permissions."""
    return user is None or user == staff or staff.is_superuser or not (user.is_staff or user.is_superuser)


def sessions_of_admin(request, user):
    """Return the admin sessions of a member of the staff, except that of this browser."""
    return admin_sessions(request, {user.pk} if user.is_staff else ())


@admin.register(Account)
class AccountAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    list_display = ["provider", "provider_account_id", "user_link", "type", "scope"]
    list_filter = ["provider"]
    deletion = ("Unlink", "unlinked")
    search = (KeyWithin("provider", "provider_account_id"), *UserRowsMixin.search)
    search_help_text = "An ID, the user's name, e-mail address or ID, or the ID of the account at the provider."
    ordering = ["-pk"]
    shown = {"expires_at": formats.epoch(unit=1)}
    overview_steps = (
        Step(
            UNLINK,
            User,
            "delete",
            lambda request, user: Account.objects.of_user(user.pk).order_by("pk"),
            remove_rows,
            allows=lambda request, user: _is_below(user, request.user),
        ),
    )

    def has_delete_permission(self, request, obj=None):
        return super().has_delete_permission(request, obj) and _is_below(obj and obj.user, request.user)


@admin.register(Session)
class SessionAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    list_display = ["id", "user_link", "expires"]
    deletion = ("Revoke", "revoked")
    ordering = ["-pk"]
    overview_steps = (
        Step(SIGN_OUT, User, "delete", lambda request, user: Session.objects.of_user(user.pk), remove_rows),
        Step(
            SIGN_OUT,
            User,
            "delete",
            sessions_of_admin,
            remove_rows,
            nouns=("admin session", "admin sessions"),
            allows=lambda request, user: _is_below(user, request.user),
        ),
    )


@admin.register(VerificationToken)
class VerificationTokenAdmin(ReadOnlyModelAdmin):
    list_display = ["identifier", "expires"]
    search = (Key("id"), Key("identifier"))
    search_help_text = "An ID, or a whole e-mail address."
    ordering = ["identifier"]
    overview_steps = (
        Step(
            CLEAR_TOKENS,
            User,
            "delete",
            lambda request, user: VerificationToken.objects.filter(identifier=user.email),
            remove_rows,
        ),
    )


@admin.register(UserPreferences)
class UserPreferencesAdmin(UserRowsMixin, ModelAdmin):
    list_display = [
        "id",
        "user_link",
        "preferred_cabin_class",
        "home_airport",
        "currency",
        "language",
        "theme",
        "newsletter_opt_in",
    ]
    list_filter = ["currency", "language", "theme", "newsletter_opt_in"]
    in_panels = ("language", "user_link", "currency", "home_airport", "preferred_cabin_class", "newsletter_opt_in")
    ordering = ["-pk"]
    airports = ("home_airport",)
    fieldsets = [
        ("Travel", {"fields": ["user", "home_airport", "preferred_cabin_class", "preferred_airlines"]}),
        ("Site", {"fields": [("currency", "language", "theme")]}),
        ("Messages", {"fields": ["email_notifications", "price_alert_emails", "deal_alerts", "newsletter_opt_in"]}),
        ("Record", {"fields": ["created_at", "updated_at", "id"]}),
    ]
    readonly_fields = ["id", "created_at", "updated_at"]

    def happened(self, preferences):
        return "Preferences created"
