"""Encryption of backups and archives with age (age-encryption.org). This machine does not need the private key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any

import pyrage

from ..durable import new_file
from ..errors import Refusal

ENDING = ".age"


class WrongKey(Refusal):
    """No key in BACKUP_IDENTITY_FILE decrypts a file."""

    def __init__(self) -> None:
        super().__init__(
            "The key in BACKUP_IDENTITY_FILE does not decrypt this backup: use the key for which it was encrypted."
        )


class _Decrypted(Exception):  # noqa: N818  Not an error.
    pass


class _FirstPart(RawIOBase):
    """A file that ends the decryption at the first decrypted part."""

    def write(self, part) -> int:
        raise _Decrypted


@contextmanager
def require_space_for(target: Path) -> Iterator[None]:
    """Raise Refusal in place of an error while `target` is written, as on a full disk."""
    try:
        yield
    except (OSError, pyrage.EncryptError, pyrage.DecryptError) as error:
        if isinstance(error, OSError) or "os error" in str(error) or "No space" in str(error):
            raise Refusal(f"{target.parent} has no room for {target.name} ({error}): make room there, or set TMPDIR.") from None
        raise


def encrypt(source: Path, target: Path, recipient: str) -> None:
    """Encrypt a file to `recipient`, age1…; raise Refusal if that is not a valid key."""
    try:
        key = pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise Refusal(
            "BACKUP_RECIPIENT is not an age public key: create a key with `age-keygen`, and set BACKUP_RECIPIENT to its public key (age1…)."
        ) from None
    with require_space_for(target):
        pyrage.encrypt_file(str(source), str(target), [key])


def keys_in(identity_file: str) -> list[Any]:
    """Return the keys in `identity_file`; raise Refusal if there is none."""
    if not identity_file:
        raise Refusal("The backup is encrypted: set BACKUP_IDENTITY_FILE to the file with the key that age-keygen created.")
    try:
        lines = Path(identity_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Refusal("BACKUP_IDENTITY_FILE does not name a readable file: correct it.") from None
    try:
        found = [pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise Refusal("BACKUP_IDENTITY_FILE contains no age key: set it to a file with a line AGE-SECRET-KEY-1….")
    return found


def decrypt(source: FileIO, target: Path, identity_file: str) -> None:
    """Decrypt a file by a key in `identity_file`; raise WrongKey if none opens it."""
    keys = keys_in(identity_file)
    try:
        with require_space_for(target), new_file(target) as plain:
            pyrage.decrypt_io(source, plain, keys)
    except pyrage.DecryptError:
        raise WrongKey from None


def require_key(source: FileIO, identity_file: str) -> None:
    """Raise WrongKey if no key in `identity_file` opens a file; it reads no more than the beginning, and writes nothing."""
    keys = keys_in(identity_file)
    try:
        pyrage.decrypt_io(source, _FirstPart(), keys)
    except pyrage.DecryptError:
        raise WrongKey from None
    except _Decrypted:
        pass
