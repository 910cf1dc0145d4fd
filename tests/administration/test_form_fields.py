"""Form fields: people by e-mail address, airports, days and money; and the choice of administrators."""

import re
from datetime import UTC, datetime
from html import unescape

import pytest
from django.urls import reverse

from accounts.models import User, UserPreferences
from ai_consultant.models import Conversation
from tests.administration.conftest import address
from tests.administration.html_form import controls
from travel.models import PriceAlert, SavedSearch

pytestmark = pytest.mark.django_db
ALERT = {
    "user": "ANA@example.com", "origin": "gru", "destination": "LON", "depart_date": "2027-07-01", "return_date": "",
    "target_price": "400", "current_price": "500", "currency": "EUR", "active": "on", "notification_count": "0",
    "last_checked_0": "2026-01-01", "last_checked_1": "00:00:00",
}  # fmt: skip


@pytest.fixture
def ana():
    return User.objects.create(email="ana@example.com", date_of_birth=datetime(1990, 1, 2, 13, 45, tzinfo=UTC))


def errors(response):
    return {name: list(found) for name, found in response.context["adminform"].form.errors.items()}


def test_an_alert_is_added_for_a_person_by_email_and_airports_in_any_case(staff, ana):
    added = staff.post(address(PriceAlert, "add"), ALERT)

    alert = PriceAlert.objects.get()
    assert added.status_code == 302
    assert (alert.user_id, alert.origin, alert.destination, alert.depart_date) == (ana.pk, "GRU", "LON", "2027-07-01")
    by_id = staff.post(address(PriceAlert, "add"), {**ALERT, "user": ana.pk})
    assert (by_id.status_code, PriceAlert.objects.count()) == (302, 2)


def test_the_person_of_a_row_leads_to_the_overview_where_the_form_is_read_only_and_where_it_is_not(member, ana):
    alert = PriceAlert.objects.create(
        user=ana, origin="GRU", destination="LIS", depart_date="2027-07-01", current_price=5, target_price=4
    )
    talk = Conversation.objects.create(user=ana, session_id="s", metadata={})
    urls = [address(PriceAlert, "change", alert.pk), address(Conversation, "change", talk.pk)]
    client = member("superuser")

    pages = [client.get(url).content.decode() for url in urls]
    client = member("Support")
    pages += [client.get(url).content.decode() for url in urls]

    links = [re.findall(rf'<a href="({address(User)}{ana.pk}/[^"]*)">', page) for page in pages]
    assert [{*found} for found in links] == [{address(User, "overview", ana.pk)}] * 4


def test_an_unknown_airport_day_or_person_is_reported_at_the_field(staff, ana):
    User.objects.create(email="Ana@Example.com")
    wrong = {**ALERT, "origin": "GRX1", "depart_date": "tomorrow"}

    several = staff.post(address(PriceAlert, "add"), wrong)
    nobody = staff.post(address(PriceAlert, "add"), {**ALERT, "user": "bob@example.com"})

    assert errors(several) == {
        "user": ["Several users have this address in different spellings. Enter the exact spelling of one of them."],
        "origin": ["“GRX1” is not the IATA code of an airport or a city: enter three letters, such as LIS."],
        "depart_date": ["“tomorrow” is not a date. Enter it as YYYY-MM-DD."],
    }
    assert errors(nobody) == {"user": ["No user has this e-mail address or ID."]}
    assert PriceAlert.objects.count() == 0


def test_an_address_that_is_none_is_refused_in_the_words_of_the_field(staff, ana):
    data = {"email": "ana", "usable_password": "false"}
    pages = [staff.post(url, data) for url in (address(User, "add"), address(User, "change", ana.pk))]

    assert [page.context["adminform"].form.errors["email"] for page in pages] == [["Enter a valid e-mail address."]] * 2


def test_an_address_that_only_looks_alike_is_another_person(staff):
    alike = User.objects.create(email="adm\u0131n@example.com")  # upper() of the dotless i is I.
    PriceAlert.objects.create(
        user=alike, origin="GRU", destination="LIS", depart_date="2027-07-01", current_price=5, target_price=4
    )

    added = staff.post(address(PriceAlert, "add"), {**ALERT, "user": "admin@example.com"})
    listed = staff.get(address(PriceAlert), {"q": "admin@example.com"}).content.decode()

    assert errors(added) == {"user": ["No user has this e-mail address or ID."]}
    assert (alike.email in listed, PriceAlert.objects.count()) == (False, 1)


