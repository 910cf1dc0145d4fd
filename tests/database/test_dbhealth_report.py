"""The report of dbhealth: failed topics, restricted roles, waivers and unknown topics."""

import json

import pytest

from fly2any.database.health import examine as examining
from fly2any.database.health.examine import Figure
from fly2any.database.health.topics import TOPICS
from fly2any.database.report.collect import collect
from fly2any.database.report.waivers import read_waivers
from tests.conftest import django, manage

pytestmark = pytest.mark.usefixtures("server")


def test_a_topic_that_takes_too_long_fails_alone(migrated, monkeypatch):
    monkeypatch.setattr(examining, "DEADLINE", 200)

    def slow(read):
        read("SELECT pg_catalog.pg_sleep(9)")
        yield Figure("never", "")

    with django(migrated) as connection:
        report = collect(connection, health={"slow": slow, "sequences": TOPICS["sequences"]})

    assert [(topic.name, bool(topic.figures)) for topic in report.health] == [("slow", False), ("sequences", True)]
    assert report.health[0].trouble.startswith("The statement was cancelled (")
    assert ([(finding.code, finding.where) for finding in report.findings], report.exit_code) == (
        [("health.not_asked", "slow")],
        4,
    )


@pytest.mark.slow
def test_a_topic_that_waits_for_a_lock_says_so(migrated):
    with migrated.connect() as other, django(migrated) as connection:
        other.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        [topic] = examining.examine(connection, {"indexes": TOPICS["indexes"]})

    assert topic.trouble.startswith("Another transaction holds a lock")


def test_a_role_that_may_only_connect_gets_a_report(migrated):
    with migrated.role() as url:
        report = manage("dbhealth", "--format", "json", url=url)

    assert (report.returncode in (0, 4), report.stderr) == (True, "")
    assert [topic["name"] for topic in json.loads(report.stdout)["topics"]] == list(TOPICS)


WAIVER = '[[waiver]]\ncode = "sequences.near_end"\nwhere = "theirs"\nowner = "ana@example.com"\nuntil = {}\nreason = "bigint in May"\n'


def test_a_waiver_applies_until_its_date_and_is_then_a_finding(migrated, tmp_path):
    migrated.execute("CREATE SEQUENCE theirs AS int; SELECT setval('theirs', 2000000000)")
    path = tmp_path / "waivers.toml"
    results = []
    for day in ("2999-01-01", "2026-01-01"):
        path.write_text(WAIVER.format(day))
        with django(migrated) as connection:
            report = collect(connection, health={"sequences": TOPICS["sequences"]}, waivers=read_waivers(path))
        results.append(([finding.code for finding in report.findings], len(report.waived), report.exit_code))

    assert results == [([], 1, 0), (["sequences.near_end", "waiver.expired"], 0, 4)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[waiver", "cannot be read as TOML"),
        (WAIVER.format('"soon"'), "Waiver 1 in"),
        (
            WAIVER.format("2999-01-01").replace("sequences.near_end", "nothing.such"),
            "names nothing.such, which is not a finding",
        ),
        ("waiver = 7", "Waiver 1 in"),
        ("\xff", "cannot be read as TOML"),
    ],
)
def test_an_invalid_file_of_waivers_is_reported(tmp_path, text, said):
    path = tmp_path / "waivers.toml"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(Exception, match=said) as raised:
        read_waivers(path)
    assert type(raised.value).__name__ == "Refusal"


def test_an_unknown_topic_is_reported(migrated):
    result = manage("dbhealth", "weather", url=migrated.url)

    assert (
        result.returncode,
        result.stderr.count("\n"),
        "There is no topic weather: the topics are connections, locks" in result.stderr,
    ) == (2, 1, True)
