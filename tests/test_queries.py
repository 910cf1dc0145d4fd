"""The site's most frequent queries: the plan of each, on tables that dbseed filled with enough rows to matter."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.db.models import Count

from accounts.models import Account, Session, User, UserPreferences
from ai_consultant.models import Conversation, Message
from engagement.models import LoginHistory, Notification, PushSubscription, UserActivity, UserSession, WishlistItem
from fly2any.database.seed import seed
from travel.models import PriceAlert, PriceHistory, PriceMonitorLog, RecentSearch, SavedSearch

DAY = date(2026, 5, 1)
NOW = datetime(2026, 5, 1, tzinfo=UTC)
USERS = 4_000  # 230,000 rows in all.


@pytest.fixture(scope="module")
def rows(django_db_setup, django_db_blocker):
    """A user among many, with dependent rows."""
    with django_db_blocker.unblock():
        seed(connection, users=USERS, seed=1, until=DAY)
        with connection.cursor() as cursor:
            cursor.execute(MORE_SQL)
        message = Message.objects.filter(conversation__user__isnull=False).order_by("pk")[500]
        # A route and a day of which more than one price was seen.
        price = PriceHistory(
            **PriceHistory.objects.values("origin", "destination", "depart_date").alias(n=Count("pk")).filter(n__gt=1)[0]
        )
        yield {
            "user": message.conversation.user_id,
            "owner": owner,
            "email": message.conversation.user.email,
            "conversation": message.conversation_id,
            "session": message.conversation.session_id,
            "route": (price.origin, price.destination, price.depart_date),
            "account": Account.objects.order_by("pk")[500],
            "endpoint": PushSubscription.objects.order_by("pk")[500].endpoint,
            "token": "demo-bulk-500",
        }
        with connection.cursor() as cursor:
            names = ", ".join(f'"{model._meta.db_table}"' for model in MODELS)
            cursor.execute(f"TRUNCATE {names} CASCADE")
        connection.close()


def owner(model, **having):
    """A user with several rows, made in no order of time; with one where nobody has more."""
    rows = model.objects.exclude(user=None).filter(**having).values("user").alias(n=Count("pk"))
    return (rows.filter(n__range=(2, 9)).order_by("user") or rows.order_by("user"))[5]["user"]


MODELS = [
    User, Account, Session, UserPreferences, SavedSearch, PriceAlert, RecentSearch, PriceHistory, PriceMonitorLog, WishlistItem,
    Notification, PushSubscription, UserActivity, UserSession, LoginHistory, Conversation, Message,
]  # fmt: skip

# The tables of which dbseed makes few rows: as many as a grown site may have.
MORE_SQL = """
    INSERT INTO sessions (id, "userId", "sessionToken", expires)
    SELECT 'bulk' || n, u.id, 'demo-bulk-' || n, now() FROM (SELECT id, row_number() OVER () AS n FROM users) AS u;
    INSERT INTO price_monitor_logs (id, "executionTime", "alertsChecked", "alertsTriggered", "alertsFailed", duration, "triggeredBy")
    SELECT 'bulk' || n, now() - n * interval '1 hour', 1, 0, 0, 100, 'cron' FROM generate_series(1, 5000) AS n;
    UPDATE ai_messages SET timestamp = timestamp - 10 * (timestamp - 1700000000000) WHERE right(id, 1) < '4';
    ANALYZE sessions, price_monitor_logs
