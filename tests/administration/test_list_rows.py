"""The rows of a list equal those of Django's admin, whatever a ModelAdmin's columns return."""

from datetime import UTC, date, datetime

import pytest
from django.contrib import admin
from django.contrib.admin.templatetags.admin_list import results
from django.utils.html import format_html

from accounts.models import User
from fly2any.administration.list_rows import rows_of

pytestmark = pytest.mark.django_db


def djangos_rows(cl):
    return "".join(f"<tr>{''.join(items)}</tr>" for items in results(cl))


def missing(row):
    raise User.DoesNotExist


@admin.display(empty_value="nobody")
def nothing(row):
    return None


@admin.display(boolean=True)
def is_long(row):
    return len(row.email) > 10


RETURNED = {
    "safe": lambda row: format_html("<b>{}</b>", row.email),
    "unsafe": lambda row: "<script>",
    "blank": lambda row: " \t",
    "number": lambda row: 1234.5,
    "array": lambda row: ["a", "<b>"],
    "day": lambda row: date(2026, 5, 1),
    "moment": lambda row: datetime(2026, 5, 1, tzinfo=UTC),
}
for called, function in RETURNED.items():
    function.__name__ = called


class Columns(admin.ModelAdmin):
    list_display = [
        *RETURNED.values(),
        missing,
        nothing,
        is_long,
        "of_admin",
        "email",
        "is_staff",
        "last_login",
        "has_usable_password",
    ]
    list_display_links: list | tuple | None = ()
    empty_value_display = "<none>"

    def of_admin(self, row):
        return row.email


@pytest.mark.parametrize("links", [(), (RETURNED["unsafe"], "email", "of_admin"), (nothing, is_long), (missing,), None])
@pytest.mark.parametrize("query", ["", "?_popup=1", "?is_staff__exact=0", "?_popup=1&_to_field=id"])
def test_a_cell_equals_djangos_whatever_its_column_returns_and_links_to(links, query, rf, monkeypatch):
    monkeypatch.setattr(Columns, "list_display_links", links)
    staff = User.objects.create_superuser("<i>@example.com")
    User.objects.create(email="other@example.com")
    request = rf.get(f"/admin/accounts/user/{query}")
    request.user = staff
    stock = Columns(User, admin.site)
    stock.list_filter = ["is_staff"]
    cl = stock.get_changelist_instance(request)
    cl.formset = None
    assert len(cl.result_list) == (1 if "is_staff" in query else 2)

    assert rows_of(cl) == djangos_rows(cl)
