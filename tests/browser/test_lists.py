"""Every list of the admin in a real Chromium: nothing overflows, is cut without a sign, or wraps."""

from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib import admin
from django.db import connection
from django.db.models import TextField, Value
from django.db.models.functions import Concat
from django.test import Client
from django.urls import reverse

from accounts.models import User
from ai_consultant.models import Conversation
from engagement.models import LoginHistory
from fly2any.administration.models import Access
from fly2any.database.seed import seed
from tests.database.test_dbseed import DAY
from travel.alert_states import alert_state
from travel.models import PriceAlert, PriceHistory

pytestmark = pytest.mark.django_db(transaction=True)
LONG = "a-person-with-a-rather-long-address.and-two-names"
# The faults of a list: cells that are cut without a sign, or that wrap; a table that scrolls without a sign.
FAULTS = """() => {
    const list = document.querySelector('.results'), found = [], style = element => getComputedStyle(element);
    const scrolls = list.scrollWidth > list.clientWidth;
    for (const element of list.querySelectorAll('th, td, th *, td *')) {
        const hides = style(element).overflowX !== 'visible' && style(element).display !== 'inline';
        const said = style(element).textOverflow === 'ellipsis' && element.closest('[title]');
        if (hides && element.scrollWidth > element.clientWidth + 1 && !said) found.push('cut: ' + element.outerHTML);
        if (innerWidth >= 1440 && element.matches('.email') && element.textContent.indexOf('@') < 22) {
            const name = document.createRange();
            name.setStart(element.firstChild, 0);
            name.setEnd(element.firstChild, element.textContent.indexOf('@'));
            const room = element.getBoundingClientRect().right - 14;  // That of the ellipsis.
            if (name.getBoundingClientRect().right > room && element.scrollWidth > element.clientWidth + 1)
                found.push('name before domain is cut: ' + element.outerHTML);
        }
        if (element.matches('time, .number, .cut, .chip') && element.getClientRects().length > 1) found.push('wraps: ' + element.outerHTML);
    }
    for (const row of list.querySelectorAll('tr'))
        if (row.getBoundingClientRect().height > 44) found.push('more than a line: ' + row.outerHTML);
    const first = list.querySelector('tbody tr > :not(.action-checkbox)');
    if (style(first).position !== 'sticky' || style(first).backgroundColor === 'rgba(0, 0, 0, 0)') found.push('first column is not pinned');
    if (style(list.querySelector('thead th')).position !== 'sticky') found.push('header is not pinned');
    if (scrolls && !style(list).backgroundImage.includes('gradient')) found.push('scrolls without a sign');
    if (innerWidth >= 1440 && scrolls) found.push(`does not fit: ${list.scrollWidth} of ${list.clientWidth} px`);
    if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
    for (const number of list.querySelectorAll('td > .number'))
        if (style(number.parentElement).textAlign !== 'right') found.push('not on the right: ' + number.outerHTML);
    return found;
}"""


@pytest.fixture
def page(browser, live_server):
    seed(connection, users=80, seed=1, until=DAY)
    for number, user in enumerate(User.objects.order_by("pk")[:40]):
        User.objects.filter(pk=user.pk).update(email=f"{LONG}{number}@travel.a-rather-long-domain.example", name=LONG)
    Access.objects.create(
        staff_id="s", staff_email=f"{LONG}@example.com", action="opened", table="ai_conversations", person_id="p" * 25
    )
    client = Client()
    client.force_login(User.objects.create_superuser("staff@demo.fly2any.example"))
    context = browser.new_context(base_url=live_server.url)
    context.add_cookies(
        [
            {
                "name": settings.SESSION_COOKIE_NAME,
                "value": client.cookies[settings.SESSION_COOKIE_NAME].value,
                "url": live_server.url,
            }
        ]
    )
    return context.new_page()


