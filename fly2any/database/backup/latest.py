"""The backup that a name stands for: its own, or `latest`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ..clock import LIMIT
from ..database_identity import Origin
from ..errors import Refusal
from ..progress import Progress
from ..terminal_text import one_line
from ..units import plural
from .copied_servers import describe, of_two_servers
from .encryption import ENDING
from .inventory import backups
from .manifest import Manifest, from_json
from .signing import SIGNED
from .store import Store


def find(
    store: Store, name: str, *, of: Origin, good: bool, others: bool, now: datetime, progress: Progress, unsigned: bool = False
) -> Manifest:
    """Return the manifest of the backup `name`; raise Refusal if there is none.

    For `latest`, see _Latest. A backup without a valid signature must be named, and allowed by `unsigned`. `now` is the server's
    time; a backup dated later must be named too, and `progress` reports it.
    """
    if name == "latest":
        return _Latest(store, of, good, others, now, progress).find()
    name = name.removesuffix(".json").removesuffix(ENDING).removesuffix(".dump")
    if "/" in name or f"{name}.json" not in store.names():
        raise Refusal(f"{store.place} has no backup {name}: `manage.py dbbackup --list` lists the backups there.")
    manifest = from_json(store.read(f"{name}.json"), where=f"{name}.json")
    if manifest.signed != SIGNED and not unsigned:
        raise Refusal(
            f"{name}.json is not signed with a key of this installation ({manifest.signed}): if you know where it comes from, add --unsigned."
        )
    return manifest


@dataclass(frozen=True, slots=True)
class _Latest:
    """The search for the newest backup of the database `of`, or the newest verified one if `good`, for a restore.

    Backups taken from its server come before those of a copy at another address, and a restore is refused if a copy has the same
    address. If its server has none, and `others`, it is the newest of a database of that name on another server, of which there
    must be only one.
    """

    store: Store
    of: Origin
    good: bool
    others: bool
    now: datetime
    progress: Progress

    def find(self) -> Manifest:
        inventory = backups(self.store, of=replace(self.of, cluster="", place=""))
        candidates = self._candidates(inventory.manifests)
        if self.good:
            self._refuse_copies(inventory.manifests, self.of)
        if not candidates or not (self.others or candidates[0].is_of(self.of)):
            raise self._refusal(inventory.manifests, candidates)
        chosen = candidates[0]
        if chosen.is_of(self.of):
            self._report_newer_of_a_copy(candidates, chosen)
        else:
            self._refuse_several_servers(candidates)
            lost = replace(self.of, cluster=chosen.cluster, place=chosen.place, run=None)
            self._refuse_copies(inventory.manifests, lost)
        for odd in inventory.odd:
            if odd[: len(chosen.name)] > chosen.name:
                self.progress.say(f"{odd} is newer but was skipped: it belongs to no backup, or is damaged.")
        if self.good:
            self._report_newer(inventory.manifests, chosen)
        return chosen

    def _candidates(self, manifests: Iterable[Manifest]) -> list[Manifest]:
        """Return the backups that may be `latest`, the preferred ones first; report those dated in the future."""
        signed = [one for one in manifests if one.signed == SIGNED and (one.state == "good" or not self.good)]
        for one in signed:
            if one.taken > self.now + LIMIT:
                self.progress.say(
                    f"{one.name} is not `latest`: it is dated in the future by the server's clock ({self.now:%Y-%m-%d %H:%M:%S} UTC)."
                    " Correct the wrong clock, or name the backup."
                )
        return sorted(
            (one for one in signed if one.taken <= self.now + LIMIT),
            key=lambda one: (not one.is_of(self.of), one.is_of(self.of) and not one.is_of_same_server(self.of)),
        )

    def _refuse_copies(self, manifests: Iterable[Manifest], of: Origin) -> None:
        """Raise Refusal if a copy of the server `of` stored backups too: the newest may be the copy's."""
        if found := of_two_servers(manifests, of, self.now):
            raise Refusal(f"`latest` may be of either of two servers, so name the backup: {describe(found, self.store.place)}.")

    def _refusal(self, manifests: Iterable[Manifest], candidates: Sequence[Manifest]) -> Refusal:
        """Return why no backup is `latest`; the `candidates`, if any, are of other servers."""
        unsigned = (
            one for one in manifests if one.signed != SIGNED and one.state == "good" and (self.others or one.is_of(self.of))
        )
        if self.good and not candidates and (newest := next(unsigned, None)):
            return Refusal(
                f"{self.store.place} has no verified backup of {self.of.database} that is signed with a key of this installation. The newest is"
                f" {one_line(newest.name)} ({newest.signed}): set BACKUP_SIGNING_KEY, or SECRET_KEY, to the key it was signed with, or, if you"
                " know where it comes from, name it and add --unsigned."
            )
        verified, here = "verified " if self.good else "", "" if self.others else " on this server"
        named = f": the newest of another server's {self.of.database} is {candidates[0].name}" if candidates else ""
        return Refusal(
            f"{self.store.place} has no {verified}backup of {self.of.database}{here}: run `manage.py dbbackup --verify`, or name one{named}."
        )

    def _refuse_several_servers(self, candidates: Iterable[Manifest]) -> None:
        """Raise Refusal if the backups are of several servers: the newest may be of staging, say, and not of the one that was lost."""
        newest: dict[tuple[str, str], Manifest] = {}
        for one in sorted(candidates, key=lambda one: one.taken):
            newest[one.cluster, one.place] = one
        if len(newest) > 1:
            listed = "; ".join(f"{one.name} (taken from {one.place or 'an embedded server'})" for one in newest.values())
            raise Refusal(
                f"{self.store.place} has backups of {self.of.database} from {plural(len(newest), 'other server')}, so name the backup."
                f" The newest of each: {listed}."
            )

    def _report_newer_of_a_copy(self, candidates: Iterable[Manifest], chosen: Manifest) -> None:
        """Report the first backup that is newer than `chosen`, but may be of a copy of the server at another address."""
        for one in candidates:
            if one.is_of(self.of) and one.place not in ("", self.of.place) and one.taken > chosen.taken:
                self.progress.say(
                    f"{one.name} is newer, but is not `latest`: it was taken from the server at {one.place}, which may be a copy of this one."
                    " If both addresses are the same server, name the backup."
                )
                return

    def _report_newer(self, manifests: Iterable[Manifest], chosen: Manifest) -> None:
        """Report the newest backup that is newer than `chosen`, and why it was not chosen: it has rows that `chosen` lacks."""
        newer = [
            one
            for one in manifests
            if chosen.taken < one.taken <= self.now + LIMIT and one.is_of(self.of) == chosen.is_of(self.of)
        ]
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
            self.progress.say(f"{name} is newer, but is not `latest`: {reason}. {cure}.")
