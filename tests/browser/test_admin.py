"""The admin in a real Chromium: sign in, browse and search without an error."""

import pytest
from django.db import connection

from accounts.models import User
from fly2any.database.seed import seed
from tests.browser.conftest import follow
from tests.database.test_dbseed import DAY

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.slow
def test_staff_sign_in_by_email_and_browse(browser, live_server):
    seed(connection, users=80, seed=1, until=DAY)
    User.objects.create_superuser("staff@demo.fly2any.example", "a-long-password-1")
    errors = []
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)

    page.goto(f"{live_server.url}/")
    assert page.text_content("label[for=id_username]").strip() == "E-mail:"
    page.fill("#id_username", "staff@demo.fly2any.example")
    page.fill("#id_password", "a-long-password-1")
    follow(page, "[type=submit]")
    assert page.text_content("#site-name").strip() == "Fly2Any database"
    assert page.locator("#content .groups h2").all_text_contents() == [
        "Accounts", "Travel", "Engagement", "AI consultant",
        "Administration", "Authentication and Authorization", "Second factor: apps", "Second factor: passkeys",
    ]  # fmt: skip

    follow(page, "#content .rows >> text=Notifications")
    assert page.locator("#result_list tbody tr").count() == 50
    follow(page, "#result_list tbody tr:first-child td.field-user_link a")
    email = page.locator("dl.facts dd").first.text_content()
    page.goto(f"{live_server.url}/admin/accounts/user/?q={email}")
    assert page.locator("#result_list tbody tr").count() == 1

    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(f"{live_server.url}/admin/")
    assert page.evaluate("document.documentElement.scrollWidth <= 320")
    assert errors == []
