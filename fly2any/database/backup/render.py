"""Backups as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta

from ..terminal_text import one_line, printable
from ..units import plural, size, span
from .inventory import Inventory
from .manifest import COLLATION, COMPUTED, OF_ROLES, OF_VIEW, ROWS, Manifest
from .owners import with_reason
from .signing import SIGNED


def one(manifest: Manifest, place: str) -> str:
    """Return the description of a backup, as two lines."""
    return "\n".join(map(one_line, _one(manifest, place)))


def _one(manifest: Manifest, place: str) -> tuple[str, str]:
    number = len(manifest.findings)
    found = f", with {plural(number, 'finding')} of dbstatus" if number else ""
    return (
        f"Backup    {manifest.name}, {size(manifest.bytes)}{', encrypted' if manifest.file.endswith('.age') else ''}, at {place}",
        f"Contents  {plural(len(manifest.tables), 'table')}, {plural(manifest.rows, 'row')}, of {manifest.database} on PostgreSQL {manifest.server},"
        f" {manifest.taken:%Y-%m-%d %H:%M} UTC{found}",
    )


def verdict(manifest: Manifest) -> str:
    """Return the verdict as a line, and one for each collation whose version had changed when the backup was taken."""
    return "\n".join(map(one_line, (f"Verdict   {_verdict_text(manifest)}", *_collations(manifest))))


def _collations(manifest: Manifest) -> Iterator[str]:
    for finding in manifest.findings:
        code, _, place = finding.partition(" at ")
        if code == COLLATION:
            yield (
                f"Collation of {place}: the indexes were built with a different version of it, so the backup may hold duplicates and orphans."
                " Run the cure that `manage.py dbstatus` prints, then take another backup."
            )


def _verdict_text(manifest: Manifest) -> str:
    verdict = manifest.verdict
    if verdict is None:
        return f"not verified: `manage.py dbbackup --check {manifest.name}` restores and compares it"
    if verdict.state != "good":
        return f"{'BAD' if verdict.state == 'bad' else 'not verified'}: {verdict.reason}"
    without = any(one.startswith((OF_ROLES, ROWS)) and not one.startswith(OF_VIEW) for one in verdict.left_out)
    every = "every restored" if without else "every"
    computed = [one for one in verdict.left_out if one.startswith(COMPUTED)]
    untried = [one for one in verdict.left_out if one not in computed]
    not_tried = f"; not tried: {', '.join(map(with_reason, untried))}" if untried else ""
    not_compared = f"; not compared: {', '.join(computed)}, which a restore recomputes" if computed else ""
    return (
        f"verified: restored on PostgreSQL {verdict.server} on {verdict.at:%Y-%m-%d %H:%M} UTC, the rows of {every} table hashed"
        f" and compared, dbstatus finds nothing new{not_tried}{not_compared}"
    )


def many(inventory: Inventory, place: str, now: datetime) -> Iterator[str]:
    """Yield the lines of a list, newest first; ages are until `now`."""
    yield from map(one_line, _many(inventory, place, now))


def _many(inventory: Inventory, place: str, now: datetime) -> Iterator[str]:
    manifests = inventory.manifests
    yield from (f"{name} belongs to no backup, or cannot be read." for name in inventory.odd)
    if not manifests:
        yield f"There is no backup at {place}."
        return
    width = max(40, *(len(manifest.name) for manifest in manifests))
    yield f"  {'backup':<{width}}{'age':>9}{'size':>12}{'rows':>15}  verdict"
    for manifest in manifests:
        has_reason = manifest.verdict and manifest.state != "good"
        text = _verdict_text(manifest) if has_reason else "verified" if manifest.state == "good" else "not verified"
        text = text if manifest.signed == SIGNED else f"{manifest.signed}; {text}"
        age = manifest.age(now)
        shown = span(age) if age >= timedelta(0) else "future"
        yield f"  {manifest.name:<{width}}{shown:>9}{size(manifest.bytes):>12}{manifest.rows:>15,}  {text}"


def as_data(manifests: Iterable[Manifest], pruned: Iterable[Manifest], now: datetime) -> str:
    """Return backups as JSON; ages are in seconds until `now`."""
    entries = [
        {**asdict(manifest), "state": manifest.state, "age": manifest.age(now).total_seconds()} for manifest in manifests
    ]
    text = json.dumps(
        {"format": 1, "backups": entries, "pruned": [manifest.name for manifest in pruned]},
        indent=2,
        ensure_ascii=False,
        default=datetime.isoformat,
    )
    return printable(text)
