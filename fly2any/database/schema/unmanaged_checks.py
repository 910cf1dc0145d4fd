"""Unmanaged checks and exclusion constraints on our tables that make our writes fail, or could."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..findings import Finding, Severity
from . import cures
from .expressions import changes, is_total
from .objects import Check, Column, where
from .unmanaged_findings import MAY_REFUSE, TRY, obstacle
from .unmanaged_keys import Keys

CHANGES = "Ask its owner whether it may refuse rows later."


class Checks(Keys):
    def of_check(self, check: Check) -> Iterator[Finding]:
        managed = set(check.columns) & self.managed(check.table).keys()
        if not check.enforced or (not managed and not check.columns and self.live is None):
            return
        title = f"Constraint {check.name} of {check.table}, {' '.join(check.expression.split())}, is unmanaged"
        if not check.expression.startswith("CHECK "):  # In an exclusion constraint, NULL conflicts with nothing.
            equal = {one.strip('"') for one in re.findall(r'[(,] ?("[^"]+"|\w+) WITH =(?=[,)])', check.expression)}
            equal |= {*check.columns[:-1]} if check.expression.startswith("UNIQUE ") else set()
            told = any(key.table == check.table and set(key.columns) <= equal for key in self.expected.keys)
            if not told and not any(self.is_null(check.table, name) for name in check.columns):
                yield obstacle("check.extra", check, f"{title}, and refuses rows that the contract allows.", cures.drop(check))
            return
        yield from self.of_condition(check, title)

    def of_condition(self, check: Check, title: str) -> Iterator[Finding]:
        check = self.expanded_check(check)
        managed = set(check.columns) & self.managed(check.table).keys()
        body = check.expression.removeprefix("CHECK ")
        if any(c.table == check.table and c.expression == check.expression for c in self.expected.checks):
            return
        inserted = self.rows(check.table, check.columns, inserted=True)
        if self.never(check, f"{body} IS NOT FALSE", inserted):
            yield obstacle(
                "check.extra", check, f"{title}, and refuses every row that we INSERT.", cures.drop(check), Severity.ERROR
            )
        elif managed:
            proved = self.allows_all(check, body)
            if not (proved and is_total(body)):
                yield self.of_unproved(check, title, body, proved=proved)
        elif not ((proved := self.never(check, f"NOT {body}", inserted)) and is_total(body)):
            yield from self.of_inserted(check, title, body, proved=proved)

    def of_existing_rows(self, thing: Check | Column, what: str, name: str) -> Iterator[Finding]:
        """Yield the note about a constraint that accepts what we write, but was never validated."""
        valid = thing.validated if isinstance(thing, Column) else thing.valid
        if not valid and (isinstance(thing, Column) or thing.enforced):
            yield Finding(
                Severity.NOTE,
                "column.extra" if isinstance(thing, Column) else "check.extra",
                where(thing),
                f"The unmanaged {what} {name} of {thing.table} is NOT VALID: an existing row that violates it cannot be updated.",
                "Ask its owner to run ALTER TABLE … VALIDATE CONSTRAINT, which fails if there is such a row.",
            )

    def of_inserted(self, check: Check, title: str, body: str, *, proved: bool) -> Iterator[Finding]:
        """Yield the finding about a check of what our INSERT stores in unmanaged columns; one `proved` to refuse none may raise an error."""
        trial = self.trial(check, f"({body}) IS FALSE", check.columns)
        if trial.refused:
            refuses = f"{trial.refused}, which every INSERT stores" if check.columns else "every row now"
            message = f"{title}, and refuses {refuses}."
            yield obstacle("check.extra", check, message, cures.drop(check), Severity.ERROR)
        elif trial.raised:
            yield self.raising("check.extra", check, f"{title}, and", trial, cures.drop(check))
        elif not trial.known:
            message = f"{title}, and was not tried with what our INSERT stores."
            yield Finding(Severity.NOTE, "check.extra", where(check), message, TRY)
        elif changes(body) and not proved:
            message = f"{title}, and accepts what our INSERT stores now, but depends on the time or the session."
            yield Finding(Severity.NOTE, "check.extra", where(check), message, CHANGES)

    def of_unproved(self, check: Check, title: str, body: str, *, proved: bool) -> Finding:
        """Return the finding about a check that may refuse rows, or, where that is `proved` to be impossible, raise an error."""
        trial = self.trial(check, f"({body}) IS FALSE", check.columns)
        if trial.raised and not trial.refused:
            return self.raising("check.extra", check, f"{title}, and", trial, cures.drop(check))
        if trial.refused or not (trial.known or proved):
            refuses = f"refuses rows that the contract allows, such as {trial.refused}" if trial.refused else MAY_REFUSE
            return obstacle("check.extra", check, f"{title}, and {refuses}.", cures.drop(check))
        return self.untried(
            "check.extra", check, title, trial, f"a write fails where it {'raises an error' if proved else 'is false'}"
        )
