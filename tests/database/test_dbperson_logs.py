"""Erasures and what logs hold about a person: sign-ins, accesses, the admin's log and sessions."""

from django.core import signing

from tests.conftest import django
from tests.database.people import ANA, BOB, EMAIL, erased, exported


def test_the_address_is_removed_from_failed_sign_ins_accesses_and_the_admins_log(two):
    staff = '(at, staff_id, staff_email, action, "table", row_id, query)'
    two.execute(
        "INSERT INTO axes_accessattempt (user_agent, ip_address, username, http_accept, path_info, attempt_time, get_data, post_data, failures_since_start)"
        " VALUES ('x', '192.0.2.1', 'bob', 'x', '/admin/', now(), 'next=/%3Fq%3DANA.SILVA%2540example.com', '', 1),"
        " ('x', '192.0.2.2', 'bob', 'x', '/admin/', now(), '', '', 1);"
        f"INSERT INTO fly2any_accesses {staff} VALUES (now(), 's1', '{EMAIL}', 'opened', 'users', '{ANA}', NULL),"
        " (now(), 's2', 's@example.com', 'exported', 'users', NULL, 'q=ana.silva%40example.com&e=susana.silva@example.com');"
        "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message, user_id, object_id)"
        " VALUES (now(), 'x', 2, '[{\"changed\": {\"object\": \"ana.silva\\u0040example.com\"}}]', 'u-beta', '7')"
    )
    given = exported(two)

    certificate = erased(two)

    assert certificate["removed"] == {"users": 1}
    assert certificate["cleared"] == {"fly2any_accesses": 2, "django_admin_log": 1, "axes_accessattempt": 1}
    assert {name: len(rows) for name, rows in given.items()} == {"users": 1, "fly2any_accesses": 2, "django_admin_log": 1}
    assert two.execute("SELECT staff_email, row_id, query FROM fly2any_accesses ORDER BY staff_id") == [
        ("(erased)", ANA, None),
        ("s@example.com", None, "q=(erased)&e=susana.silva@example.com"),
    ]
    assert two.execute("SELECT change_message FROM django_admin_log") == [('[{"changed": {"object": "(erased)"}}]',)]
    assert two.execute("SELECT get_data FROM axes_accessattempt ORDER BY id") == [("next=/%3Fq%3D(erased)",), ("",)]
    assert [(place["table"], place["column"], place["holds"]) for place in certificate["remaining"]] == [
        ("fly2any_accesses", "row_id", "id"),
        ("fly2any_accesses", "query", "similar"),
    ]


def test_the_admins_log_no_longer_names_the_persons_rows(two):
    two.execute(
        f"INSERT INTO ai_conversations (id, \"sessionId\", \"userId\", metadata, \"updatedAt\") VALUES ('c1', 's1', '{ANA}', '{{}}', now()), ('c2', 's2', '{BOB}', '{{}}', now());"
        "INSERT INTO django_content_type (app_label, model) VALUES ('ai_consultant', 'conversation') ON CONFLICT DO NOTHING;"
        "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message, user_id, object_id, content_type_id)"
        " SELECT now(), repr, 2, message, 'u-beta', object, t.id FROM django_content_type AS t,"
        " (VALUES ('c1', 'My divorce', '[{\"added\": {\"object\": \"Dear \\\"Ana\\\"\", \"name\": \"m\"}}]'), ('c2', 'Lisbon', '')) AS v (object, repr, message)"
        " WHERE t.model = 'conversation'"
    )

    certificate = erased(two)

    assert certificate["cleared"] == {"django_admin_log": 1}
    assert two.execute("SELECT object_id, object_repr, change_message FROM django_admin_log ORDER BY object_id") == [
        ("c1", "(erased)", '[{"added": {"object": "(erased)", "name": "m"}}]'),
        ("c2", "Lisbon", ""),
    ]


