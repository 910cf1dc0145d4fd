"""The verified backup that reversals, resets, `flush` and `loaddata` require before they delete or overwrite rows."""

from __future__ import annotations

from django.conf import settings

from ..clock import server_time
from ..database_identity import read_origin
from ..errors import Refusal, Unfit
from ..progress import Progress
from ..units import span
from .encryption import ENDING, WrongKey, require_key
from .inventory import read_newest
from .store import store_at
from .stored_file import fetched


def backup_required(*, without_backup: bool):
    """Return `require_backup`, or None `without_backup`; commands that delete rows call it first."""
    return None if without_backup else require_backup


def require_backup(connection) -> None:
    """Raise Refusal if no verified backup is recent enough, if its file has changed, or if BACKUP_IDENTITY_FILE does not decrypt it."""
    good, now = read_newest(connection).good, server_time(connection)
    if good and not good.is_of_same_database(read_origin(connection)):
        good = None  # It is of an earlier database of this name, so it lacks the present rows.
    limit = settings.BACKUPS["max_age"]
    if good is None or good.age(now) > limit:
        newest = "there is none" if good is None else f"the newest is {span(good.age(now))} old"
        raise Refusal(
            f"A verified backup newer than {span(limit)} is required before rows are deleted or overwritten, but {newest}:"
            " run `manage.py dbbackup --verify`, or add --without-backup."
        )
    try:
        with fetched(store_at(settings.BACKUPS["location"]), good, Progress()) as file:
            # The key may be kept on another machine; a key that is here must be the right one.
            if good.file.endswith(ENDING) and (identity_file := settings.BACKUPS["identity_file"]):
                require_key(file, identity_file)
    except (Unfit, WrongKey) as error:
        raise Refusal(
            f"A verified backup is required before rows are deleted or overwritten, but the newest cannot be used ({str(error).rstrip('.')}):"
            " run `manage.py dbbackup --verify`, or add --without-backup."
        ) from error
