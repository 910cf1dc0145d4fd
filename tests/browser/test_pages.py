"""Every page of the admin in a real Chromium, generated from the registry: rules for all, with and without script."""

import pytest
from django.conf import settings
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts.models import User
from ai_consultant.models import Conversation
from fly2any.administration.models import Access
from fly2any.database.seed import seed
from tests.browser.conftest import follow
from tests.database.test_dbseed import DAY
from travel.models import PriceHistory

pytestmark = pytest.mark.django_db(transaction=True)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Django's styles fade from one colour to the other.
SETTLED = (
    "new Promise(requestAnimationFrame).then(() => Promise.all(document.getAnimations().map(a => a.finished))).then(() => null)"
)
COLOR_RULES = ["color-contrast", "link-in-text-block"]  # All that another color scheme can change; half of axe's time.
EXCEPT_COLORS = {rule: {"enabled": False} for rule in COLOR_RULES}


@pytest.fixture
def staff():
    seed(connection, users=80, seed=1, until=DAY)
    Access.objects.create(staff_id="s", staff_email="e@example.com", action="opened", table="t")
    user = User.objects.create_superuser("staff@demo.fly2any.example", "a-long-password-1")
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def pages():
    """A page of each kind for each table, and the pages without a table."""
    price, talk = PriceHistory.objects.first(), Conversation.objects.filter(messages__flight_results__isnull=False).first()
    yield reverse("admin:index")
    yield reverse("admin:app_list", args=["travel"])
    yield reverse("admin:database")
    yield from (f"{reverse('admin:search')}?q={term}" for term in ("", "ana", "203.0.113.8", "GRU-LIS", "nobody-at-all"))
    yield f"{reverse('admin:travel_pricehistory_route')}?origin={price.origin}&destination={price.destination}&day={price.depart_date}"
    yield f"{reverse('admin:engagement_notification_changelist')}?type=booking_cancelled"
    yield f"{reverse('admin:accounts_user_changelist')}?q=nobody-at-all"
    yield reverse("admin:ai_consultant_conversation_change", args=[talk.pk])
    yield reverse("admin:password_change")
    yield reverse("admin:second_factor_new")
    for model, page in admin.site._registry.items():
        place = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{place}_changelist")
        row = model._base_manager.order_by("pk").first()
        names = ["change", *(["overview"] if getattr(page, "overview", ()) else [])]
        yield from (reverse(f"{place}_{name}", args=[row.pk]) for name in names if row)
    yield reverse("admin:travel_pricealert_add")
    user = User.objects.filter(is_staff=False).first()
    yield from (reverse(f"admin:accounts_user_{name}", args=[user.pk]) for name in ("delete", "history"))
    yield from (
        f"{reverse('admin:accounts_user_overview', args=[user.pk])}{action}/" for action in ("sign-out", "unlink", "erase")
    )


# Parts of every page, which are checked on the first.
ON_EVERY_PAGE = {"exclude": [["#nav-sidebar"], [".phone-nav"]]}


def violations(script, page, looked_at, **options):
    """Return what axe finds: each rule, with the first element that breaks it and why."""
    page.evaluate("script => 'axe' in window || (0, eval)(script)", script)
    found = page.evaluate(
        "([where, options]) => axe.run(where ?? document, options).then(results => results.violations)",
        [looked_at, {"preload": False, "resultTypes": ["violations"], **options}],
    )
    return [(rule["id"], rule["nodes"][0]["html"], rule["nodes"][0]["failureSummary"]) for rule in found]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "rows"), [(1440, 5), (320, 5)])
