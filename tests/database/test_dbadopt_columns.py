"""How an adoption treats single columns: times in other zones, defaults of the current time, and `flightData`."""

import json

import pytest

from fly2any.database.adoption.render import _what_to_fix
from tests.conftest import manage
from tests.database.sites import KINDS, adopted, contents, files, fill, plan


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_times_mean_the_same_instants_in_a_database_of_another_time_zone(exact, zone):
    before = contents(exact), files(exact)
    exact.execute(f"ALTER DATABASE {exact.name} SET timezone TO '{zone}'")

    refused = manage("dbadopt", "--yes", "--repair", url=exact.url)
    [blocker] = plan(exact)["blockers"]
    exact.execute(blocker["cure"])
    result = manage("dbadopt", "--yes", url=exact.url)

    assert (refused.returncode, blocker["code"], blocker["where"]) == (4, "server.time_zone", exact.name)
    assert "times that the database itself wrote in such a session, by a default or a trigger" in blocker["message"]
    assert result.returncode == 0
    assert (contents(exact), files(exact)) == before
    assert manage("dbstatus", url=exact.url).returncode == 0


WRITES = "GRANT INSERT ON users TO {role}"


KOLKATA = "ALTER ROLE {role} SET timezone TO 'Asia/Kolkata'"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grants", "blocked"),
    [
        ((WRITES, KOLKATA), True),
        ((WRITES, "ALTER ROLE {role} IN DATABASE {name} SET timezone TO 'Asia/Kolkata'"), True),
        ((WRITES, KOLKATA, "ALTER ROLE {role} IN DATABASE {name} SET timezone TO 'UTC'"), False),
        ((WRITES, KOLKATA, "ALTER ROLE {role} NOLOGIN"), False),
        ((KOLKATA,), False),
    ],
)
def test_the_time_zone_of_the_sites_role_is_checked_too(exact, grants, blocked):
    with exact.role(*(grant.replace("{name}", exact.name) for grant in grants)):
        found = plan(exact)["blockers"]
        for blocker in found:
            exact.execute(blocker["cure"])
        cured = plan(exact)

    assert [(blocker["code"], blocker["where"]) for blocker in found] == [("server.time_zone", f"{exact.name}_role")] * blocked
    assert cured["kind"] == "exact"


@pytest.mark.slow
def test_a_database_that_only_has_another_time_zone_has_not_drifted(exact):
    exact.execute(f"ALTER DATABASE {exact.name} SET timezone TO 'America/New_York'")

    refused, text = plan(exact), manage("dbadopt", url=exact.url).stdout

    assert (refused["kind"], [blocker["code"] for blocker in refused["blockers"]]) == ("exact", ["server.time_zone"])
    assert ("  Kind: exact, as Prisma's migration created it.\n" in text, text.splitlines()[-1]) == (
        True,
        "Not ready: 1 blocker. Fix it first.",
    )


def test_what_is_to_be_fixed_is_counted():
    assert [_what_to_fix(*counts) for counts in ((0, 1), (0, 2), (1, 0), (2, 0), (2, 1))] == [
        "Fix it first.",
        "Fix them first.",
        "`--repair` fixes it.",
        "`--repair` fixes all.",
        "`--repair` fixes 2; fix the other 1 first.",
    ]


@pytest.mark.slow
def test_the_databases_time_zone_is_seen_by_a_role_that_has_its_own(exact):
    exact.execute(f"ALTER DATABASE {exact.name} SET timezone TO 'America/New_York'")
    with exact.role("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", "ALTER ROLE {role} SET timezone TO 'UTC'") as url:
        codes = [(blocker["code"], blocker["where"]) for blocker in plan(exact, url)["blockers"]]

    assert ("server.time_zone", exact.name) in codes


@pytest.mark.slow
@pytest.mark.parametrize("by", ["role", "URL"])
def test_a_zone_of_the_server_that_ours_hides_blocks_until_the_database_has_one(exact, by):
    grants = (
        "GRANT INSERT, SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"ALTER ROLE {exact.user} IN DATABASE {exact.name} SET timezone TO 'UTC'",
    )
    parameters = "" if by == "role" else f"{'&' if '?' in exact.url else '?'}options=-ctimezone%3DUTC"
    with exact.role(*grants[: 2 if by == "role" else 1]):
        [blocker] = plan(exact, f"{exact.url}{parameters}")["blockers"]
        exact.execute(blocker["cure"])
        cured = plan(exact, f"{exact.url}{parameters}")

    assert (blocker["code"], blocker["where"], cured["blockers"]) == ("server.time_zone", exact.name, [])
    assert blocker["message"].startswith(
        "The time zone of the server is not known, because this role or the options of the URL set one, and may not be UTC: Prisma's client"
    )


