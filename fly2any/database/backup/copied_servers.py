"""Signs that a server and a copy of it, with the same address, store their backups in the same place."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ..clock import LIMIT
from ..database_identity import Origin, Run
from .manifest import Manifest
from .signing import SIGNED


def of_two_servers(manifests: Iterable[Manifest], origin: Origin, now: datetime) -> list[Manifest]:
    """Return the newest backup of each run, newest first, if one server cannot have taken all `manifests`; [] otherwise.

    Only those with the identity and the address of `origin` count, and that server itself as of `now`. Once restarted, a server
    does not resume an earlier run, and its next transaction ID never decreases.
    """
    identity = (origin.database, origin.cluster)
    of_identity = [one for one in manifests if (one.database, one.cluster) == identity and one.place in ("", origin.place)]
    counted = [one for one in of_identity if one.signed == SIGNED and one.taken <= now + LIMIT]
    by_age = sorted(counted, key=lambda one: one.taken)
    moments = [(one.taken, one.run) for one in by_age if one.run]
    if origin.run:
        moments.append((now, origin.run))
    if not _is_resumed(moments) and not _decreases(moments):
        return []
    newest = {one.run.started: one for one in by_age if one.run}
    return sorted(newest.values(), key=lambda one: one.taken, reverse=True)


def describe(found: list[Manifest], place: str) -> str:
    """Return what is wrong with the backups that of_two_servers() returns, and the cure."""
    listed = " and ".join(
        f"{one.name} (server started {one.run.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)" for one in found[:2] if one.run
    )
    return (
        f"{place} has backups of this server and of a copy of it, or of its state before it was reset to an earlier one: {listed}."
        " Give the copy another BACKUP_LOCATION, and move its backups there"
    )


def _is_resumed(moments: list[tuple[datetime, Run]]) -> bool:
    """Return whether another run lies between two moments of a run."""
    ended: set[datetime | None] = set()
    current = None
    for _, run in moments:
        if run.started != current:
            ended.add(current)
            current = run.started
            if current in ended:
                return True
    return False


def _decreases(moments: list[tuple[datetime, Run]]) -> bool:
    """Return whether a transaction ID is lower than an earlier one. Backups taken at the same time are in no order."""
    highest = compared = 0
    for taken, run in moments:
        while taken - moments[compared][0] > LIMIT:
            highest = max(highest, moments[compared][1].transaction)
            compared += 1
        if run.transaction < highest:
            return True
    return False