def test_every_page_keeps_the_policy_fits_the_width_and_is_open_to_all(browser, live_server, staff, monkeypatch, width, rows):
    for listed in admin.site._registry.values():
        monkeypatch.setattr(listed, "list_per_page", rows)  # axe checks each element.
    axe = (
        pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make check installs it")
        .Axe()
        .axe_script
    )
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="light")
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": staff, "url": live_server.url}])
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)

    for url in pages():
        complaints.clear()
        looked_at = ON_EVERY_PAGE if url != reverse("admin:index") else None
        page.emulate_media(color_scheme="light")
        response = page.goto(live_server.url + url)
        assert (response.status, page.url) == (200, live_server.url + url)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, url
        # The colours of a narrow page are those of a wide one, but for what only it shows: the navigation, and the filters' button.
        colors = width > 1000 or url in (reverse("admin:index"), reverse("admin:accounts_user_changelist"))
        assert violations(axe, page, looked_at, runOnly=RULES, rules={} if colors else EXCEPT_COLORS) == [], url
        if width > 1000:
            page.emulate_media(color_scheme="dark")
            page.evaluate(SETTLED)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, url
            assert violations(axe, page, looked_at, runOnly={"type": "rule", "values": COLOR_RULES}) == [], url
        assert complaints == [], url
    policy = page.goto(f"{live_server.url}{reverse('admin:index')}").headers["content-security-policy"]
    assert set(policy.split("; ")) == {
        "default-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'", "object-src 'none'"
    }  # fmt: skip


@pytest.mark.slow
def test_everything_essential_works_without_scripts(browser, live_server, staff):
    page = browser.new_context(java_script_enabled=False, viewport={"width": 1440, "height": 900}).new_page()
    page.goto(f"{live_server.url}/admin/engagement/notification/")
    page.fill("#id_username", "staff@demo.fly2any.example")
    page.fill("#id_password", "a-long-password-1")
    follow(page, "[type=submit]")

    first = page.locator("#result_list tbody tr").all_text_contents()
    follow(page, "text=Next ›")
    second = page.locator("#result_list tbody tr").all_text_contents()
    follow(page, "text=‹ Previous")
    assert page.locator("#result_list tbody tr").all_text_contents() == first
    assert (len(first), first != second) == (50, True)
    page.click("#changelist-filter summary >> text=Type")
    follow(page, "#changelist-filter >> text=Promotion")
    assert set(page.locator(".field-type").all_text_contents()) == {"Promotion"}
    page.click("#changelist-filter summary >> text=Created at")
    page.fill("[name=created_at__from]", "2026-04-01")
    page.fill("[name=created_at__until]", "2026-04-20")
    follow(page, ".time-range button")
    assert "type=promotion" in page.url
    assert page.locator("#result_list time").first.get_attribute("datetime").startswith("2026-04-20")
    page.check("#result_list tbody tr:first-child .action-select")
    page.select_option("[name=action]", "mark_read")
    follow(page, "[name=index]")
    follow(page, "button >> text=Mark 1 notification as read")
    assert " marked as read." in page.text_content(".messagelist")
    follow(page, "#result_list tbody tr:first-child .field-user_link a")
    assert page.locator(".timeline li").count() > 1


@pytest.mark.slow
def test_the_keyboard_reaches_search_filters_and_pages_in_the_order_they_are_seen(browser, live_server, staff):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": staff, "url": live_server.url}])
    page = context.new_page()
    page.goto(f"{live_server.url}/admin/engagement/notification/")
    page.evaluate("document.querySelector('.filter').open = true")
    stops = []
    for _ in range(260):
        page.keyboard.press("Tab")
        stops.append(
            page.evaluate(
                "(e => e.className + ' ' + e.id + ' ' + (e.name || '') + ' ' + e.textContent.trim().slice(0, 30))(document.activeElement)"
            )
        )

    wanted = [
        "skip-to-content-link",
        "Fly2Any database",
        "Add notification",
        "searchbar",
        "Last hour",
        "created_at__from",
        "action-toggle",
        "Next ›",
    ]
    places = [next((place for place, stop in enumerate(stops) if name in stop), None) for name in wanted]
    assert None not in places, list(zip(wanted, places, strict=True))
    assert places == sorted(places)
