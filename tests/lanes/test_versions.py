"""The page of supported versions says which lane tests which version."""

import re

import pytest

from lanes.servers import VERSIONS
from lanes.versions import LANES, WHOLE
from tests.conftest import PROJECT


def of_each_version(lanes):
    found = {}
    for lane in lanes:
        for version in (f"Python {lane.python}", f"Django {lane.django.rpartition('.')[0]}", f"PostgreSQL {lane.postgresql}"):
            found.setdefault(version, []).append(lane.name)
    return found


def test_the_page_lists_each_version_with_its_lanes():
    page = (PROJECT / "docs" / "reference" / "versions.md").read_text()
    rows = re.findall(r"^\| (\w+ [\d.]+) \| [\w ]*\d{4} \| (.*) \|$", page, re.MULTILINE)

    assert {version: re.findall(r"`([^`]+)`", lanes) for version, lanes in rows} == of_each_version(LANES)


def test_each_version_runs_the_whole_suite_in_one_lane_at_least():
    whole = of_each_version(lane for lane in LANES if lane.tests == WHOLE)

    assert set(whole) == set(of_each_version(LANES))
    assert {f"PostgreSQL {major}" for major in VERSIONS} < set(whole)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)
def test_the_tests_of_each_lane_exist(lane):
    assert [path for path in lane.tests if not (PROJECT / path).exists()] == []


def test_the_pinned_django_is_that_of_a_lane():
    [pinned] = re.findall(r"^Django==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)

    assert pinned in {lane.django for lane in LANES}
