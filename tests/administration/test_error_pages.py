"""The pages of refused and failed requests: what happened, whether something was changed, and the way on."""

import logging
import re

import pytest
from django.test import Client

from fly2any.administration import site

pytestmark = pytest.mark.django_db


def text_of(page):
    """The status, and the text of the page's body."""
    return page.status_code, " ".join(re.sub(r"<[^>]*>", " ", page.content.decode().partition("<body>")[2]).split())


@pytest.fixture
def quiet(staff, settings):
    staff.raise_request_exception = False
    settings.DEBUG = False
    return staff


def test_what_a_role_does_not_allow_names_who_can(member, caplog):
    page = member("Support").get("/admin/database/")

    assert text_of(page) == (
        403,
        "This is not permitted Your role does not allow this page or this change. Nothing was changed. An administrator can give"
        " you another role ( manage.py dbstaff ). Go to the admin",
    )
    [record] = [record for record in caplog.records if record.name == "django.request"]
    assert (record.getMessage(), record.exc_info) == ("Forbidden (Permission denied): /admin/database/", None)


def test_an_unknown_address_leads_back_to_the_admin(quiet):
    assert text_of(quiet.get("/admin/nothing/")) == (
        404,
        "There is no such page Check the address, or use the links and forms of the admin. Go to the admin",
    )


def test_a_host_that_is_not_allowed_is_named_as_a_reason(quiet, caplog):
    page = quiet.get("/admin/", headers={"host": "elsewhere.example"})

    assert text_of(page) == (
        400,
        "This request could not be processed The server rejected the request: its host name is not in ALLOWED_HOSTS, it has an"
        " invalid parameter, or it is too large. The admin's log gives the reason. Go to the admin",
    )
    assert "Invalid HTTP_HOST header: 'elsewhere.example'" in caplog.text


def test_a_form_from_before_the_last_sign_in_says_what_to_do(staff):
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = staff.cookies

    assert text_of(browser.post("/admin/logout/")) == (
        403,
        "This form is out of date It was opened before your last sign-in, or your browser does not accept cookies from this site."
        " Nothing was changed. Open the page again, and repeat the change there. Go to the admin",
    )


def test_an_error_of_ours_does_not_claim_that_nothing_was_saved(quiet, monkeypatch, caplog):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(site, "read_summary", fail)
    with caplog.at_level(logging.CRITICAL, logger="django.request"):
        page = quiet.get("/admin/")

    assert text_of(page) == (
        500,
        "This page failed The admin's log has the error. A change that you were saving may have been saved: open its page again to see"
        " whether it was.",
    )
