"""Which backups are kept, and whether the newest good one is new enough."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings

from ..clock import LIMIT, server_time
from ..errors import Refusal, Unfit
from ..progress import Progress
from ..server import read_origin
from .inventory import backups
from .manifest import Manifest
from .signing import SIGNED
from .store import Store, fetched


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
