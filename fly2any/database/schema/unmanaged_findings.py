"""Findings about unmanaged objects: how they are worded, and what follows from a trial with sample rows (samples.py)."""

from __future__ import annotations

import shlex
from dataclasses import replace

from ..findings import Finding, Severity
from . import cures
from .allowed_rows import Allowed
from .expressions import SEARCHED, is_total
from .objects import Check, Column, Index, Object, where
from .samples import Clash, Trial

# Unmanaged objects have an owner: their cure must not be pasted without asking first.
AGREE = "Ask its owner first, then run: "
MAY_REFUSE = "may refuse rows that the contract allows"
TRY = "`manage.py dbstatus --write-check` tries it; read its definition with \\d+ in `manage.py dbshell`."

SHORTEN = (
    "Ask its owner to shorten what it reads, as in to_tsvector('english', left(content, 50000)), if texts may be that long."
)


def obstacle(code: str, thing: Object, message: str, cure: str, severity: Severity = Severity.WARNING) -> Finding:
    if isinstance(thing, Column) or code == "index.extra" or severity is Severity.ERROR:  # Nothing could be written.
        return Finding(severity, code, where(thing), message, f"{AGREE}{cure}")
    keep = cures.comment(
        f"Or keep it: `manage.py dbstatus --take-over {shlex.quote(where(thing))}` writes the migration that takes it over."
    )
    return Finding(severity, code, where(thing), message, f"{AGREE}{cure}\n{keep}")


class Obstacles(Allowed):
    def raising(self, code: str, thing: Check | Index | Column, what: str, trial: Trial, cure: str) -> Finding:
        if trial.always:
            message = f"{what} raises an error for each sample row, such as {trial.raised}: writes fail."
            return obstacle(code, thing, message, cure, Severity.ERROR)
        message = f"{what} raises an error for rows that the contract allows, such as {trial.raised}."
        return obstacle(code, thing, message, cure)

    def may_raise(
        self, code: str, thing: Object, title: str, trial: Trial, expressions: str, *, nulls: bool = False
    ) -> Finding:
        """Return the note about expressions that raised no error for the rows that were tried."""
        if not nulls and SEARCHED.search(expressions) and is_total(SEARCHED.sub("(", expressions)):
            found = self.untried(
                code, thing, title, trial, f"a write fails where {expressions} reads more than 1 MB of different words"
            )
            return replace(found, cure=SHORTEN)
        return self.untried(
            code, thing, title, trial, f"a write fails where {expressions} {'is NULL or ' if nulls else ''}raises an error"
        )

    def untried(self, code: str, thing: Object, title: str, trial: Trial | Clash, risk: str) -> Finding:
        how = "refused no sample row" if trial.known else "was not tried"
        return Finding(Severity.NOTE, code, where(thing), f"{title} and {how}: {risk}.", TRY)
