"""Rows of others in which a person's address or an address like it occurs: an erasure leaves them, and an export gives none of them out."""

import json
import sys

from fly2any.database.person import export, find
from fly2any.database.person.search import search
from tests.conftest import django
from tests.database.people import ANA, BOB, EMAIL, erased, exported, planned

OWN = (EMAIL.lower(), EMAIL.upper())
LIKE_IT = ("x={}", "~{}", "+{}", "'{}'", "#{}", "💚{}", "o’{}", "{}.", "Ana <{}>", "%27{}", " {}", "{} (code)", "{}.br")


def tokens(database, identifiers):
    for identifier in identifiers:
        database.execute(
            "INSERT INTO verification_tokens (identifier, token, expires) VALUES (%s, md5(%s), now())", [identifier] * 2
        )


def failed(database, username, *, agent="x", path="/admin/", get="", failures=1):
    database.execute(
        "INSERT INTO axes_accessattempt (user_agent, ip_address, username, http_accept, path_info, attempt_time, get_data, post_data, failures_since_start)"
        " VALUES (%s, '203.0.113.9', %s, 'x', %s, now(), %s, '', %s)",
        [agent, username, path, get, failures],
    )


def test_a_column_of_addresses_has_the_persons_only_as_a_whole(two):
    others = [text.format(EMAIL.lower()) for text in LIKE_IT]
    for number, email in enumerate(others):
        two.execute('INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())', [f"other-{number}", email])
        two.execute(
            "INSERT INTO fly2any_accesses (staff_id, staff_email, action, \"table\") VALUES (%s, %s, 'opened', 'users')",
            [f"other-{number}", email],
        )
    tokens(two, (*OWN, *others))
    for name in (
        EMAIL,
        f"{EMAIL.lower()} (code)",
        f"{EMAIL} (old password)",
        f"x={EMAIL}",
        f"{EMAIL} (x)",
        f"x={EMAIL} (code)",
    ):
        failed(two, name)

    foreseen, given = planned(two), exported(two)
    certificate = erased(two)

    assert foreseen.removed == certificate["removed"] == {"users": 1, "verification_tokens": 2, "axes_accessattempt": 3}
    assert foreseen.cleared == certificate["cleared"] == {}
    assert ({name: len(rows) for name, rows in given.items()}, {row["identifier"] for row in given["verification_tokens"]}) == (
        certificate["removed"],
        {*OWN},
    )
    kept = {(email,) for email in others}
    assert {*two.execute("SELECT identifier FROM verification_tokens")} == kept
    assert {*two.execute("SELECT staff_email FROM fly2any_accesses")} == kept
    found = {
        (one["table"], one["column"]): (one["holds"], one["rows"])
        for one in certificate["remaining"]
        if one["holds"] != "statistics"
    }
    assert found == {
        ("users", "email"): ("similar", len(others)),
        ("verification_tokens", "identifier"): ("similar", len(others)),
        ("axes_accessattempt", "username"): ("similar", 3),
        ("fly2any_accesses", "staff_email"): ("similar", len(others)),
    }


def test_a_twin_differs_in_the_case_of_letters_and_keeps_what_is_theirs(two):
    two.execute('INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())', [BOB + "2", EMAIL.upper()])
    tokens(two, (EMAIL, EMAIL.upper(), EMAIL.lower()))
    failed(two, f"{EMAIL.upper()} (code)")

    foreseen, given = planned(two), exported(two)
    certificate = erased(two)

    assert foreseen.removed == certificate["removed"] == {"users": 1, "verification_tokens": 1}
    assert [row["identifier"] for row in given["verification_tokens"]] == [EMAIL]
    assert {(one["table"], one["holds"], one["rows"]) for one in certificate["remaining"] if one["holds"] != "statistics"} == {
        ("users", "similar", 1),
        ("verification_tokens", "similar", 2),
        ("axes_accessattempt", "similar", 1),
    }


def test_who_registers_the_address_in_another_case_during_the_search_keeps_what_is_theirs(two, monkeypatch):
    def search_and_register(*arguments):
        two.execute('INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())', [BOB + "2", EMAIL.upper()])
        tokens(two, (EMAIL, EMAIL.upper()))
        return search(*arguments)

    monkeypatch.setattr(sys.modules["fly2any.database.person.erase"], "search", search_and_register)
    certificate = erased(two)

    assert certificate["removed"] == {"users": 1, "verification_tokens": 1}
    assert two.execute("SELECT identifier FROM verification_tokens") == [(EMAIL.upper(),)]


