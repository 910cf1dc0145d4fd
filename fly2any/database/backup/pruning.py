"""The choice of the backups that are kept or pruned."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings

from ..clock import LIMIT, server_time
from ..database_identity import read_origin
from ..errors import Refusal, Unfit
from ..progress import Progress
from .copied_servers import describe, of_two_servers
from .inventory import backups
from .manifest import Manifest
from .signing import SIGNED
from .store import Store
from .stored_file import fetched

DAY = "%Y-%m-%d"


def to_prune(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return the backups to prune, of one database.

    For each of the days, weeks and months of BACKUP_KEEP the last verified and the last unverified backup are kept. Each
    day's are kept for each run of the server (from one start to the next), because a run may be of another server: the one
    that this is a copy of. The newest backup is always kept, and bad ones are kept while no backup is verified.
    """
    by_age = sorted(manifests, key=lambda manifest: manifest.taken, reverse=True)
    kept = {manifest.name for manifest in by_age[:1]}
    for state in ("good", "unverified"):
        of_state = [manifest for manifest in by_age if manifest.state == state]
        kept.update(manifest.name for manifest in of_state[:1])
        for number, period in zip(settings.BACKUPS["keep"], (DAY, "%G-%V", "%Y-%m"), strict=True):
            last: dict[str, dict[object, str]] = {}
            for manifest in of_state:
                run = manifest.run.started if manifest.run and period == DAY else None
                last.setdefault(f"{manifest.taken:{period}}", {}).setdefault(run, manifest.name)
            kept.update(name for names in list(last.values())[:number] for name in names.values())
    if all(manifest.state != "good" for manifest in by_age):
        kept.update(manifest.name for manifest in by_age if manifest.state == "bad")
    return [manifest for manifest in by_age if manifest.name not in kept]


def prune(store: Store, connection, progress: Progress, *, verified: str = "") -> list[Manifest]:
    """Remove superfluous backups of the connection's database, and return them. The manifest is removed first: a dump without it is not a backup.

    Keeps `verified`, which this run has just verified; otherwise it first reads the newest verified backup that is kept. Also
    keeps backups that may be of another server or of an earlier database of this name (they may be the only copy of its rows),
    those dated in the future by the server's clock, and those without a valid signature; these do not count for BACKUP_KEEP.
    Raises Refusal if this machine's clock differs, if a copy of the server stores its backups here, or if the newest verified
    backup that is kept is damaged.
    """
    origin, now = read_origin(connection), server_time(connection)
    stored = backups(store, of=origin).manifests
    if found := of_two_servers(stored, origin, now):
        raise Refusal(f"Nothing was removed: {describe(found, store.place)}.")
    by_oid: dict[int, list[Manifest]] = {}  # This database's, and those of manifests that name no oid.
    for one in stored:
        known = one.cluster == origin.cluster and one.is_of_same_database(origin)
        if known and one.taken <= now + LIMIT and one.signed == SIGNED:
            by_oid.setdefault(one.oid, []).append(one)
    removed: list[Manifest] = []
    for manifests in by_oid.values():
        outdated = [one for one in to_prune(manifests) if one.name != verified]
        newest_kept = next((one for one in manifests if one.state == "good" and one not in outdated), None)
        if outdated and newest_kept and newest_kept.name != verified:
            _require_intact(store, newest_kept, progress)
        removed += outdated
    for manifest in removed:
        store.delete(f"{manifest.name}.json")
        store.delete(manifest.file)
    return removed


def _require_intact(store: Store, manifest: Manifest, progress: Progress) -> None:
    """Read the file of a backup; raise Refusal if it is not the one that was stored."""
    try:
        with fetched(store, manifest, progress):
            progress.clear()
    except Unfit as error:
        raise Refusal(f"Nothing was removed, because the newest verified backup cannot be used: {error}") from error
