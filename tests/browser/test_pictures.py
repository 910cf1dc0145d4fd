"""The README's pictures can be taken again, and are the ones that it shows."""

import re

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from accounts.models import User
from fly2any.database.seed import seed
from tests.browser.pictures import FOLDER, take
from tests.conftest import PROJECT
from tests.database.test_dbseed import DAY


@pytest.mark.django_db(transaction=True)
def test_each_picture_of_the_readme_is_taken_and_small(browser, live_server, tmp_path):
    seed(connection, users=40, seed=1, until=DAY)
    client = Client()
    client.force_login(User.objects.create(email="staff@demo.fly2any.example", is_staff=True, is_superuser=True))

    take(browser, live_server.url, client.cookies[settings.SESSION_COOKIE_NAME].value, "$ a <command>", tmp_path)

    shown = set(re.findall(r"docs/images/([^)]*)", (PROJECT / "README.md").read_text()))
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.iterdir()} == shown
    assert [path.name for path in FOLDER.iterdir() if path.stat().st_size > 250_000] == []