@pytest.mark.slow
def test_every_list_fits_and_marks_truncated_values(page):
    models = [model for model in admin.site._registry if model._base_manager.exists()]
    assert len(models) >= 19
    for width in (1440, 1024, 375):
        page.set_viewport_size({"width": width, "height": 900})
        for model in models:
            page.goto(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"))
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate(FAULTS) == [], (model._meta.label, width, scheme)


@pytest.mark.slow
def test_filters_are_a_bar_above_the_list_with_active_ones_as_chips(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/admin/engagement/notification/?type=promotion&created_at__from=2026-04-01&created_at__until=2026-04-20")
    assert page.locator("#changelist-filter").bounding_box()["y"] < page.locator("#result_list").bounding_box()["y"]
    assert page.locator("#filters-open").is_visible() is False
    chips = page.locator(".filter-chips .chip")
    assert [" ".join(text.split()) for text in chips.all_text_contents()] == [
        "Created at: from 2026-04-01 to 2026-04-20 ✕(remove)",
        "Type: Promotion ✕(remove)",
    ]
    with page.expect_navigation():
        chips.first.click()
    assert page.url.endswith("/admin/engagement/notification/?type=promotion")

    page.set_viewport_size({"width": 1000, "height": 900})
    assert page.locator("#changelist-filter").is_visible() is False
    page.locator("label[for=filters-open]").click()
    assert page.locator("#changelist-filter").is_visible() is True


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 1024, 375])
def test_the_tools_of_an_object_do_not_cover_its_name(page, width):
    talk = Conversation.objects.latest("pk")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(reverse("admin:ai_consultant_conversation_change", args=[talk.pk]))

    name, tools = (page.locator(place).bounding_box() for place in ("#content > h2", ".object-tools"))

    assert name["y"] + name["height"] <= tools["y"]


