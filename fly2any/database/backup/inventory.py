"""The backups of a database, and whether the newest verified one is recent enough; trial_restore.py decides which are good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from ..clock import LIMIT, Clock, read_clock
from ..database_identity import Origin, read_origin
from ..errors import Refusal
from ..findings import Finding, Severity
from ..units import plural, span
from .manifest import Manifest, Verdict, file_name, from_json
from .signing import SIGNED
from .store import Missing, Store, Unreachable, store_at


@dataclass(frozen=True, slots=True)
class Inventory:
    """The contents of a store: the manifests, newest first, and the names of files that belong to none or cannot be read."""

    manifests: tuple[Manifest, ...]
    odd: tuple[str, ...]


def backups(store: Store, *, of: Origin | None = None) -> Inventory:
    """Return the backups in `store`, only those of the database `of` if it is given. A file whose size has changed is not a backup.

    Raises Refusal if a manifest cannot be read at the moment, because its contents are then unknown.
    """
    sizes = store.sizes()
    names = sorted(sizes)
    prefix = f"{file_name(of.database)}-" if of else ""
    found, odd = [], []
    for name in names:
        if name.endswith(".json") and name.startswith(prefix):
            try:
                text = store.read(name)
            except Missing:  # It was pruned meanwhile.
                continue
            try:
                manifest = from_json(text, where=name)
            except Refusal:
                odd.append(name)
                continue
            if sizes.get(manifest.file) == manifest.bytes:
                found.append(manifest)
            else:
                odd.append(name)
    dumps = {manifest.file for manifest in found}
    odd += [name for name in names if name.endswith((".dump", ".dump.age")) and name.startswith(prefix) and name not in dumps]
    of_this = [manifest for manifest in found if of is None or manifest.is_of(of)]
    return Inventory(tuple(sorted(of_this, key=lambda manifest: manifest.taken, reverse=True)), tuple(sorted(odd)))


MOST_READ = 40  # Usable manifests that a report reads to find a backup that was taken at its server's address.


@dataclass(frozen=True, slots=True)
class BackupState:
    """The newest backup at a place, and the newest verified one; `trouble` is the reason why others could not be read."""

    place: str
    newest: Manifest | None = None
    good: Manifest | None = None
    trouble: str = ""
    clock: Clock | None = None
    unsigned: int = 0  # Backups without a valid signature, newer than the verified one.
    elsewhere: str = ""  # How it is known that none of the newest backups was taken from this server, if so.
    earlier: str = ""  # The newest verified backup, if it is of an earlier database of this name.
    cure: str = "Correct that, then run `manage.py dbbackup --list`, which reads every file there."  # For the trouble.

    def now(self) -> datetime:
        """Return the time by the server's clock, or by this machine's if the server was not asked."""
        return self.clock.now() if self.clock else datetime.now(UTC)

    def findings(self, now: datetime | None = None) -> Iterator[Finding]:
        """Yield the problems of the backups, if BACKUP_LOCATION is set."""
        if not settings.BACKUPS["expected"]:
            return
        if self.trouble:
            yield Finding(Severity.WARNING, "backup.unreadable", self.place, self.trouble, self.cure)
        yield from self._of_the_verified(now or self.now())
        if self.newest and self.elsewhere:
            yield Finding(
                Severity.NOTE,
                "backup.elsewhere",
                self.newest.name,
                f"None of the newest backups was taken {self.elsewhere}: one server may be a copy of the other.",
                "If they are two servers, back this one up: run `manage.py dbbackup --verify` every night from cron.",
            )
        if self.newest and self.newest.verdict:
            yield from _of_verdict(self.newest.name, self.newest.verdict)

    def _of_the_verified(self, now: datetime) -> Iterator[Finding]:
        """Yield whether there is no verified backup, or only an old one; not if it is unknown, because none could be read."""
        limit = settings.BACKUPS["max_age"]
        if self.good is None and not (self.trouble and self.newest is None):
            unsigned = (
                f" ({plural(self.unsigned, 'backup without a valid signature does', 'backups without a valid signature do')} not count)"
                if self.unsigned
                else ""
            )
            earlier = (
                f" {self.earlier} was, but it is of an earlier database of this name, such as the one before a restore."
                if self.earlier
                else ""
            )
            yield Finding(
                Severity.WARNING,
                "backup.none",
                self.place,
                f"No backup{' of this database' if earlier else ''} has been verified by restoring it{unsigned}.{earlier}",
                "Run `manage.py dbbackup --verify`, every night from cron.",
            )
        elif self.good and self.good.age(now) > limit:
            yield Finding(
                Severity.WARNING,
                "backup.old",
                self.good.name,
                f"The newest verified backup is {span(self.good.age(now))} old, and the limit is {span(limit)}.",
                "Run `manage.py dbbackup --verify`, and check why cron did not run it.",
            )


def _of_verdict(name: str, verdict: Verdict) -> Iterator[Finding]:
    """Yield what is wrong with the newest backup."""
    if verdict.state == "unverified":
        yield Finding(
            Severity.WARNING,
            "backup.unverified",
            name,
            f"The newest backup could not be verified: {verdict.reason.rstrip('.')}.",
            f"Fix the cause, then run `manage.py dbbackup --check {name}`.",
        )
    if verdict.state == "bad":
        yield Finding(
            Severity.WARNING,
            "backup.bad",
            name,
            f"The newest backup cannot be used: {verdict.reason.rstrip('.')}.",
            "Fix the reported cause, then run `manage.py dbbackup --verify` again.",
        )


def read_newest(connection) -> BackupState:
    """Return the newest backups of the connection's database at BACKUP_LOCATION, reading no more manifests than needed.

    Those that may be of a copy of this server count only where there are no others; those of an earlier database of this
    name never do, because they lack the rows of this one.
    """
    place = settings.BACKUPS["location"]
    if not place or not (settings.BACKUPS["expected"] or Path(place).exists()):
        return BackupState(place)
    origin, clock = read_origin(connection), read_clock(connection)
    try:
        read = _read_until_verified(store_at(place, hurried=True), origin, clock.server)
    except Missing as refusal:
        return BackupState(
            place, trouble=str(refusal), clock=clock, cure="Run `manage.py dbbackup --verify`, every night from cron."
        )
    except Refusal as refusal:
        return BackupState(place, trouble=str(refusal), clock=clock)
    here = [manifest for manifest in read.usable if manifest.is_of_same_server(origin)]
    counted = here or read.usable
    newest = next(iter(counted), None)
    verified = [manifest for manifest in counted if manifest.state == "good"]
    good = next((manifest for manifest in verified if manifest.has_oid_of(origin)), None)
    earlier = verified[0].name if verified and good is None else ""
    elsewhere = _elsewhere(newest, origin) if newest and not here else ""
    return BackupState(place, newest, good, read.trouble, clock, read.unsigned, elsewhere, earlier)


@dataclass(slots=True)
class _Read:
    """The manifests of a database that were read, newest first: the usable ones, and the first reason why another is not."""

    usable: list[Manifest] = field(default_factory=list)
    trouble: str = ""
    unsigned: int = 0


def _read_until_verified(store: Store, origin: Origin, now: datetime) -> _Read:
    """Read the manifests of the database `origin`, newest first, up to a verified one of this very database."""
    read, sizes = _Read(), store.sizes()
    names = [name for name in sizes if name.endswith(".json") and name.startswith(f"{file_name(origin.database)}-")]
    for name in sorted(names, key=lambda name: name.rpartition("-")[2], reverse=True):
        try:
            manifest = from_json(store.read(name), where=name)
        except Unreachable as refusal:
            read.trouble = read.trouble or str(refusal)
            break
        except Missing:  # It was pruned meanwhile.
            continue
        except Refusal as refusal:
            read.trouble = read.trouble or str(refusal)
            continue
        if not manifest.is_of(origin):
            continue
        if manifest.signed != SIGNED:
            read.unsigned += 1
        elif trouble := _trouble(manifest, sizes.get(manifest.file), now):
            read.trouble = read.trouble or trouble
        else:
            read.usable.append(manifest)
            if (manifest.state == "good" and manifest.is_of_same_database(origin)) or len(read.usable) == MOST_READ:
                break
    return read


def _trouble(manifest: Manifest, size: int | None, now: datetime) -> str:
    """Return why a backup whose file has `size`, None if it is missing, is not usable, "" if it is."""
    if manifest.taken > now + LIMIT:
        return f"{manifest.name}.json is dated in the future by the server's clock: check both clocks."
    if size is None:
        return f"{manifest.file} is missing, but its manifest exists."
    if size != manifest.bytes:
        return f"{manifest.file} has {plural(size, 'byte')} instead of {manifest.bytes:,}: it was cut short or changed."
    return ""


def _elsewhere(newest: Manifest, origin: Origin) -> str:
    """Return how it is known that the newest backup was not taken from this server."""
    if newest.place in ("", origin.place):
        return "from this server; the newest was taken from another while this one was running"
    return f"from the server at {origin.place}; the newest was taken from the one at {newest.place}"
