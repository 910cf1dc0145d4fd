"""Which rows of which table can be too old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import Refusal


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of `table` are too old where `age`, a time, is before a day and `only` holds; `child` is a table whose rows go with them."""

    table: str
    what: str  # As a person calls them.
    age: str  # SQL, as `only`.
    only: str = "true"
    child: str = ""
    child_key: str = ""
    archived: bool = True  # Not what is a secret and of no use once it expired.

    @property
    def condition(self) -> str:
        """Return SQL for the rows before %(before)s."""
        return f"{self.age} < %(before)s AND {self.only}"


RULES = {
    rule.table: rule
    for rule in (
        Rule("price_history", "prices", "timestamp"),
        Rule("price_monitor_logs", "runs of the price monitor", '"executionTime"'),
        Rule("user_activities", "activities", '"createdAt"'),
        Rule("login_history", "sign-ins", "timestamp"),
        Rule("notifications", "notifications that were read", 'GREATEST("createdAt", "readAt")', "read"),
        Rule("recent_searches", "recent searches", '"viewedAt"'),
        Rule(
            "ai_conversations", "finished conversations", '"updatedAt"', "status IN ('completed', 'abandoned')",
            child="ai_messages", child_key="conversationId",
        ),
        Rule("sessions", "expired sessions of NextAuth", "expires", archived=False),
        Rule("user_sessions", "devices not used any more", '"lastActive"', archived=False),
        Rule("verification_tokens", "expired tokens", "expires", archived=False),
        Rule("django_session", "expired sessions of the admin", "expire_date", archived=False),
        Rule(
            "axes_accessattempt", "failed sign-ins to the admin", "attempt_time", archived=False,
            child="axes_accessattemptexpiration", child_key="access_attempt_id",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Due:
    """A rule that is switched on: what is older than `days` goes."""

    rule: Rule
    days: int

    def before(self, now: datetime) -> datetime:
        return now - timedelta(days=self.days)


def switched_on(days: Mapping[str, int]) -> tuple[Due, ...]:
    """Return the rules that are switched on, in the order of RULES; raise Refusal for a table that has none."""
    if unknown := [table for table in days if table not in RULES]:
        raise Refusal(f"RETENTION names {unknown[0]}, for which there is no rule: there are {', '.join(RULES)}.")
    return tuple(Due(rule, days[table]) for table, rule in RULES.items() if table in days)