def test_days_are_date_inputs_unless_only_a_text_input_can_show_the_value(staff, ana):
    usual = {"user": ana, "name": "n", "origin": "GRU", "destination": "Lisbon"}
    one = SavedSearch.objects.create(**usual, depart_date="2027-07-01")
    several = SavedSearch.objects.create(**usual, depart_date="2027-07-01,2027-07-02")

    kinds = []
    for search in (one, several):
        page = staff.get(address(SavedSearch, "change", search.pk))
        kinds += re.findall(r'<input type="(\w+)" name="depart_date"', page.content.decode())
        sent = controls(page, "savedsearch_form")
        assert staff.post(address(SavedSearch, "change", search.pk), {**sent, "name": "m"}).status_code == 302
        search.refresh_from_db()

    assert kinds == ["date", "text"]
    assert (one.depart_date, several.depart_date, several.destination) == ("2027-07-01", "2027-07-01,2027-07-02", "Lisbon")
    assert ">2027-07-01, 2027-07-02<" in staff.get(address(SavedSearch)).content.decode()
    page = staff.get(address(SavedSearch, "change", one.pk)).content.decode()
    assert re.findall(r'<option value="(GRU)">[^<]*Paulo', unescape(page)) == ["GRU"] * 2
    assert re.findall(r'fieldset-heading">(.*?)</h2>', page) == ["Search", "Travellers", "Filters", "Use"]


def test_an_unchanged_date_of_birth_keeps_its_stored_time(staff, ana):
    url = address(User, "change", ana.pk)
    page = staff.get(url)
    sent = controls(page, "user_form")

    staff.post(url, {**sent, "name": "Ana"})
    kept = User.objects.get(pk=ana.pk).date_of_birth
    staff.post(url, {**controls(staff.get(url), "user_form"), "date_of_birth": "1991-03-04"})

    assert sent["date_of_birth"] == ["1990-01-02"] or sent["date_of_birth"] == "1990-01-02"
    assert kept == datetime(1990, 1, 2, 13, 45, tzinfo=UTC)
    assert User.objects.get(pk=ana.pk).date_of_birth == datetime(1991, 3, 4, tzinfo=UTC)
    overview = staff.get(address(User, "overview", ana.pk)).content.decode()
    assert "<dt>Date of birth</dt><dd>1991-03-04</dd>" in overview


def test_groups_come_before_individual_permissions_and_superuser_is_not_a_group(staff, ana):
    page = staff.get(address(User, "change", ana.pk)).content.decode()

    names = re.findall(r'name="(is_staff|groups|is_superuser|user_permissions)"', page)
    assert list(dict.fromkeys(names)) == ["is_staff", "groups", "is_superuser", "user_permissions"]
    assert "Superuser</label>" in page
    assert "The group Administrators sees and changes all data, but cannot grant staff status." in page
    preferences = UserPreferences.objects.create(user=ana)
    text = staff.get(address(UserPreferences, "change", preferences.pk)).content.decode()
    assert re.findall(r"<label>(I[Dd]):</label>", page + text) == ["ID", "ID"]
    assert 'value="ana@example.com"' in text


def test_an_amount_has_two_decimals_or_more_if_it_needs_them(staff, ana):
    usual = {"user": ana, "origin": "GRU", "destination": "LIS", "depart_date": "2027-07-01", "current_price": 700}
    alerts = [PriceAlert.objects.create(**usual, target_price=price) for price in (633, 12.5, 0.125, 1e300)]
    pages = [staff.get(address(PriceAlert, "change", alert.pk)) for alert in alerts]

    shown = [re.findall(r'name="target_price" value="(.*?)"', page.content.decode())[0] for page in pages]
    sent = [controls(page, "pricealert_form") for page in pages]
    saved = [
        staff.post(address(PriceAlert, "change", alert.pk), {**one, "currency": "EUR"}).status_code
        for alert, one in zip(alerts, sent, strict=True)
    ]

    assert shown == ["633.00", "12.50", "0.125", "1e+300"]
    assert saved == [302] * 4
    assert list(PriceAlert.objects.order_by("pk").values_list("target_price", "currency")) == [
        (price, "EUR") for price in (633, 12.5, 0.125, 1e300)
    ]


def test_the_help_of_a_disabled_password_says_what_the_person_can_still_do(staff, ana):
    ana.set_password("a-long-password-1")
    ana.save()
    urls = [address(User, "add"), reverse("admin:auth_user_password_change", args=[ana.pk])]

    pages = [unescape(staff.get(url).content.decode()) for url in urls]

    said = "the person cannot sign in to the admin; they can still sign in to the site with a linked account."
    assert [(said in page, "LDAP" in page) for page in pages] == [(True, False)] * 2
    assert '<ul id="id_unusable_warning"' in pages[1]
