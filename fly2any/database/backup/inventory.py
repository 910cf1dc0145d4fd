"""Which backups there are of a database, and whether the newest good one is new enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from ..clock import LIMIT, Clock, read_clock
from ..errors import Refusal
from ..findings import Finding, Severity
from ..progress import Progress
from ..server import Origin, read_origin
from ..units import span
from .manifest import Manifest, file_name, from_json
from .sealing import ENDING
from .signing import SIGNED
from .store import Gone, Store, store_at


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in a store: the manifests, newest first, and the names of files that belong to none or cannot be read."""

    manifests: tuple[Manifest, ...]
    odd: tuple[str, ...]


def backups(store: Store, *, of: Origin | None = None) -> Kept:
    """Return what is in `store`, of the database `of` where it is given. A file of another size than was stored is none.

    Raises Refusal where a manifest cannot be read now, which says nothing of what it is.
    """
    sizes = store.sizes()
    names = sorted(sizes)
    begins = f"{file_name(of.database)}-" if of else ""
    found, odd = [], []
    for name in names:
        if name.endswith(".json") and name.startswith(begins):
            try:
                text = store.read(name)
            except Gone:  # Pruned meanwhile.
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
    odd += [name for name in names if name.endswith((".dump", ".dump.age")) and name.startswith(begins) and name not in dumps]
    of_this = [manifest for manifest in found if of is None or manifest.is_of(of)]
    return Kept(tuple(sorted(of_this, key=lambda manifest: manifest.taken, reverse=True)), tuple(sorted(odd)))


def find(
    store: Store, name: str, *, of: Origin, good: bool, others: bool, now: datetime, progress: Progress, unsigned: bool = False
) -> Manifest:
    """Return the manifest of the backup `name`; raise Refusal where there is none.

    `latest` is the newest of the database `of`, the newest good one where `good`, one taken at its server's address before those of a copy
    of the server; where its server has none and `others`, the newest of a database of that name on another. One without a good signature must be named, and allowed by `unsigned`.
    `now` is the server's time; one from later on must be named too, and `progress` is told of it.
    """
    if name == "latest":
        kept = backups(store, of=replace(of, cluster=""))
        signed = [one for one in kept.manifests if one.signed == SIGNED and (one.state == "good" or not good)]
        for one in signed:
            if one.taken > now + LIMIT:
                progress.say(
                    f"{one.name} is not `latest`: it was taken in the future by the server's clock ({now:%Y-%m-%d %H:%M:%S} UTC)."
                    " Correct the clock that is wrong, or name the backup."
                )
        there = [one for one in signed if one.taken <= now + LIMIT]
        there.sort(key=lambda one: (not one.is_of(of), one.is_of(of) and one.place not in ("", of.place)))
        for one in there[1:]:
            if one.is_of(of) and one.place not in ("", of.place) and one.taken > there[0].taken:
                progress.say(
                    f"{one.name} is newer, and is not `latest`: it was taken of the server at {one.place}, which may be a copy of this one."
                    " If it is this one by another name, name the backup."
                )
                break
        if there and (others or there[0].is_of(of)):
            for odd in [odd for odd in kept.odd if odd[: len(there[0].name)] > there[0].name]:
                progress.say(f"{odd} is newer, and is passed over: it belongs to no backup, or is damaged.")
            return there[0]
        named = f"name one: the newest of another server's {of.database} is {there[0].name}" if there else "name one"
        proven = " that was proven good" if good else ""
        raise Refusal(
            f"{store.place} has no backup of {of.database}{'' if others else ' on this server'}{proven}: run `manage.py dbbackup --verify`, or {named}."
        )
    name = name.removesuffix(".json").removesuffix(ENDING).removesuffix(".dump")
    if "/" in name or f"{name}.json" not in store.names():
        raise Refusal(f"{store.place} has no backup {name}: `manage.py dbbackup --list` shows what it has.")
    manifest = from_json(store.read(f"{name}.json"), where=f"{name}.json")
    if manifest.signed != SIGNED and not unsigned:
        raise Refusal(
            f"{name}.json is not signed with a key of this installation ({manifest.signed}): if you know where it is from, add --unsigned."
        )
    return manifest


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
                f"No backup has been verified by restoring it{unsigned}.",
                "Run `manage.py dbbackup --verify`, every night from cron.",
            )
        elif self.good and self.good.age(now) > limit:
            yield Finding(
                Severity.WARNING,
                "backup.old",
                self.good.name,
                f"The newest good backup is {span(self.good.age(now))} old, and the limit is {span(limit)}.",
                "Run `manage.py dbbackup --verify`, and check why cron did not run it.",
            )
        verdict = self.newest and self.newest.verdict
        if self.newest and verdict and verdict.state == "unverified":
            yield Finding(
                Severity.WARNING,
                "backup.unverified",
                self.newest.name,
                f"The newest backup could not be verified: {verdict.reason.rstrip('.')}.",
                f"Fix the cause, then run `manage.py dbbackup --check {self.newest.name}`.",
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
