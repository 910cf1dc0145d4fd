"""`make pictures`: the README's pictures, of demo data on a temporary server, taken in Chromium."""

import io
import os
from contextlib import suppress
from html import escape
from pathlib import Path

import django
from django.conf import settings

FOLDER = Path(__file__).parents[2] / "docs" / "images"
TERMINAL = """<body style="margin: 0; background: #1e1e2e; color: #cdd6f4">
<pre style="width: fit-content; margin: 0; padding: 24px; font: 15px/21px monospace">"""


def addresses():
    """Return the address of each page by the name of its picture."""
    from django.db.models import Count
    from django.urls import reverse

    from travel.models import PriceAlert

    watcher = PriceAlert.objects.values("user").annotate(alerts=Count("pk")).latest("alerts", "user")["user"]
    return {
        "index": reverse("admin:index"),
        "list": reverse("admin:travel_pricealert_changelist"),
        "overview": reverse("admin:accounts_user_overview", args=[watcher]),
    }


def status():
    """Return the terminal output of the command with which `make migrate` ends."""
    from django.core.management import call_command

    out = io.StringIO()
    with suppress(SystemExit):
        call_command("dbstatus", release=True, stdout=out, no_color=True)
    return f"$ python manage.py dbstatus --release\n{out.getvalue()}"


def take(browser, server, session, terminal, folder):
    """Take all pictures with `browser`: of `terminal`, a text, and of the admin at `server`, signed in by `session`."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": server}])
    page = context.new_page()
    for name, path in addresses().items():
        page.goto(server + path)
        page.screenshot(path=folder / f"{name}.png")
    page.goto("about:blank")  # The admin's policy forbids a style in an attribute.
    page.set_content(TERMINAL + escape(terminal))
    page.locator("pre").screenshot(path=folder / "dbstatus.png")
    context.close()


def main():
    os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.settings", "POSTGRES_URL": "", "DATABASE_URL": ""}
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright runs an event loop in this thread.
    django.setup()
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.management import call_command
    from django.test import Client
    from django.test.testcases import LiveServerThread
    from playwright.sync_api import sync_playwright

    from accounts.models import User
    from tests.browser.conftest import CHROMIUM

    settings.BACKUPS = {**settings.BACKUPS, "location": "/srv/fly2any/backups"}  # As in a new clone there.
    call_command("migrate", verbosity=0)
    terminal = status()
    call_command("dbseed", admin=True, production=True, stdout=io.StringIO())
    client = Client()
    client.force_login(User.objects.get(email="admin@demo.fly2any.example"))
    server = LiveServerThread("127.0.0.1", StaticFilesHandler)
    server.start()
    server.is_ready.wait()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        take(browser, f"http://127.0.0.1:{server.port}", session, terminal, FOLDER)
        browser.close()
    server.terminate()


if __name__ == "__main__":
    main()