def test_a_failed_sign_in_of_another_stays_without_the_address_and_is_not_given_out(two):
    failed(two, "bob@example.com", get=f"next=/admin/search/?q={EMAIL}\n---------\nq=/x", failures=5)
    failed(two, "bob@example.com", agent=EMAIL, path=f"/admin/?q={EMAIL}")
    failed(two, "bob@example.com", agent=EMAIL.upper())
    failed(two, "bob@example.com", agent=f"x={EMAIL}x")
    two.execute(
        "INSERT INTO axes_accessfailurelog (user_agent, ip_address, username, http_accept, path_info, attempt_time, locked_out)"
        " VALUES (%s, '203.0.113.9', 'bob@example.com', 'x', '', now(), true)",
        [EMAIL],
    )

    foreseen = planned(two)
    with django(two) as connection:
        given = json.loads("".join(export(connection, find(connection, EMAIL))))
    certificate = erased(two)

    assert {*given["tables"]} == {"users"}
    assert given["left_out"] == {"axes_accessattempt": 3, "axes_accessfailurelog": 1}
    assert foreseen.removed == certificate["removed"] == {"users": 1}
    assert foreseen.cleared == certificate["cleared"] == {"axes_accessattempt": 3, "axes_accessfailurelog": 1}
    kept = two.execute("SELECT get_data, path_info, user_agent, failures_since_start FROM axes_accessattempt ORDER BY id")
    assert kept[0] == ("next=/admin/search/?q=(erased)\n---------\nq=/x", "/admin/", "x", 5)
    assert kept[1][:2] == ("", "/admin/?q=(erased)")
    assert [row[2].startswith("(erased) ") for row in kept] == [False, True, True, False]
    assert [
        (one["table"], one["column"], one["holds"]) for one in certificate["remaining"] if one["holds"] != "statistics"
    ] == [("axes_accessattempt", "user_agent", "similar")]
    assert [(one.table, one.column, one.holds) for one in foreseen.remaining] == [
        ("axes_accessattempt", "user_agent", "similar")
    ]


def test_statistics_with_a_longer_address_of_another_are_not_about_the_person(two):
    two.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('jo', %s, now())", [f"jo{EMAIL}"])
    two.execute("ANALYZE users")

    remaining = [(one["table"], one["holds"], one["rows"]) for one in erased(two)["remaining"]]

    assert remaining == [("users", "similar", 1)]
    bounds = "SELECT histogram_bounds::text FROM pg_stats WHERE tablename = 'users' AND attname = 'email'"
    assert two.execute(bounds) == [("{bob@example.com,joAna.Silva@Example.com}",)]


def test_an_export_names_no_row_of_others_in_which_only_a_query_has_the_address(two):
    """Staff searched another's conversation for the address, and changed another person."""
    access = 'INSERT INTO fly2any_accesses (staff_id, staff_email, action, "table", row_id, person_id, query) VALUES (%s, %s, %s, %s, %s, %s, %s)'
    asked = f"q={EMAIL}"
    for number, (email, row, person, query) in enumerate(
        (
            ("s@example.com", "c9", BOB, asked),
            ("s@example.com", "c1", ANA, asked),
            ("s@example.com", ANA, None, asked),
            (EMAIL, BOB, BOB, ""),
        )
    ):
        two.execute(access, [f"s{number}", email, "opened", "ai_messages", row, person, query])
    for row in (ANA, BOB):
        two.execute(
            "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message, user_id, object_id, content_type_id)"
            " SELECT now(), %s, 2, %s, %s, %s, t.id FROM django_content_type AS t WHERE t.app_label = 'accounts' AND t.model = 'user'",
            [row, EMAIL, BOB, row],
        )

    given = exported(two)

    assert [(row["row_id"], row["person_id"]) for row in given["fly2any_accesses"]] == [
        (None, None),
        ("c1", ANA),
        (ANA, None),
        (None, None),
    ]
    assert {row["object_id"] for row in given["django_admin_log"]} == {ANA, None}
    assert BOB not in json.dumps(given)
