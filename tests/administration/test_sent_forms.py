"""A form that cannot be saved is shown again with the input, and a long text is sent unchanged."""

import re
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Group

from accounts.models import User, UserPreferences
from engagement.models import WishlistItem
from tests.administration.conftest import address
from tests.administration.html_form import controls

pytestmark = pytest.mark.django_db


@pytest.fixture
def ana():
    return User.objects.create(email="ana@example.com")


@pytest.fixture
def staff(client):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    return client


@pytest.fixture
def opened(ana, staff):
    """The form of a user with preferences: its URL, and what a browser sends for the untouched form."""
    UserPreferences.objects.create(id="shown", user=ana, home_airport="GRU")
    url = address(User, "change", ana.pk)
    return url, controls(staff.get(url), "user_form")


def errors_of(page):
    forms = [
        page.context["adminform"].form,
        *(form for inline in page.context["inline_admin_formsets"] for form in inline.formset),
    ]
    return {f"{form.prefix or ''}:{name}": list(errors) for form in forms for name, errors in form.errors.items()}


def saved(ana):
    travellers = UserPreferences.objects.exclude(user__email="staff@example.com")
    return User.objects.values_list("bio").get(pk=ana.pk) + tuple(travellers.values_list("id", "home_airport"))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_user_can_be_saved_although_another_client_deleted_the_preferences(ana, staff, opened, replaced):
    url, sent = opened
    UserPreferences.objects.all().delete()
    if replaced:
        UserPreferences.objects.create(id="theirs", user=ana, home_airport="LIS")

    answer = staff.post(url, {**sent, "bio": "by staff"})

    assert (answer.status_code, saved(ana)) == (302, ("by staff", *([("theirs", "LIS")] if replaced else [])))


def test_a_change_of_deleted_preferences_is_refused_until_it_is_undone(ana, staff, opened):
    url, sent = opened
    UserPreferences.objects.all().delete()

    page = staff.post(url, {**sent, "bio": "by staff", "preferences-0-home_airport": "LIS"})
    refused, kept, again = errors_of(page), saved(ana), controls(page, "user_form")
    assert "Another client deleted this row" in page.content.decode()
    undone = staff.post(url, {**again, "preferences-0-home_airport": "GRU"})

    assert refused == {
        "preferences-0:__all__": [
            "Another client deleted this row after you opened the form, so your changes to it cannot be saved. "
            "Reopen the form, or undo these changes."
        ]
    }
    assert (kept, again["preferences-0-home_airport"]) == ((None,), ["LIS"])
    assert (undone.status_code, saved(ana)) == (302, ("by staff",))


def test_the_id_of_another_users_preferences_is_rejected(ana, staff, opened):
    url, sent = opened
    UserPreferences.objects.create(id="bobs", user=User.objects.create(email="bob@example.com"), home_airport="MAD")

    page = staff.post(url, {**sent, "preferences-0-id": "bobs", "preferences-0-home_airport": "LIS"})

    assert (page.status_code, list(errors_of(page))) == (200, ["preferences-0:__all__"])
    assert set(saved(ana)) == {None, ("shown", "GRU"), ("bobs", "MAD")}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["bio", "name", "gender", "preferences-0-home_airport", "preferences-0-preferred_airlines"])
def test_a_nul_is_removed_with_a_message_and_the_input_is_kept(ana, staff, opened, name):
    url, sent = opened
    entered = "LIS" if name.endswith("airport") else "ab"

    page = staff.post(url, {**sent, "country": "PT", name: f"{entered[0]}\0{entered[1:]}"})
    again = controls(page, "user_form")

    assert errors_of(page) == {
        ":__all__": [
            "A NUL character was removed from this form: PostgreSQL cannot store it. Check what you entered, then save again."
        ]
    }
    assert (page.status_code, again["country"], again[name], saved(ana)) == (200, ["PT"], [entered], (None, ("shown", "GRU")))
    assert staff.post(url, again).status_code == 302


def test_an_ip_address_as_host_is_answered(ana, staff):
    old = staff.get(f"/admin/accounts/user/{ana.pk}/")  # Django's own, for links.
    unknown = [
        staff.get(f"/admin/{path}").status_code for path in ("nope/", "accounts/nope/", f"accounts/user/{ana.pk}/chnage/")
    ]

    assert (old.status_code, old.headers["Location"], unknown) == (302, address(User, "change", ana.pk), [404, 404, 302])


def test_a_nul_in_a_new_row_is_reported_too(ana, staff):
    page = staff.post(address(WishlistItem, "add"), {"user": f"{ana.pk}\0", "flight_data": "{}", "notes": "kept"})

    assert (page.status_code, list(errors_of(page)), WishlistItem.objects.count()) == (200, [":__all__"], 0)
    assert controls(page, "wishlistitem_form")["notes"] == ["kept"]


def test_a_long_non_latin_text_can_be_saved(ana, staff):
    item = WishlistItem.objects.create(user=ana, flight_data={}, notes="漢" * 600_000)
    url = address(WishlistItem, "change", item.pk)
    page = staff.get(url)
    sent = {**controls(page, "wishlistitem_form"), "target_price": "120"}
    form = re.search("<form [^>]*wishlistitem_form[^>]*>", page.content.decode())[0]

    if "multipart/form-data" in form:
        answer = staff.post(url, sent)
    else:
        answer = staff.post(url, urlencode(sent, doseq=True), content_type="application/x-www-form-urlencoded")

    assert answer.status_code == 302
    item.refresh_from_db()
    assert (item.target_price, item.notes == "漢" * 600_000) == (120, True)


def test_an_empty_name_of_a_field_in_the_url_is_ignored(ana, staff):
    group, preferences = Group.objects.create(name="Flight desk"), UserPreferences.objects.create(user=ana)
    rows = (ana, group, preferences)
    pages = [staff.get(f"{address(type(row), page, row.pk)}?_to_field=") for row in rows for page in ("change", "delete")]
    saved = staff.post(
        f"{address(User, 'change', ana.pk)}?_to_field=", {"_to_field": ""}
    )  # Incomplete: the form is shown again.
    deleted = staff.post(f"{address(Group, 'delete', group.pk)}?_to_field=", {"post": "yes"})

    assert [page.status_code for page in pages] == [200] * 6
    assert (saved.status_code, deleted.status_code, Group.objects.filter(pk=group.pk).exists()) == (200, 302, False)
