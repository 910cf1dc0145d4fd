"""The rules of retention: the models' `retention` declarations, as SQL. How many days rows stay is settings.RETENTION.

The tables of Django and of packages are declared in administration/package_facts.py. sweep.py finds the rows, removal.py deletes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import models

from ..errors import Refusal
from ..facts import Retention, column_of, declared
from ..schema.relation_kinds import Kind
from ..sql import quote


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of `table` are too old where `time`, a time, is before a given one and `only` holds.

    `child` is a table whose rows are deleted with them. While the time `child_time` of one of these is not before that time, the row stays.
    """

    table: str
    what: str  # A noun phrase.
    time: str  # SQL expressions, like `only`.
    only: str = "true"
    child: str = ""
    child_key: str = ""
    child_time: str = ""
    archived: bool = True
    expires: bool = False
    key: str = "id"
    kinds: frozenset[Kind] = frozenset({Kind.PLAIN})  # The kinds of `table` and `child`.

    @property
    def by_key(self) -> bool:
        """Return whether rows are in partitions or shards, which a scan of the table's own blocks does not reach."""
        return not all(kind.has_blocks for kind in self.kinds)

    @property
    def is_of_citus(self) -> bool:
        return any(kind.is_of_citus for kind in self.kinds)

    @property
    def rows(self) -> str:
        """Return SQL for the table as FROM takes it."""
        return quote(self.table) if self.by_key else f"ONLY {quote(self.table)}"

    @property
    def children(self) -> str:
        """Return SQL for the table of the rows that are deleted with them, as FROM takes it."""
        return quote(self.child) if self.by_key else f"ONLY {quote(self.child)}"

    @property
    def tables(self) -> list[str]:
        return [table for table in (self.table, self.child) if table]

    @property
    def part(self) -> str:
        """Return SQL for a part of the table: the rows with %(keys)s, or from block %(first)s until %(last)s."""
        return f"{quote(self.key)} = ANY (%(keys)s)" if self.by_key else "ctid >= %(first)s::tid AND ctid < %(last)s::tid"

    @property
    def condition(self) -> str:
        """Return SQL for the rows before %(before)s."""
        old = f"{self.time} < %(before)s AND {self.only}"
        if not self.child_time:
            return old
        key, child_key = f"{quote(self.table)}.{quote(self.key)}", f"c.{quote(self.child_key)}"
        recent = f"FROM {quote(self.child)} AS c WHERE c.{self.child_time} >= %(before)s AND {child_key}"
        if self.is_of_citus:  # Citus rejects a subquery over shards that refers to the row.
            return f"{old} AND {key} NOT IN (SELECT {child_key} {recent} IS NOT NULL)"
        return f"{old} AND NOT EXISTS (SELECT 1 {recent} = {key})"


def key_of(model: type[models.Model]) -> str:
    """Return the column of the primary key."""
    return column_of(model, model._meta.pk.name)


def rule_of(model: type[models.Model], retention: Retention) -> Rule:
    """Return the rule that a model declares."""
    times = [quote(column_of(model, field)) for field in retention.fields]
    time = times[0] if len(times) == 1 else f"GREATEST({', '.join(times)})"
    child, child_key, child_time = "", "", ""
    if retention.with_rows:
        relation: Any = model._meta.get_field(retention.with_rows)
        child, child_key = relation.related_model._meta.db_table, relation.field.column
        if retention.time_of_rows:
            child_time = quote(column_of(relation.related_model, retention.time_of_rows))
    return Rule(
        model._meta.db_table,
        retention.what,
        time,
        retention.only,
        child,
        child_key,
        child_time,
        retention.archived,
        retention.expires,
        key_of(model),
    )


# Tables with archives first: they are the large ones, and a run may have to stop early.
RULES = {
    rule.table: rule
    for rule in sorted(
        (rule_of(model, retention) for model, retention in declared("retention")), key=lambda rule: not rule.archived
    )
}


@dataclass(frozen=True, slots=True)
class Due:
    """A rule that is switched on: rows older than `days` are deleted."""

    rule: Rule
    days: int

    def before(self, now: datetime) -> datetime:
        return now - timedelta(days=self.days)


def switched_on(days: Mapping[str, int]) -> tuple[Due, ...]:
    """Return the rules that are switched on, in the order of RULES; raise Refusal for a table without a rule.

    Also raises it for 0 days unless the rows expire, because all of them would be deleted.
    """
    if unknown := [table for table in days if table not in RULES]:
        raise Refusal(f"RETENTION names {unknown[0]}, which has no rule. Tables with a rule: {', '.join(RULES)}.")
    if emptied := [table for table, number in days.items() if number == 0 and not RULES[table].expires]:
        raise Refusal(
            f"RETENTION={emptied[0]}=0 would delete every row of {emptied[0]}. Leave {emptied[0]} out to keep its rows, or write 1 or"
            " more days."
        )
    return tuple(Due(rule, days[table]) for table, rule in RULES.items() if table in days)