@pytest.mark.slow
def test_the_tools_of_an_object_push_no_card_aside(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(reverse("admin:travel_pricealert_change", args=[PriceAlert.objects.latest("pk").pk]))

    tools = page.locator(".object-tools").bounding_box()
    cards = [card.bounding_box() for card in page.locator("fieldset.module").all()]

    assert len({(card["x"], card["width"]) for card in cards}) == 1
    assert tools["y"] + tools["height"] <= cards[0]["y"]


@pytest.mark.slow
def test_a_list_that_fits_is_no_region_of_its_own_and_its_header_and_page_links_stay_in_place(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/admin/travel/pricealert/")
    assert page.locator("#result_list tbody tr").count() == 50
    assert page.evaluate("getComputedStyle(document.querySelector('.results')).overflow") == "visible"
    page.evaluate("scrollTo(0, 600)")

    first, pages = (page.locator(place).first.bounding_box() for place in ("#result_list thead th", ".paginator nav"))

    assert page.evaluate("scrollY") == 600
    assert abs(first["y"]) <= 1
    assert 800 < pages["y"] < pages["y"] + pages["height"] <= 900


@pytest.mark.slow
def test_the_header_of_every_page_leaves_room_on_a_phone(page):
    page.set_viewport_size({"width": 375, "height": 812})
    page.goto("/admin/accounts/user/")
    assert page.locator("#header").bounding_box()["height"] <= 140
    assert page.locator("#searchbar").bounding_box()["height"] >= 30
    page.click(".phone-nav summary")
    menu = page.locator(".phone-nav nav").bounding_box()
    assert (menu["width"] > 300, page.evaluate("document.documentElement.scrollWidth")) == (True, 375)


@pytest.mark.slow
def test_the_header_of_a_long_list_stays_in_place(page):
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto("/admin/travel/pricealert/")
    page.evaluate("document.querySelector('.results').scrollTop = 600")

    region, header = (page.locator(place).bounding_box() for place in (".results", "#result_list thead"))
    first = page.locator("#result_list thead th").nth(1).bounding_box()

    assert header["y"] < region["y"]
    assert first["y"] - region["y"] <= 1


@pytest.mark.slow
def test_results_of_the_search_fit(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    alert = PriceAlert.objects.select_related("user").latest("pk")
    for term in (f"{alert.origin}-{alert.destination}", alert.user.name, LONG):
        page.goto(f"/admin/search/?q={term}")
        sizes = page.evaluate("[...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.clientWidth)")
        assert sizes == [0] * len(sizes) != [], term


# Whether the pinned column of a region takes at most half of it, and whether the next cell is seen without scrolling.
PINNED = """() => [...document.querySelectorAll('.scroll')].map(region => {
    const [first, second] = region.querySelector('tbody tr').children, edge = region.getBoundingClientRect();
    const pinned = first.getBoundingClientRect(), next = second.getBoundingClientRect();
    return [pinned.width > 60 && pinned.width <= edge.width / 2, next.left >= pinned.right - 1 && next.left + 20 <= edge.right];
})"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 320])
def test_the_pinned_column_leaves_room_for_the_others_on_a_phone(page, width):
    page.set_viewport_size({"width": width, "height": 812})
    User.objects.update(email=Concat(Value(LONG), "id", Value("@demo.fly2any.example"), output_field=TextField()))
    alert = PriceAlert.objects.select_related("user").latest("pk")
    at = LoginHistory.objects.exclude(ip_address=None).latest("timestamp").ip_address
    route = f"origin={alert.origin}&destination={alert.destination}&day={alert.depart_date}"
    urls = [f"/admin/search/?q={term}" for term in (LONG, f"{alert.origin}-{alert.destination}", at)]
    for url in (*urls, f"{reverse('admin:travel_pricehistory_route')}?{route}"):
        page.goto(url)
        found = page.evaluate(PINNED)
        assert found == [[True, True]] * len(found) != [], url


@pytest.mark.slow
def test_the_navigation_collapses_and_stays_collapsed(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/admin/travel/pricealert/")
    wide = page.locator(".results").bounding_box()["width"]
    page.click("#toggle-nav-sidebar")
    page.wait_for_function("width => document.querySelector('.results').clientWidth > width + 150", arg=wide)
    page.goto("/admin/accounts/user/")

    assert page.locator("#nav-sidebar").is_visible() is False


# The faults of a narrow page: text that is cut at the edge of its card, words broken within, regions that scroll without a sign.
NARROW_FAULTS = """() => {
    const found = [], texts = document.createTreeWalker(document.querySelector('#content-main'), NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode());) {
        const card = text.parentElement.closest('.module'), scrolls = text.parentElement.closest('.panel, .panel-body, .scroll');
        for (const word of text.data.matchAll(/[^\\s]+/g)) {
            const range = document.createRange();
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            const places = [...range.getClientRects()];
            const right = card && card.getBoundingClientRect().right;
            if (card && !scrolls && places.some(place => place.right > right)) found.push('cut: ' + word[0]);
            if (text.parentElement.closest('table') && /^[a-z]+$/i.test(word[0]) && places.length > 1) found.push('broken: ' + word[0]);
        }
    }
    for (const region of document.querySelectorAll('.module, .panel, .panel-body, .scroll, .groups .module'))
        if (region.scrollWidth > region.clientWidth + 1 && !getComputedStyle(region).backgroundImage.includes('gradient'))
            found.push(`scrolls without a sign: ${region.textContent.trim().slice(0, 40)}`);
    return found;
}"""


@pytest.mark.slow
def test_nothing_is_cut_or_broken_on_the_pages_of_a_narrow_window(page):
    alert = PriceAlert.objects.latest("pk")
    User.objects.filter(pk=alert.user_id).update(email=f"{LONG}@demo.fly2any.example")
    alert = alert.user.price_alerts.latest("created_at", "pk")
    urls = [
        reverse("admin:index"),
        reverse("admin:travel_pricealert_change", args=[alert.pk]),
        reverse("admin:accounts_user_overview", args=[alert.user_id]),
        reverse("admin:accounts_user_change", args=[alert.user_id]),
    ]
    for width in (375, 320):
        page.set_viewport_size({"width": width, "height": 900})
        for url in urls:
            page.goto(url)
            assert page.evaluate(NARROW_FAULTS) == [], (width, url)

    page.set_viewport_size({"width": 375, "height": 900})
    page.goto(urls[2])
    alerts = page.locator(".panel", has=page.locator("h2", has_text="Price alerts"))
    state = alerts.locator("tbody td").first
    assert state.text_content() == alert_state(alert)
    assert state.bounding_box()["x"] + state.bounding_box()["width"] <= 375
    before = alerts.locator("tbody th").first.bounding_box()["x"]
    alerts.locator(".scroll").evaluate("region => region.scrollLeft = 300")
    assert alerts.locator("tbody th").first.bounding_box()["x"] == before


def selected(page, place):
    """Return what a copy of an element has as its text."""
    return page.evaluate(
        "place => { getSelection().selectAllChildren(document.querySelector(place)); return getSelection().toString() }", place
    )


@pytest.mark.slow
def test_an_address_is_copied_and_found_as_one_text(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    email = PriceAlert.objects.latest("pk").user.email
    for url, place in (("/admin/travel/pricealert/", "tbody .email"), (f"/admin/search/?q={email}", ".scroll tbody .email")):
        page.goto(url)
        shown = page.locator(place).first.get_attribute("title")
        assert selected(page, place) == shown
        assert page.evaluate("text => { getSelection().empty(); return find(text) }", shown) is True


@pytest.mark.slow
def test_the_overview_breaks_no_address_and_its_earlier_events_have_the_whole_width(page, monkeypatch):
    monkeypatch.setattr("fly2any.administration.overview.MOST_EVENTS", 5)
    monkeypatch.setattr("fly2any.administration.overview_page.MOST_EVENTS", 5)
    alert = PriceAlert.objects.latest("pk")
    User.objects.filter(pk=alert.user_id).update(email=f"{LONG}@example.com")
    url = reverse("admin:accounts_user_overview", args=[alert.user_id])
    for width in (1440, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(url)
        assert page.locator(".facts dd").first.bounding_box()["height"] < 30, width
    page.click("text=Earlier")
    timeline, whole = (page.locator(place).bounding_box() for place in (".timeline", "#content-main"))
    assert timeline["width"] > 0.9 * whole["width"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1024, 375])
def test_the_pinned_column_has_an_edge_where_a_table_scrolls_beneath_it(page, width):
    page.set_viewport_size({"width": width, "height": 812})
    alert = PriceAlert.objects.latest("pk")
    route = f"origin={alert.origin}&destination={alert.destination}&day={alert.depart_date}"
    pinned = {
        f"{reverse('admin:travel_pricehistory_route')}?{route}": ".scroll tbody tr > :first-child",
        "/admin/travel/pricealert/": "#result_list tbody .action-checkbox + *",
        "/admin/engagement/loginhistory/": "#result_list tbody tr > :first-child:not(.action-checkbox), .action-checkbox + *",
    }
    for url, place in pinned.items():
        page.goto(url)
        style = page.locator(place).first.evaluate(
            "cell => [getComputedStyle(cell).boxShadow, getComputedStyle(cell).borderCollapse]"
        )
        assert (style[0] != "none", style[1]) == (True, "separate"), url  # With collapsed borders the shadow is not painted.


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 375])
def test_no_label_covers_the_line_of_a_chart(page, width):
    page.set_viewport_size({"width": width, "height": 812})
    alert = PriceAlert.objects.latest("pk")
    at = alert.created_at
    usual = {"origin": alert.origin, "destination": alert.destination, "depart_date": alert.depart_date, "provider": "mock"}
    for days in range(9):
        PriceHistory.objects.create(**usual, price=400 + days, currency=alert.currency, timestamp=at + timedelta(days=days))
    route = f"origin={alert.origin}&destination={alert.destination}&day={alert.depart_date}"
    page.goto(f"{reverse('admin:travel_pricehistory_route')}?{route}&alert={alert.pk}")

    chart, legend = (page.locator(place).bounding_box() for place in ("svg.chart", ".legend"))

    assert legend["y"] >= chart["y"] + chart["height"]
    assert page.locator(".legend span").count() == 2
    texts = page.locator("svg.chart text").all_text_contents()
    assert [text for text in texts if text.startswith(("Lowest", "Target"))] == []
