"""The backups of a database, and whether the newest verified one is recent enough; trial_restore.py decides which are good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from ..clock import LIMIT, Clock, read_clock
from ..errors import Refusal
from ..findings import Finding, Severity
from ..printable import one_line
from ..progress import Progress
from ..server import Origin, read_origin
from ..units import plural, span
from .copies import describe, of_two_servers
from .encryption import ENDING
from .manifest import Manifest, file_name, from_json
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


def find(
    store: Store, name: str, *, of: Origin, good: bool, others: bool, now: datetime, progress: Progress, unsigned: bool = False
) -> Manifest:
    """Return the manifest of the backup `name`; raise Refusal if there is none.

    `latest` is the newest backup of the database `of`, or the newest verified one if `good`, for a restore; backups taken from its
    server come before those of a copy at another address, and a restore is refused if a copy has the same address. If its server has none, and `others`, it is the newest of a database of that name on
    another server, of which there must be only one. A backup without a valid signature must be named, and allowed by `unsigned`. `now` is the server's time; a
    backup dated later must be named too, and `progress` reports it.
    """
    if name == "latest":
        inventory = backups(store, of=replace(of, cluster="", place=""))
        signed = [one for one in inventory.manifests if one.signed == SIGNED and (one.state == "good" or not good)]
        for one in signed:
            if one.taken > now + LIMIT:
                progress.say(
                    f"{one.name} is not `latest`: it is dated in the future by the server's clock ({now:%Y-%m-%d %H:%M:%S} UTC)."
                    " Correct the wrong clock, or name the backup."
                )
        candidates = [one for one in signed if one.taken <= now + LIMIT]
        if good:
            _refuse_copies(store, inventory.manifests, of, now)
        candidates.sort(key=lambda one: (not one.is_of(of), one.is_of(of) and not one.is_of_same_server(of)))
        for one in candidates[1:]:
            if one.is_of(of) and one.place not in ("", of.place) and one.taken > candidates[0].taken:
                progress.say(
                    f"{one.name} is newer, but is not `latest`: it was taken from the server at {one.place}, which may be a copy of this one."
                    " If both addresses are the same server, name the backup."
                )
                break
        if candidates and others and not candidates[0].is_of(of):
            _refuse_several_servers(store, candidates)
            lost = replace(of, cluster=candidates[0].cluster, place=candidates[0].place, run=None)
            _refuse_copies(store, inventory.manifests, lost, now)
        if candidates and (others or candidates[0].is_of(of)):
            for odd in [odd for odd in inventory.odd if odd[: len(candidates[0].name)] > candidates[0].name]:
                progress.say(f"{odd} is newer but was skipped: it belongs to no backup, or is damaged.")
            if good:
                _report_newer([one for one in inventory.manifests if one.taken <= now + LIMIT], candidates[0], of, progress)
            return candidates[0]
        refused = [
            one for one in inventory.manifests if one.signed != SIGNED and one.state == "good" and (others or one.is_of(of))
        ]
        if good and not candidates and refused:
            one = refused[0]
            raise Refusal(
                f"{store.place} has no verified backup of {of.database} that is signed with a key of this installation. The newest is"
                f" {one_line(one.name)} ({one.signed}): set BACKUP_SIGNING_KEY, or SECRET_KEY, to the key it was signed with, or, if you"
                " know where it comes from, name it and add --unsigned."
            )
        named = f"name one: the newest of another server's {of.database} is {candidates[0].name}" if candidates else "name one"
        verified = "verified " if good else ""
        raise Refusal(
            f"{store.place} has no {verified}backup of {of.database}{'' if others else ' on this server'}: run `manage.py dbbackup --verify`, or {named}."
        )
    name = name.removesuffix(".json").removesuffix(ENDING).removesuffix(".dump")
    if "/" in name or f"{name}.json" not in store.names():
        raise Refusal(f"{store.place} has no backup {name}: `manage.py dbbackup --list` lists the backups there.")
    manifest = from_json(store.read(f"{name}.json"), where=f"{name}.json")
    if manifest.signed != SIGNED and not unsigned:
        raise Refusal(
            f"{name}.json is not signed with a key of this installation ({manifest.signed}): if you know where it comes from, add --unsigned."
        )
    return manifest


def _refuse_several_servers(store: Store, candidates: list[Manifest]) -> None:
    """Raise Refusal if the backups are of several servers: the newest may be of staging, say, and not of the one that was lost."""
    newest: dict[tuple[str, str], Manifest] = {}
    for one in sorted(candidates, key=lambda one: one.taken):
        newest[one.cluster, one.place] = one
    if len(newest) > 1:
        listed = "; ".join(f"{one.name} (taken from {one.place or 'an embedded server'})" for one in newest.values())
        raise Refusal(
            f"{store.place} has backups of {candidates[0].database} from {plural(len(newest), 'other server')}, so name the backup."
            f" The newest of each: {listed}."
        )


def _refuse_copies(store: Store, manifests: Iterable[Manifest], of: Origin, now: datetime) -> None:
    """Raise Refusal if a copy of the server `of` stored backups too: the newest may be the copy's."""
    if found := of_two_servers(manifests, of, now):
        raise Refusal(f"`latest` may be of either of two servers, so name the backup: {describe(found, store.place)}.")


