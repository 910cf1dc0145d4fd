"""The report of a database: its findings except waived ones, their severity, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import Error

from ..backup.inventory import BackupState
from ..clock import read_clock
from ..distribution.citus import Citus, read_citus
from ..errors import explain, sqlstate
from ..exit_codes import ExitCode
from ..findings import Finding, Severity
from ..health.examine import Question, Topic, examine
from ..health.extensions import library
from ..health.wraparound import wraparound
from ..verification import Verification, verify
from .waivers import Waiver, waive

# Findings that a deploy cannot fix or fixes itself, those about keys and expressions of other tables, and newer migrations, which remain
# when older code is deployed again: notes with `release`.
NOT_OF_A_RELEASE = (
    "server.",
    "backup.",
    "security.",
    "replication.",
    "wraparound.",
    "foreign_key.restricts",
    "object.unprintable",
    "migrations.unknown",
)

# With them the schema reports an invalid index, and its cure: the topic of indexes does not report it again.
OF_INVALID = ("index.extra", "index.weaker", "index.different", "unique.weaker", "primary_key.weaker")

# Without transaction IDs left, or the library that an index of ours needs, writes fail.
URGENT: dict[str, Question] = {"wraparound": wraparound, "extensions": library}


@dataclass(frozen=True, slots=True)
class Report:
    """The results for a database, and the findings that count; `verification` and `backups` are None if they were not requested."""

    alias: str
    at: datetime  # by the server's clock
    verification: Verification | None
    backups: BackupState | None
    health: tuple[Topic, ...]
    security: tuple[Topic, ...]
    findings: tuple[Finding, ...]
    waived: tuple[tuple[Finding, Waiver], ...]
    write_checked: tuple[str, ...] | None = None  # tables that passed the write check
    write_untried: tuple[str, ...] = ()  # "table (check)": a check of the contract refused the sample row
    write_failed: bool = False
    citus: Citus | None = None  # of a distributed database

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Return the findings that are errors or warnings; reports count them as findings."""
        return serious(self.findings)

    @property
    def notes(self) -> int:
        return len(self.findings) - len(self.problems)

    @property
    def exit_code(self) -> int:
        """Return 0, 4 (findings), or 2 if a write check failed or no topic of health answered; without health also 1 (migrations
        pending) or 5 (both)."""
        if self.write_failed:
            return ExitCode.REFUSED
        found = self.problems
        if self.health:
            unanswered = all(topic.trouble for topic in self.health)
            return ExitCode.REFUSED if unanswered else ExitCode.FOUND if found else ExitCode.OK
        pending = self.verification is not None and self.verification.migrations.pending
        if found:
            return ExitCode.FOUND_AND_PENDING if pending else ExitCode.FOUND
        return ExitCode.PENDING if pending else ExitCode.OK


def serious(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that are more than notes."""
    return tuple(finding for finding in findings if finding.severity is not Severity.NOTE)


def collect(
    connection,
    *,
    verification: Verification | None = None,
    backups: BackupState | None = None,
    health: dict[str, Question] | None = None,
    security: dict[str, Question] | None = None,
    found: Iterable[Finding] = (),
    waivers: Iterable[Waiver] = (),
    release: bool = False,
) -> Report:
    """Return the report of the given results, and of the topics `health` and `security`, which are queried here.

    With a verification it always has the findings of URGENT.
    `found` are findings of the caller. With `release`, those of NOT_OF_A_RELEASE do not count. Raises django.db.Error if the
    database cannot be reached.
    """
    topics, guards = examine(connection, health or {}), examine(connection, security or {})
    urgent: tuple[Topic, ...] = ()
    if verification:
        asked = {name: question for name, question in URGENT.items() if name not in (health or {})}
        urgent = examine(connection, asked, schema=verification.server.schema or "")
    at = verification.server.clock.now() if verification else read_clock(connection).now()
    citus, of_citus = _citus(connection, verification) if verification else (None, ())
    invalid = {one.where for one in verification.findings if one.code in OF_INVALID} if verification else set()
    everything = [
        *found,
        *(verification.findings if verification else ()),
        *of_citus,
        *(backups.findings() if backups else ()),
        *(
            one
            for one in _of_topics((*topics, *urgent), "health.not_asked")
            if one.code != "indexes.invalid" or one.where not in invalid
        ),
        *_of_topics(guards, "security.not_asked"),
    ]
    left, waived, expired = waive(dict.fromkeys(everything), tuple(waivers), at.date())
    counting = (*left, *expired)
    if release:
        noted = (replace(f, severity=Severity.NOTE) if f.code.startswith(NOT_OF_A_RELEASE) else f for f in counting)
        counting = tuple(noted)
    return Report(connection.alias, at, verification, backups, topics, guards, counting, tuple(waived), citus=citus)


def _citus(connection, verification: Verification) -> tuple[Citus | None, tuple[Finding, ...]]:
    try:
        return read_citus(connection, schema=verification.server.schema or "")
    except Error as error:
        return None, (_not_asked("distribution.node", "Citus", "Citus", explain(error) or str(error)),)


def compare_and_collect(
    connection, *, limited: AbstractContextManager[Any] | None = None, found: Iterable[Finding] = (), **wanted: Any
) -> Report:
    """Return the report with the comparison of the schema, or with a finding that says why it cannot be compared now.

    `limited` is the context in which the comparison runs; `found` and the arguments in `wanted` are those of `collect`.
    """
    with limited or nullcontext():
        verification, trouble = verify_or_report(connection)
    return collect(connection, verification=verification, found=(*found, *trouble), **wanted)


def verify_or_report(connection) -> tuple[Verification | None, tuple[Finding, ...]]:
    """Return the verification, or a finding that says why the schema cannot be compared now, for example because a table is locked."""
    connection.ensure_connection()
    try:
        return verify(connection), ()
    except Error as error:
        found = _not_asked("health.not_asked", "schema", "The schema", explain(error) or str(error))
        if sqlstate(error) == "57014":
            found = replace(found, cure="Run `manage.py dbstatus`, which sets no time limit.")
        return None, (found,)


def _of_topics(topics: Iterable[Topic], code: str) -> Iterator[Finding]:
    """Yield the findings of topics, and one for each that could not be queried: otherwise the report would look complete."""
    for topic in topics:
        yield from topic.findings
        if topic.trouble:
            yield _not_asked(code, topic.name, f"The topic {topic.name}", topic.trouble)


def _not_asked(code: str, where: str, what: str, why: str) -> Finding:
    return Finding(
        Severity.WARNING,
        code,
        where,
        f"{what} could not be queried: {why}",
        "Fix the reported cause, or connect as a role that may read it.",
    )
