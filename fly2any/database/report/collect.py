"""The one report of a database: what is found, less what is waived, how serious it is, and the exit code that says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import Error

from ..backup.inventory import Newest
from ..clock import read_clock
from ..errors import explain
from ..exit_codes import ExitCode
from ..findings import Finding, Severity
from ..health.examine import Question, Topic, examine
from ..verification import Verification, verify
from .waivers import Waiver, waive

# What a deploy cannot fix, or fixes itself, and the keys of the site's own tables: with `release` it is a note.
NOT_OF_A_RELEASE = ("server.", "backup.", "security.", "foreign_key.restricts")


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked of a database, and the findings that count; `verification` and `backups` are None where they were not wanted."""

    alias: str
    at: datetime  # by the server's clock
    verification: Verification | None
    backups: Newest | None
    health: tuple[Topic, ...]
    security: tuple[Topic, ...]
    findings: tuple[Finding, ...]
    waived: tuple[tuple[Finding, Waiver], ...]
    write_checked: tuple[str, ...] | None = None  # the tables that took a row and gave it back
    write_failed: bool = False

    @property
    def exit_code(self) -> int:
        """Return 0, 4 (findings), 2 where a write check failed or no topic of health answered; without health 1 (migrations pending) or 5 (both) too."""
        if self.write_failed:
            return ExitCode.REFUSED
        found = serious(self.findings)
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
    backups: Newest | None = None,
    health: dict[str, Question] | None = None,
    security: dict[str, Question] | None = None,
    found: Iterable[Finding] = (),
    waivers: Iterable[Waiver] = (),
    release: bool = False,
) -> Report:
    """Return the report of what is given, and of the topics `health` and `security`, which are asked here.

    `found` is what the caller found itself. `release`: what is found of the server, of backups and of security does not
    count. Raises django.db.Error if the database cannot be reached.
    """
    topics, guards = examine(connection, health or {}), examine(connection, security or {})
    at = verification.clock.now() if verification else read_clock(connection).now()
    everything = [
        *found,
        *(verification.findings if verification else ()),
        *(backups.findings() if backups else ()),
        *_of_topics(topics, "health.not_asked"),
        *_of_topics(guards, "security.not_asked"),
    ]
    left, waived, expired = waive(dict.fromkeys(everything), tuple(waivers), at.date())
    counting = (*left, *expired)
    if release:
        noted = (replace(f, severity=Severity.NOTE) if f.code.startswith(NOT_OF_A_RELEASE) else f for f in counting)
        counting = tuple(noted)
    return Report(connection.alias, at, verification, backups, topics, guards, counting, tuple(waived))


def compare_and_collect(
    connection, *, limited: AbstractContextManager[Any] | None = None, found: Iterable[Finding] = (), **wanted: Any
) -> Report:
    """Return the report with the comparison of the schema, or with the finding why it cannot be compared now.

    `limited` is what the comparison runs in; `found` and `wanted` are those of `collect`.
    """
    with limited or nullcontext():
        verification, trouble = verify_or_say(connection)
    return collect(connection, verification=verification, found=(*found, *trouble), **wanted)


def verify_or_say(connection) -> tuple[Verification | None, tuple[Finding, ...]]:
    """Return the verification, or why the schema cannot be compared now, as where a table is locked: the rest is asked all the same."""
    connection.ensure_connection()
    try:
        return verify(connection), ()
    except Error as error:
        return None, (_not_asked("health.not_asked", "schema", explain(error) or str(error)),)


def _of_topics(topics: Iterable[Topic], code: str) -> Iterator[Finding]:
    """Yield what topics found, and which could not be asked: without that, a report with no findings would look complete."""
    for topic in topics:
        yield from topic.findings
        if topic.trouble:
            yield _not_asked(code, topic.name, topic.trouble)


def _not_asked(code: str, where: str, why: str) -> Finding:
    return Finding(
        Severity.WARNING,
        code,
        where,
        f"It could not be queried: {why}",
        "Fix the reported cause, or connect as a role that may read it.",
    )
