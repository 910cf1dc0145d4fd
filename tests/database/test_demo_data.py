"""The demo data is realistic: moving prices, people and conversations of each kind, and recent activity."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from fly2any.database.seed import seed
from tests.database.test_dbseed import rows

NOW = datetime(2026, 5, 1, 15, 47, tzinfo=UTC)  # A Friday.
TIMES = {
    "users": ("createdAt", "lastLoginAt"), "saved_searches": ("lastSearched",), "price_alerts": ("lastChecked", "triggeredAt", "createdAt"),
    "recent_searches": ("viewedAt",), "price_history": ("timestamp",), "price_monitor_logs": ("executionTime",),
    "wishlist_items": ("createdAt",), "notifications": ("createdAt", "readAt"), "push_subscriptions": ("createdAt",),
    "user_activities": ("createdAt",), "user_sessions": ("lastActive",), "login_history": ("timestamp",),
    "ai_conversations": ("updatedAt",), "ai_messages": ("createdAt",),
}  # fmt: skip
ROUTE_DAYS = """
    SELECT count(*) AS looks, min(price) AS lowest, max(price) AS highest, count(DISTINCT price) AS prices, max(timestamp) AS newest,
           avg(price) FILTER (WHERE lead < 14) AS late, avg(price) FILTER (WHERE lead BETWEEN 30 AND 80) AS early
    FROM (SELECT *, "departDate"::date - timestamp::date AS lead FROM price_history) AS p
    GROUP BY origin, destination, "departDate" HAVING count(*) >= 50
"""


@pytest.mark.django_db
def test_the_demo_data_has_something_of_everything_until_now():
    seed(connection, users=400, seed=1, until=NOW)

    watched = rows(ROUTE_DAYS)
    assert 76 <= len(watched) <= 80  # Two of 80 may be equal.
    bad = [row for row in watched if not (50 <= row[0] <= 402 and row[2] > 1.15 * row[1] and row[3] > 30)]
    assert bad == []
    assert all(NOW - newest < timedelta(days=2) for *_, newest, late, early in watched)
    pairs = [(late, early) for *_, late, early in watched if late and early]
    assert sum(late > early for late, early in pairs) > 0.8 * len(pairs) > 0
    ((verified, unverified),) = rows('SELECT count("emailVerified"), count(*) - count("emailVerified") FROM users')
    assert min(verified, unverified) > 40
    ((encrypted, readable, offers),) = rows(
        """SELECT count(*) FILTER (WHERE content LIKE 'v1:%'), count(*) FILTER (WHERE content NOT LIKE 'v1:%'),
                  count(*) FILTER (WHERE content LIKE 'I can offer you % USD.' AND "flightResults" IS NOT NULL) FROM ai_messages"""
    )
    assert 100 < encrypted < readable / 4
    assert offers > 40
    busiest = rows(
        """SELECT u.email, count(*) FROM user_activities JOIN users AS u ON u.id = "userId" GROUP BY 1 ORDER BY 2 DESC LIMIT 2"""
    )
    assert ".333.1@" in busiest[0][0]
    assert busiest[0][1] > 850 > 10 * busiest[1][1] / 2
    for table, columns in TIMES.items():
        newest = [rows(f'SELECT max("{column}") FROM {table}')[0][0] for column in columns]
        assert max(newest) <= NOW, table
    for table in ("user_activities", "notifications", "login_history", "price_history"):
        ((today,),) = rows(f"SELECT count(*) FROM {table} WHERE \"{TIMES[table][0]}\" >= '{NOW:%Y-%m-%d}'")
        assert today > 0, table
    contradictions = rows(
        """SELECT u.email FROM users AS u LEFT JOIN login_history AS l ON l."userId" = u.id AND l.success
           GROUP BY u.id HAVING u."lastLoginAt" IS DISTINCT FROM max(l.timestamp) OR (u."updatedAt" < u."lastLoginAt")"""
    )
    assert contradictions == []


@pytest.mark.django_db
def test_an_alert_of_the_demo_data_fired_only_at_or_below_its_target_and_at_its_last_check():
    seed(connection, users=400, seed=1, until=NOW)

    states = rows(
        """SELECT triggered, count(*), bool_and("currentPrice" <= "targetPrice"), bool_or("currentPrice" <= "targetPrice"),
                  bool_and("lastChecked" IS NOT DISTINCT FROM "triggeredAt"), bool_and("createdAt" <= "lastChecked"),
                  bool_and("lastChecked" <= "updatedAt")
           FROM price_alerts GROUP BY triggered ORDER BY triggered"""
    )

    assert [state[2:] for state in states] == [(False, False, False, True, True), (True, True, True, True, True)]
    assert min(number for _, number, *_ in states) > 50