MAY_BE_NULL = 'ALTER TABLE wishlist_items ALTER "flightData" DROP NOT NULL'


IS_NOT_NULL = """SELECT attnotnull FROM pg_attribute WHERE attrelid = 'wishlist_items'::regclass AND attname = 'flightData'"""


@pytest.mark.slow
def test_flight_data_stays_nullable_without_drift_if_the_site_stores_hotels_too(database):
    fill(database, KINDS["superset"])
    hotel = """
        INSERT INTO wishlist_items (id, "userId", "productType", "hotelData", "updatedAt")
        VALUES (%s, 'users 1', 'hotel', '{}', now())
    """

    notes = plan(database)["notes"]
    adopted(database)
    database.execute(hotel, ["hotel 1"])
    status = json.loads(manage("dbstatus", "--write-check", "--format", "json", url=database.url).stdout)

    assert notes == ["wishlist_items.flightData stays nullable: the table has productType, so the site stores rows without it."]
    assert (database.execute(IS_NOT_NULL), status["exit_code"], status["findings"]) == ([(False,)], 0, [])
    assert [(g["columns"]["found"], g["columns"]["expected"]) for g in status["groups"] if g["name"] == "Phase 7, total"] == [
        (188, 188)
    ]


@pytest.mark.slow
def test_flight_data_that_an_earlier_adoption_made_not_null_is_noted_with_its_cure(database):
    fill(database, KINDS["superset"])
    database.execute('ALTER TABLE wishlist_items ALTER "flightData" SET NOT NULL')
    adopted(database)

    found = json.loads(manage("dbstatus", "--format", "json", url=database.url).stdout)["findings"]
    database.execute(found[0]["cure"])

    assert [(f["severity"], f["code"], f["where"]) for f in found] == [
        ("note", "column.different", "wishlist_items.flightData")
    ]
    assert database.execute(IS_NOT_NULL) == [(False,)]


@pytest.mark.slow
def test_nulls_in_flight_data_stay_and_are_reported(exact):
    exact.execute(MAY_BE_NULL)
    exact.execute("""UPDATE wishlist_items SET "flightData" = NULL WHERE id = 'wishlist_items 7'""")

    assert plan(exact)["notes"] == [
        "wishlist_items.flightData has NULLs, so it stays nullable; `dbstatus` shows a note and exits with 0."
    ]
    adopted(exact)

    status = manage("dbstatus", url=exact.url)
    assert status.returncode == 0
    assert "NOTE    column.weaker at wishlist_items.flightData" in status.stdout
    assert exact.execute("SELECT conname FROM pg_constraint WHERE conname LIKE 'adopting%'") == []


@pytest.mark.slow
def test_flight_data_without_nulls_is_made_not_null(exact):
    exact.execute(MAY_BE_NULL)

    adopted(exact)

    status = manage("dbstatus", url=exact.url)
    assert "column.weaker" not in status.stdout
    assert exact.execute(IS_NOT_NULL) == [(True,)]


@pytest.mark.slow
def test_a_default_of_the_current_time_is_noted_and_adopted(exact):
    exact.execute('ALTER TABLE users ALTER "updatedAt" SET DEFAULT CURRENT_TIMESTAMP')
    sentence = (
        "Column updatedAt of users has the default CURRENT_TIMESTAMP, and should have none; it is harmless: only an insert"
        " without a value uses it."
    )

    notes = plan(exact)["notes"]
    adopted(exact)
    status = json.loads(manage("dbstatus", "--format", "json", url=exact.url).stdout)

    assert notes == [sentence]
    assert (status["exit_code"], [(f["severity"], f["code"], f["message"]) for f in status["findings"]]) == (
        0,
        [("note", "default.extra", sentence)],
    )


@pytest.mark.slow
def test_a_database_whose_indexes_may_be_out_of_order_is_not_adopted(exact):
    """The adoption would make constraints of unique indexes that may have let duplicates in."""
    if exact.execute("SELECT current_setting('server_version_num')::int < 150000") == [(True,)]:
        return  # It stores no version of a database's collation.
    exact.execute(f"UPDATE pg_database SET datcollversion = '0.5' WHERE datname = '{exact.name}'")

    [blocker] = plan(exact)["blockers"]

    assert (blocker["code"], blocker["where"]) == ("server.collation", exact.name)