def _report_newer(manifests: list[Manifest], chosen: Manifest, of: Origin, progress: Progress) -> None:
    """Report the newest backup that is newer than `chosen`, and why it was not chosen: it has rows that `chosen` lacks."""
    newer = [one for one in manifests if one.taken > chosen.taken and one.is_of(of) == chosen.is_of(of)]
    if passed := [one for one in newer if one.signed != SIGNED or one.state != "good"]:
        one = max(passed, key=lambda one: one.taken)
        name = one_line(one.name)
        reason, cure = {
            "bad": ("it is bad", f"`manage.py dbbackup --check {name}` says why"),
            "unverified": ("it is not verified", f"`manage.py dbbackup --check {name}` verifies it"),
            "good": (
                "it is not signed with a key of this installation",
                f"`manage.py dbrestore {name} --unsigned` restores it",
            ),
        }[one.state if one.signed == SIGNED else "good"]
        progress.say(f"{name} is newer, but is not `latest`: {reason}. {cure}.")


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
        now, limit = now or self.now(), settings.BACKUPS["max_age"]
        if not settings.BACKUPS["expected"]:
            return
        if self.trouble:
            yield Finding(Severity.WARNING, "backup.unreadable", self.place, self.trouble, self.cure)
        unsigned = f" ({self.unsigned} without a valid signature do not count)" if self.unsigned else ""
        if self.good is None and not (self.trouble and self.newest is None):
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
        if self.newest and self.elsewhere:
            yield Finding(
                Severity.NOTE,
                "backup.elsewhere",
                self.newest.name,
                f"None of the newest backups was taken {self.elsewhere}: one server may be a copy of the other.",
                "If they are two servers, back this one up: run `manage.py dbbackup --verify` every night from cron.",
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
                "Fix the reported cause, then run `manage.py dbbackup --verify` again.",
            )


def read_newest(connection) -> BackupState:
    """Return the newest backups of the connection's database at BACKUP_LOCATION, reading no more manifests than needed.

    Those that may be of a copy of this server count only where there are no others; those of an earlier database of this
    name never do, because they lack the rows of this one.
    """
    place = settings.BACKUPS["location"]
    unsigned = 0
    if not place or not (settings.BACKUPS["expected"] or Path(place).exists()):
        return BackupState(place)
    trouble, origin, clock = "", read_origin(connection), read_clock(connection)
    found: list[Manifest] = []
    try:
        store = store_at(place, hurried=True)
        sizes = store.sizes()
        names = [name for name in sizes if name.endswith(".json") and name.startswith(f"{file_name(origin.database)}-")]
        for name in sorted(names, key=lambda name: name.rpartition("-")[2], reverse=True):
            try:
                manifest = from_json(store.read(name), where=name)
            except Unreachable as refusal:
                trouble = trouble or str(refusal)
                break
            except Missing:  # It was pruned meanwhile.
                continue
            except Refusal as refusal:
                trouble = trouble or str(refusal)
                continue
            if not manifest.is_of(origin):
                continue
            if manifest.signed != SIGNED:
                unsigned += 1
                continue
            if manifest.taken > clock.server + LIMIT:
                trouble = trouble or f"{name} is dated in the future by the server's clock: check both clocks."
                continue
            if (size := sizes.get(manifest.file)) != manifest.bytes:
                missing = f"{manifest.file} is missing, but its manifest exists."
                truncated = f"{manifest.file} has {plural(size or 0, 'byte')} instead of {manifest.bytes:,}: it was cut short or changed."
                trouble = trouble or (missing if size is None else truncated)
                continue
            found.append(manifest)
            if (manifest.state == "good" and manifest.is_of_same_database(origin)) or len(found) == MOST_READ:
                break
    except Missing as refusal:
        return BackupState(
            place, trouble=str(refusal), clock=clock, cure="Run `manage.py dbbackup --verify`, every night from cron."
        )
    except Refusal as refusal:
        return BackupState(place, trouble=str(refusal), clock=clock)
    here = [manifest for manifest in found if manifest.is_of_same_server(origin)]
    newest = next(iter(here or found), None)
    elsewhere = ""
    if newest and not here:
        same = newest.place in ("", origin.place)
        elsewhere = (
            "from this server; the newest was taken from another while this one was running"
            if same
            else (f"at {origin.place}; the newest was taken at {newest.place}")
        )
    verified = [manifest for manifest in here or found if manifest.state == "good"]
    good = next((manifest for manifest in verified if manifest.has_oid_of(origin)), None)
    earlier = verified[0].name if verified and good is None else ""
    return BackupState(place, newest, good, trouble, clock, unsigned, elsewhere, earlier)
