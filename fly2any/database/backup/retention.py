"""Which backups are kept, and whether the newest good one is new enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from ..clock import LIMIT, Clock, read_clock, server_time
from ..diagnosis import Refusal, Unfit
from ..findings import Finding, Severity
from ..server import read_origin
from ..units import span
from ..watching import Progress
from .manifest import Manifest, file_name, from_json
from .restore import fetched
from .signing import SIGNED
from .store import Store, store_at
from .take import backups


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest backup at a place, and the newest good one; `trouble` says what kept others from being read."""

    place: str
    newest: Manifest | None = None
    good: Manifest | None = None
    trouble: str = ""
    clock: Clock | None = None
    unsigned: int = 0  # Newer than the good one, without a good signature.

    def now(self) -> datetime:
        """Return the time by the server's clock, this machine's where the server was not asked."""
        return self.clock.now() if self.clock else datetime.now(UTC)

    def findings(self, now: datetime | None = None) -> Iterator[Finding]:
        """Yield what is wrong with the backups, where BACKUP_LOCATION says that there should be some."""
        now, limit = now or self.now(), settings.BACKUPS["max_age"]
        if not settings.BACKUPS["expected"]:
            return
        if self.trouble:
            yield Finding(Severity.WARNING, "backup.unreadable", self.place, self.trouble, "Correct what it says.")
        unsigned = f" ({self.unsigned} without a good signature do not count)" if self.unsigned else ""
        if self.good is None and not (self.trouble and self.newest is None):
            yield Finding(
                Severity.WARNING,
                "backup.none",
                self.place,
                f"No backup was proven good by restoring it{unsigned}.",
                "Run `manage.py dbbackup --verify`, every night from cron.",
            )
        elif self.good and self.good.age(now) > limit:
            yield Finding(
                Severity.WARNING,
                "backup.old",
                self.good.name,
                f"The newest good backup is {span(self.good.age(now))} old, and the limit is {span(limit)}.",
                "Run `manage.py dbbackup --verify`, and see why cron did not.",
            )
        verdict = self.newest and self.newest.verdict
        if self.newest and verdict and verdict.state == "unverified":
            yield Finding(
                Severity.WARNING,
                "backup.unverified",
                self.newest.name,
                f"The newest backup could not be verified: {verdict.reason.rstrip('.')}.",
                f"Correct that, and run `manage.py dbbackup --check {self.newest.name}`.",
            )
        if self.newest and verdict and verdict.state == "bad":
            yield Finding(
                Severity.WARNING,
                "backup.bad",
                self.newest.name,
                f"The newest backup cannot be used: {verdict.reason.rstrip('.')}.",
                "Run `manage.py dbbackup --verify` again, and fix the reported cause.",
            )


def read_newest(connection) -> Newest:
    """Return the newest backups of the connection's database at BACKUP_LOCATION, read from as few manifests as it takes."""
    place = settings.BACKUPS["location"]
    unsigned = 0
    if not place or not (settings.BACKUPS["expected"] or Path(place).exists()):
        return Newest(place)
    newest, good, trouble, origin, clock = None, None, "", read_origin(connection), read_clock(connection)
    try:
        store = store_at(place)
        there = store.sizes()
        names = [name for name in there if name.endswith(".json") and name.startswith(f"{file_name(origin.database)}-")]
        for name in sorted(names, key=lambda name: name.rpartition("-")[2], reverse=True):
            try:
                manifest = from_json(store.read(name), where=name)
            except Refusal as refusal:
                trouble = trouble or str(refusal)
                continue
            if not manifest.is_of(origin):
                continue
            if manifest.signed != SIGNED:
                unsigned += 1
                continue
            if manifest.taken > clock.server + LIMIT:
                trouble = trouble or f"{name} was taken in the future, by the server's clock: look at it."
                continue
            if (size := there.get(manifest.file)) != manifest.bytes:
                gone = f"{manifest.file} is gone, and its manifest is there."
                cut = f"{manifest.file} has {size or 0:,} bytes and not {manifest.bytes:,}: it was cut short or changed."
                trouble = trouble or (gone if size is None else cut)
                continue
            newest = newest or manifest
            if manifest.state == "good":
                good = manifest
                break
    except Refusal as refusal:
        return Newest(place, trouble=str(refusal), clock=clock)
    return Newest(place, newest, good, trouble, clock, unsigned)


def superfluous(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return those not kept: of each of so many days, weeks and months the last good one stays, and the last unverified one.

    What is newest of all stays too, and where none is good those that were found bad. The backups are of one database.
    """
    by_age = sorted(manifests, key=lambda manifest: manifest.taken, reverse=True)
    kept = {manifest.name for manifest in by_age[:1]}
    for state in ("good", "unverified"):
        of_state = [manifest for manifest in by_age if manifest.state == state]
        kept.update(manifest.name for manifest in of_state[:1])
        for number, period in zip(settings.BACKUPS["keep"], ("%Y-%m-%d", "%G-%V", "%Y-%m"), strict=True):
            last: dict[str, str] = {}
            for manifest in of_state:
                last.setdefault(f"{manifest.taken:{period}}", manifest.name)
            kept.update(list(last.values())[:number])
    if all(manifest.state != "good" for manifest in by_age):
        kept.update(manifest.name for manifest in by_age if manifest.state == "bad")
    return [manifest for manifest in by_age if manifest.name not in kept]


def prune(store: Store, connection, progress: Progress, *, proven: str = "") -> list[Manifest]:
    """Remove what is superfluous of the connection's database, the manifest first: a dump without one is none; return what was removed.

    The backup `proven`, which was just verified, stays, and of the others the newest good one that stays is read beforehand.
    What may be another server's stays, and what is of a database that had this name before: it may be all that is left of its
    rows. So does what was taken in the future by the server's clock, and what has no good signature. None of these counts for
    the others. Raises Refusal where this machine's clock differs, and where the newest good one that stays is damaged.
    """
    origin, now = read_origin(connection), server_time(connection)
    by_oid: dict[int, list[Manifest]] = {}
    for one in backups(store, of=origin).manifests:
        known = one.cluster == origin.cluster and one.is_of_the_same(origin)
        if known and one.taken <= now + LIMIT and one.signed == SIGNED:
            by_oid.setdefault(one.oid, []).append(one)
    removed: list[Manifest] = []
    for manifests in by_oid.values():
        outdated = [one for one in superfluous(manifests) if one.name != proven]
        stays = next((one for one in manifests if one.state == "good" and one not in outdated), None)
        if outdated and stays and stays.name != proven:
            _read(store, stays, progress)
        removed += outdated
    for manifest in removed:
        store.delete(f"{manifest.name}.json")
        store.delete(manifest.file)
    return removed


def _read(store: Store, manifest: Manifest, progress: Progress) -> None:
    """Read the file of a backup; raise Refusal where it is not the one that was stored."""
    try:
        with fetched(store, manifest, progress):
            progress.clear()
    except Unfit as error:
        raise Refusal(f"Nothing was removed, as the newest good backup cannot be used: {error}") from error
