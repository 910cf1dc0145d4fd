"""Rows that are too old, and the commands that remove and restore them."""

import time
from datetime import UTC, datetime
from pathlib import Path

from fly2any.database.backup.store import store_at
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep
from tests.conftest import django, manage

EVERY = ",".join(f"{table}={int(not rule.expires)}" for table, rule in RULES.items())
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = "2025-12-31 23:59:59+00", "2026-01-01 00:00:00+00"
# For each table, the values of a row to delete, and changes that each suffice to keep it.
CASES = {
    "price_history": ({"timestamp": OLD}, [{"timestamp": NEW}]),
    "price_monitor_logs": ({"executionTime": OLD}, [{"executionTime": NEW}]),
    "user_activities": ({"createdAt": OLD}, [{"createdAt": NEW}]),
    "login_history": ({"timestamp": OLD}, [{"timestamp": NEW}]),
    "notifications": ({"createdAt": OLD, "readAt": None, "read": True}, [{"createdAt": NEW}, {"readAt": NEW}, {"read": False}]),
    "recent_searches": ({"viewedAt": OLD}, [{"viewedAt": NEW}]),
    "ai_conversations": ({"updatedAt": OLD, "status": "abandoned"}, [{"updatedAt": NEW}, {"status": "active"}]),
    "sessions": ({"expires": OLD}, [{"expires": NEW}]),
    "user_sessions": ({"lastActive": OLD}, [{"lastActive": NEW}]),
    "verification_tokens": ({"expires": OLD}, [{"expires": NEW}]),
    "django_session": ({"expire_date": OLD}, [{"expire_date": NEW}]),
    "axes_accessattempt": ({"attempt_time": OLD}, [{"attempt_time": NEW}]),
}  # fmt: skip
MUST = {
    "price_history": {"origin": "JFK", "destination": "LIS", "departDate": "2026-02-01", "price": 1, "provider": "mock"},
    "price_monitor_logs": {"alertsChecked": 1, "alertsTriggered": 0, "alertsFailed": 0, "duration": 1, "triggeredBy": "cron"},
    "user_activities": {"eventType": "view"},
    "login_history": {"userId": "u"},
    "notifications": {"userId": "u", "type": "promotion", "title": "t", "message": "m"},
    "recent_searches": {"userId": "u", "city": "Lisbon", "country": "PT", "airportCode": "LIS", "price": 1},
    "ai_conversations": {"sessionId": None, "metadata": "{}"},
    "sessions": {"userId": "u", "sessionToken": None},
    "user_sessions": {"userId": "u", "token": None},
    "verification_tokens": {"identifier": "a@b.c", "token": None},
    "django_session": {"session_data": "x"},
    "axes_accessattempt": {
        "user_agent": "",
        "http_accept": "",
        "path_info": "",
        "get_data": "",
        "post_data": "",
        "failures_since_start": 1,
    },
}


KEYS = {"django_session": "session_key", "axes_accessattempt": "username"}  # Tables without a text key "id".


def put(database, table, key, values):
    """Insert a row whose unique columns hold its key."""
    name = KEYS.get(table, "id")
    row = {name: key, **{column: value if value is not None else key for column, value in MUST[table].items()}, **values}
    columns = ", ".join(f'"{column}"' for column in row)
    database.execute(f'INSERT INTO "{table}" ({columns}) VALUES ({", ".join(["%s"] * len(row))})', list(row.values()))


def swept(database, table, archives=None, **options):
    with django(database) as connection:
        options = {"deadline": time.monotonic() + 60, "before": BEFORE, **options}
        place = archives and Archives(store_at(str(archives)), database.name)
        return sweep(connection, RULES[table], archives=place, progress=Progress(), **options)


def maintain(database, *words, **environment):
    result = manage("dbmaintain", *words, url=database.url, **environment)
    assert "Traceback" not in result.stderr
    return result


def put_back(database, archives):
    for name in sorted(path.stem for path in Path(archives).glob("*.json")):
        result = manage("dbrestore", "--archive", name, url=database.url, ARCHIVE_LOCATION=str(archives))
        assert result.returncode == 0, result.stderr
