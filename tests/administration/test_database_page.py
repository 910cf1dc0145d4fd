"""The Database page: when its report was made, and what it says of findings and retention."""

import json
import re

import pytest
from django.urls import reverse

pytestmark = pytest.mark.django_db


def page_of(client):
    text = re.sub(r"<[^>]+>", " ", client.get(reverse("admin:database")).content.decode())
    return " ".join(text.split())


def test_the_report_has_the_time_at_which_it_was_made(staff):
    assert re.search(
        r"Findings and topics of manage\.py dbstatus --security and manage\.py dbhealth, as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.",
        page_of(staff),
    )


@pytest.mark.slow
def test_a_report_without_findings_other_than_waived_ones_says_so(staff, settings, tmp_path):
    found = staff.get(reverse("admin:database")).context["report"].findings
    settings.WAIVERS = tmp_path / "waivers.toml"
    settings.WAIVERS.write_text(
        "".join(
            f'[[waiver]]\ncode = "{one.code}"\nwhere = {json.dumps(one.where)}\nowner = "Ana"\nuntil = 2999-01-01\nreason = "tests"\n'
            for one in found
        )
    )

    page = page_of(staff)

    assert "Findings OK The schema matches the migrations, and no topic below has a finding that is not waived. Waived:" in page


@pytest.mark.parametrize(
    ("days", "shown"),
    [
        ({}, "Retention is off (RETENTION is not set)."),
        ({"users": 1}, "Unavailable: RETENTION is not valid (see the message above)."),
    ],
)
def test_retention_that_is_not_valid_is_not_shown_as_off(staff, settings, days, shown):
    settings.RETENTION = {**settings.RETENTION, "days": days}

    page = page_of(staff)

    assert ("RETENTION names users, which has no rule." in page) == bool(days)
    assert f"Retention {shown} " in page
