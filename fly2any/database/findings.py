"""Findings: what is wrong with a database, where, and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"  # Data, writes or plans are at risk.
    WARNING = "warning"  # It works, but not as the contract or the guide requires.
    NOTE = "note"  # Worth knowing; never changes the exit code.


# All codes, explained in docs/reference/findings.md. Never reuse one for something else.
CODES = frozenset(
    [
        "table.missing",
        "table.renamed",
        "table.different",
        "table.weaker",
        "table.unidentified",
        "column.missing",
        "column.renamed",
        "column.different",
        "column.weaker",
        "column.extra",
        "column.sequence",
        "default.missing",
        "default.different",
        "default.extra",
        "primary_key.missing",
        "primary_key.renamed",
        "primary_key.different",
        "primary_key.weaker",
        "unique.missing",
        "unique.renamed",
        "unique.different",
        "unique.weaker",
        "unique.extra",
        "check.missing",
        "check.renamed",
        "check.different",
        "check.weaker",
        "check.extra",
        "index.missing",
        "index.renamed",
        "index.different",
        "index.weaker",
        "index.extra",
        "trigger.extra",
        "tables.untrusted",
        "foreign_key.missing",
        "foreign_key.renamed",
        "foreign_key.different",
        "foreign_key.weaker",
        "foreign_key.extra",
        "foreign_key.restricts",
        "migrations.unknown",
        "migrations.unrecorded",
        "migrations.out_of_order",
        "migrations.unreadable",
        "migrations.untrusted",
        "migrations.failed",
        "migrations.by_prisma",
        "database.read_only",
        "database.float_digits",
        "server.tls",
        "server.time_zone",
        "server.connections",
        "server.privileges",
        "contract.stale",
        "adopt.in_use",
        "adopt.computed",
        "adopt.name_taken",
        "adopt.prisma_failed",
        "adopt.prisma_unreadable",
        "adopt.extension",
        "adopt.not_owner",
        "connections.near_limit",
        "locks.blocked",
        "transactions.idle",
        "transactions.long",
        "transactions.prepared",
        "queries.not_counted",
        "queries.slow",
        "queries.heavy",
        "indexes.invalid",
        "indexes.redundant",
        "indexes.unused",
        "indexes.bloat",
        "indexes.missing",
        "tables.dead_rows",
        "tables.not_analysed",
        "sequences.near_end",
        "cache.misses",
        "replication.lag",
        "replication.slot",
        "replication.unreachable",
        "replication.not_standby",
        "wraparound.near",
        "settings.wrong",
        "extensions.outdated",
        "waiver.expired",
        "backup.none",
        "backup.old",
        "backup.bad",
        "backup.unverified",
        "backup.unreadable",
        "backup.elsewhere",
        "server.schema",
        "server.standby",
        "server.event_trigger",
        "server.clock",
        "server.leftover",
        "server.encoding",
        "server.collation",
        "maintenance.unfinished",
        "maintenance.locked",
        "maintenance.not_owner",
        "maintenance.failed",
        "health.not_asked",
        "security.not_asked",
        "security.api",
        "security.role",
        "security.public",
        "security.ledger",
        "security.column",
        "security.view",
        "security.publication",
        "security.owner",
        "security.member",
        "security.child",
        "security.default_privileges",
        "security.create",
        "security.replication_role",
        "security.definer",
        "security.event_trigger",
        "security.trigger",
        "security.tls_version",
        "security.plain_sessions",
        "security.unverified",
        "security.role_password",
        "security.password_kind",
        "security.password_cost",
        "security.second_factor",
        "security.idle_staff",
        "security.trust",
        "security.method",
        "security.open",
        "security.audit",
        "security.django",
        "security.weak_password",
        "security.readable_file",
        "security.key_beside",
    ]
)


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    code: str
    where: str  # table, table.column, table.constraint, …
    message: str  # one sentence
    cure: str  # SQL, a command, or a sentence
    is_sql: bool = False  # whether the cure is only SQL, one statement per line
    loses: str = ""  # the data that such a cure loses, or what must be done before it

    def __post_init__(self):
        if self.code not in CODES:
            raise ValueError(f"{self.code} is not one of the codes")
