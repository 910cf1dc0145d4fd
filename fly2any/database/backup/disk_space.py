"""The disk space that a restored database takes on the server: a full disk stops a PostgreSQL server."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import Refusal
from ..sql import fetch_one
from ..terminal_text import one_line
from ..units import size
from .manifest import Manifest
from .tablespaces import Tablespace, read_own

SPARE = 0.1  # Factor on the size of the database, for the write-ahead log and other clients.
# Only superusers and members of pg_read_all_settings may read it.
FOLDER_SQL = """
    SELECT CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
                THEN pg_catalog.current_setting('data_directory') ELSE '' END
"""


def note(connection, manifest: Manifest) -> str:
    """Return a sentence about the disk space that a restore takes, "" if the backup does not say."""
    if not manifest.size:
        return ""
    return (
        f"The restored database takes about {size(manifest.size)} on the {_disk(read_own(connection))}, in addition to the one in use. Check that this much is free:"
        " a full disk stops the server."
    )


def require_disk_space(connection, manifest: Manifest) -> None:
    """Raise Refusal if the server is on this machine and its disk lacks the space for the backup's database."""
    if not connection.connection.info.host.startswith("/"):  # A server that is reached over a socket is on this machine.
        return
    own, folder = read_own(connection), fetch_one(connection, FOLDER_SQL)[0]
    if own and own.is_usable:
        folder = str(Path(folder, own.folder))
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # The folder may be in a container that shares its socket.
        return
    if manifest.size * (1 + SPARE) > free:
        raise Refusal(
            f"{manifest.name} takes about {size(manifest.size)} on the {_disk(own)}, and only {size(free)} is free there: make room"
            f" in {folder}. Nothing was changed."
        )


def _disk(own: Tablespace | None) -> str:
    return one_line(f"disk of the tablespace {own.name}") if own and own.is_usable else "server's disk"