def test_admin_sessions_of_the_person_or_with_their_address_are_removed(two):
    pages = ["", "q=ana.silva%40example.com", "q=juana.silva@example.com", "q=ana.silva@example.com.br", f'"{ANA}"']
    with django(two):
        for number, page in enumerate(pages):
            data = signing.dumps(
                {"_auth_user_id": BOB if number else ANA, "page": page, "pad": "x" * 500 * (number % 2)},
                salt="django.contrib.sessions.SessionStore",
                compress=True,
            )
            two.execute(
                "INSERT INTO django_session VALUES (%s, %s, '2026-05-01T00:00Z'::timestamptz + %s * interval '1 day')",
                [f"key{number}", data, number],
            )

    assert [row["expire_date"][:10] for row in exported(two)["django_session"]] == ["2026-05-01"]  # Another's has the address.
    assert erased(two)["removed"] == {"users": 1, "django_session": 2}
    assert two.execute("SELECT session_key FROM django_session ORDER BY 1") == [("key2",), ("key3",), ("key4",)]


def test_an_export_contains_no_other_persons_address(two):
    message = '[{"changed": {"object": "carol@example.com"}}, {"changed": {"object": "ana.silva@example.com"}}]'
    two.execute(
        "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message, user_id)"
        " VALUES (now(), 'carol@example.com', 2, %s, %s)",
        [message, BOB],
    )
    two.execute(
        'INSERT INTO fly2any_accesses (at, staff_id, staff_email, action, "table", person_id, query)'
        " VALUES (now(), %s, 'bob@example.com', 'opened', 'users', %s, 'q=carol@example.com,ana.silva@example.com')",
        [BOB, ANA],
    )

    given = exported(two)

    assert [len(given[name]) for name in ("django_admin_log", "fly2any_accesses")] == [1, 1]
    assert ("carol" in str(given), "bob@" in str(given), BOB in str(given)) == (False, False, False)
    assert given["fly2any_accesses"][0]["person_id"] == ANA


def test_certificates_outlive_the_staff_who_carried_out_the_erasures(two):
    certificate = '{"person": "x", "removed": {"users": 1}}'
    two.execute(
        'INSERT INTO fly2any_accesses (staff_id, staff_email, action, "table", row_id, person_id, certificate)'
        " VALUES (%s, %s, 'erased', 'users', 'x', 'x', %s)",
        [ANA, EMAIL, certificate],
    )
    two.execute(
        "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message, user_id)"
        " VALUES (now(), '(erased)', 3, 'Erased.', %s)",
        [ANA],
    )
    kept = "SELECT staff_id, staff_email, person_id, certificate::text FROM fly2any_accesses"
    assert "certificate" not in exported(two)["fly2any_accesses"][0]

    assert erased(two)["removed"] == {"users": 1, "django_admin_log": 1}
    assert two.execute(kept) == [(ANA, "(erased)", "x", certificate)]


def test_a_price_is_exported_as_it_is_stored_whatever_the_database_rounds(two):
    two.execute(
        'INSERT INTO price_alerts (id, "userId", origin, destination, "departDate", "currentPrice", "targetPrice", "updatedAt")'
        " VALUES ('a', %s, 'GRU', 'LIS', '2026-07-01', 0.1::float8 + 0.2::float8, 1, now())",
        [ANA],
    )
    two.execute(f"ALTER DATABASE {two.name} SET extra_float_digits TO 0")

    assert exported(two)["price_alerts"][0]["currentPrice"] == 0.1 + 0.2


def test_generated_columns_of_the_logs_are_cleared_with_their_sources(two):
    two.execute(
        "ALTER TABLE fly2any_accesses ADD lowered text GENERATED ALWAYS AS (lower(query)) STORED;"
        'INSERT INTO fly2any_accesses (at, staff_id, staff_email, action, "table", query)'
        f" VALUES (now(), '{BOB}', 'bob@example.com', 'opened', 'users', 'q={EMAIL}')"
    )

    certificate = erased(two)

    assert (certificate["cleared"], certificate["remaining"]) == ({"fly2any_accesses": 1}, [])
    assert two.execute("SELECT query, lowered FROM fly2any_accesses") == [("q=(erased)", "q=(erased)")]
