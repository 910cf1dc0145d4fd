"""Waivers: findings that a named person accepts until a date, in the file `settings.WAIVERS` (waivers.toml beside manage.py)."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from django.conf import settings

from ..errors import Refusal
from ..findings import CODES, Finding, Severity
from ..units import plural

# Codes, and their first words, that cannot be waived: a waiver would hide drift, blockers of an adoption, an expired waiver, or code of
# another role that would run.
NEVER = (
    "table",
    "column",
    "default",
    "primary_key",
    "unique",
    "check",
    "index",
    "trigger",
    "rule",
    "foreign_key",
    "migrations",
    "contract",
    "adopt",
    "waiver",
    "tables.untrusted",
)


# Findings about the site's own tables, which may be waived.
OF_THE_SITE = ("foreign_key.restricts",)


@dataclass(frozen=True, slots=True)
class Waiver:
    """A finding that does not count until the end of a day, with the person who accepted it and the reason."""

    code: str
    where: str
    owner: str
    until: date
    reason: str


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """Return the waivers in the TOML file `path`, none if it does not exist; raise Refusal if it is malformed."""
    if not path.exists():
        return ()
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("waiver", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refusal(f"{path} cannot be read as TOML ({str(error).rstrip('.')}): correct it.") from error
    waivers = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
        names = {"code": str, "where": str, "owner": str, "until": date, "reason": str}
        if (
            not isinstance(entry, dict)
            or set(entry) != set(names)
            or not all(type(entry[name]) is kind for name, kind in names.items())
        ):
            wrong = [name for name in names if not isinstance(entry, dict) or type(entry.get(name)) is not names[name]]
            wrong += sorted(set(entry) - set(names)) if isinstance(entry, dict) else []
            raise Refusal(
                f"Waiver {number} in {path} must have exactly code, where, owner, until (a date without quotes) and reason:"
                f" correct {', '.join(wrong)}."
            )
        if entry["code"] not in CODES:
            raise Refusal(
                f"Waiver {number} in {path} names {entry['code']}, which is not a finding: docs/reference/findings.md lists the codes."
            )
        if entry["code"] not in OF_THE_SITE and (entry["code"] in NEVER or entry["code"].partition(".")[0] in NEVER):
            raise Refusal(f"Waiver {number} in {path} names {entry['code']}, which cannot be waived: fix what it finds.")
        waivers.append(Waiver(**entry))
    return tuple(waivers)


def known_waivers() -> tuple[Waiver, ...]:
    """Return the waivers; if the file cannot be read, log that and return none."""
    try:
        return read_waivers(settings.WAIVERS)
    except Refusal as refusal:
        logging.getLogger("fly2any.waivers").warning("nothing is waived: %s", refusal)
        return ()


def waive(
    findings: Iterable[Finding], waivers: Iterable[Waiver], today: date
) -> tuple[list[Finding], list[tuple[Finding, Waiver]], list[Finding]]:
    """Return the findings that count, those that are waived, and a finding for each waiver whose day is before `today`."""
    holding = {(waiver.code, waiver.where): waiver for waiver in waivers if waiver.until >= today}
    left, waived = [], []
    for finding in findings:
        if waiver := holding.get((finding.code, finding.where)):
            waived.append((finding, waiver))
        else:
            left.append(finding)
    return left, waived, [_expired(waiver, today) for waiver in waivers if waiver.until < today]


def _expired(waiver: Waiver, today: date) -> Finding:
    return Finding(
        Severity.WARNING,
        "waiver.expired",
        f"{waiver.code} at {waiver.where}",
        f"The waiver of {waiver.owner} ended on {waiver.until}, {plural((today - waiver.until).days, 'day')} ago.",
        "Fix what it waives, or give it a new end date in waivers.toml.",
    )