"""

# Query → the index that serves it, and whether the order comes from that index too.
QUESTIONS = {
    "a user by e-mail": (lambda r: User.objects.by_email(r["email"]), "users_email_key", True),
    "an account by provider": (
        lambda r: Account.objects.linked_as(
            provider=r["account"].provider, provider_account_id=r["account"].provider_account_id
        ),
        "accounts_provider_providerAccountId_key",
        True,
    ),
    "the accounts of a user": (lambda r: Account.objects.of_user(r["owner"](Account)), "accounts_userId_idx", True),
    "a session by token": (lambda r: Session.objects.by_token(r["token"]), "sessions_sessionToken_key", True),
    "the sessions of a user": (lambda r: Session.objects.of_user(r["owner"](Session)), "sessions_userId_idx", True),
    "the preferences of a user": (
        lambda r: UserPreferences.objects.of_user(r["owner"](UserPreferences)),
        "user_preferences_userId_key",
        True,
    ),
    "the saved searches of a user": (
        lambda r: SavedSearch.objects.of_user(r["owner"](SavedSearch)),
        "saved_searches_userId_lastSearched_idx",
        False,
    ),
    "the active alerts of a user": (
        lambda r: PriceAlert.objects.active_of_user(r["owner"](PriceAlert, active=True)),
        "price_alerts_userId_active_idx",
        True,
    ),
    "the monitor's queue": (lambda r: PriceAlert.objects.queue()[:100], "price_alerts_lastChecked_idx", True),
    "the alerts that are due": (
        lambda r: PriceAlert.objects.due(at=NOW, every=timedelta(hours=1))[:100],
        "price_alerts_lastChecked_idx",
        True,
    ),
    "the recent searches of a user": (
        lambda r: RecentSearch.objects.of_user(r["owner"](RecentSearch))[:10],
        "recent_searches_userId_viewedAt_idx",
        False,
    ),
    "the prices of a route": (
        lambda r: PriceHistory.objects.of_route(*r["route"])[:100],
        "price_history_origin_destination_departDate_idx",
        False,
    ),
    "the prices before a day": (
        lambda r: PriceHistory.objects.before(NOW - timedelta(days=360)),
        "price_history_timestamp_idx",
        True,
    ),
    "the newest monitor runs": (
        lambda r: PriceMonitorLog.objects.newest_first()[:10],
        "price_monitor_logs_executionTime_idx",
        True,
    ),
    "the wishlist of a user": (
        lambda r: WishlistItem.objects.of_user(r["owner"](WishlistItem)),
        "wishlist_items_userId_createdAt_idx",
        False,
    ),
    "the bell of a user": (
        lambda r: Notification.objects.of_user(r["owner"](Notification))[:20],
        "notifications_userId_createdAt_idx",
        True,
    ),
    "what a user has not read": (
        lambda r: Notification.objects.unread_of_user(r["owner"](Notification, read=False)),
        "notifications_userId_read_idx",
        True,
    ),
    "a push subscription by endpoint": (
        lambda r: PushSubscription.objects.at_endpoint(r["endpoint"]),
        "push_subscriptions_endpoint_key",
        True,
    ),
    "the push subscriptions of a user": (
        lambda r: PushSubscription.objects.of_user(r["owner"](PushSubscription)),
        "push_subscriptions_userId_idx",
        True,
    ),
    "the activities of a user": (
        lambda r: UserActivity.objects.of_user(r["owner"](UserActivity))[:50],
        "user_activities_userId_createdAt_idx",
        False,
    ),
    "the devices of a user": (
        lambda r: UserSession.objects.of_user(r["owner"](UserSession))[:50],
        "user_sessions_userId_lastActive_idx",
        False,
    ),
    "the sign-ins of a user": (
        lambda r: LoginHistory.objects.of_user(r["owner"](LoginHistory))[:50],
        "login_history_userId_timestamp_idx",
        False,
    ),
    "a conversation by session": (
        lambda r: Conversation.objects.by_session(r["session"]),
        "ai_conversations_sessionId_key",
        True,
    ),
    "the conversations of a user": (
        lambda r: Conversation.objects.of_user(r["owner"](Conversation))[:10],
        "ai_conversations_userId_idx",
        False,
    ),
    "the messages of a conversation": (
        lambda r: Message.objects.of_conversation(r["conversation"]),
        "ai_messages_conversationId_timestamp_idx",
        False,
    ),
}
# The order in which the site shows the rows: the column, and whether descending.
ORDERS = {
    "the saved searches of a user": ("last_searched", True),
    "the monitor's queue": ("last_checked", False),
    "the alerts that are due": ("last_checked", False),
    "the recent searches of a user": ("viewed_at", True),
    "the prices of a route": ("timestamp", True),
    "the newest monitor runs": ("execution_time", True),
    "the wishlist of a user": ("created_at", True),
    "the bell of a user": ("created_at", True),
    "the activities of a user": ("created_at", True),
    "the devices of a user": ("last_active", True),
    "the sign-ins of a user": ("timestamp", True),
    "the conversations of a user": ("updated_at", True),
    "the messages of a conversation": ("timestamp", False),
}
# Twins and prefixes that the guide's list keeps: the planner may take either.
TWINS = {
    "ai_conversations_sessionId_key": "ai_conversations_sessionId_idx",
    "saved_searches_userId_lastSearched_idx": "saved_searches_userId_idx",
    "wishlist_items_userId_createdAt_idx": "wishlist_items_userId_idx",
    "user_sessions_userId_lastActive_idx": "user_sessions_userId_idx",
    "ai_messages_conversationId_timestamp_idx": "ai_messages_conversationId_idx",
}


def nodes(plan):
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_sites_queries_use_their_indexes(question, rows, django_db_blocker):
    ask, index, ordered = QUESTIONS[question]
    with django_db_blocker.unblock():
        queryset = ask(rows)
        (plan,) = json.loads(queryset.explain(format="json", analyze=True))
        answer = list(queryset)

    steps = list(nodes(plan["Plan"]))
    used = {step["Index Name"] for step in steps if "Index Name" in step}
    assert used <= {index, TWINS.get(index)}
    assert used
    assert answer
    for name, downwards in [ORDERS[question]] if question in ORDERS else []:
        keys = [getattr(row, name) for row in answer]
        assert len(keys) > 1
        assert keys == sorted(keys, reverse=downwards)
    assert not [step for step in steps if step["Node Type"] == "Seq Scan"]
    if ordered:
        assert not [step for step in steps if step["Node Type"] == "Sort"]


@pytest.mark.slow
def test_the_queries_return_the_rows_they_name(rows, django_db_blocker):
    with django_db_blocker.unblock():
        mine = Notification.objects.filter(user_id=rows["user"])
        newest = list(Notification.objects.of_user(rows["user"]))
        unread = set(Notification.objects.unread_of_user(rows["user"]))
        said = list(Message.objects.of_conversation(rows["conversation"]))

        assert newest == sorted(mine, key=lambda n: n.created_at, reverse=True)
        assert unread == {n for n in mine if not n.read}
        assert [m.timestamp for m in said] == sorted(m.timestamp for m in said)
        assert {m.conversation_id for m in said} == {rows["conversation"]}


@pytest.mark.django_db
def test_an_alert_is_due_unless_it_is_off_triggered_or_was_just_checked():
    user = User.objects.create_user("ana@example.com")

    def alert(**changes):
        values = {"active": True, "triggered": False, "last_checked": NOW - timedelta(hours=7)} | changes
        return PriceAlert.objects.create(
            user=user, origin="GRU", destination="LIS", depart_date="2026-07-01", current_price=1, target_price=1, **values
        )

    later, sooner = alert(), alert(last_checked=NOW - timedelta(hours=6))
    alert(active=False)
    alert(triggered=True)
    alert(last_checked=NOW - timedelta(hours=5, minutes=59))

    assert list(PriceAlert.objects.due(at=NOW)) == [later, sooner]
