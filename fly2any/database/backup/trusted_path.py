"""Paths that lead where they led when they were checked: no other user can exchange a folder or a symbolic link on the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from ..errors import Refusal


def require_trusted_path(place: Path, variable: str) -> None:
    """Raise Refusal if another user can replace what is at `place`, which need not exist; `variable` is the setting with the place.

    A folder at `place` may still be another user's. Raises OSError if one on the way does not exist or cannot be searched.
    """
    user = os.geteuid()
    for step, status in _above(place):
        what = "it" if stat.S_ISLNK(status.st_mode) else "what is in it"
        if status.st_uid not in (user, 0):
            raise Refusal(
                f"{step} belongs to another user (uid {status.st_uid}, not {user}), who can replace {what}: run the command as that user, or set"
                f" {variable} to another folder."
            )
        if status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH and not stat.S_ISLNK(status.st_mode):
            raise Refusal(
                f"Every user may write to {step}, and replace {what}: `chmod +t {quote(str(step))}`, or set {variable} to another folder."
            )


def _above(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the folders and symbolic links through which `path` is found, from / on, with their owners and permissions.

    A link is followed only after it was yielded, so that a caller who stops at the first untrusted one follows no other user's.
    """
    if path != path.parent:
        yield from _above(path.parent)
        yield path.parent, path.parent.stat()
    if path.is_symlink():
        yield path, path.lstat()
        path.stat()  # Raises OSError if links lead in a circle.
        yield from _above(path.parent / path.readlink())
