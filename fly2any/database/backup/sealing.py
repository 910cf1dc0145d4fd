"""Encryption before a backup leaves this machine: age (age-encryption.org), to a key whose other half is elsewhere."""

from __future__ import annotations

from pathlib import Path

import pyrage

from ..diagnosis import Refusal

ENDING = ".age"


def seal(source: Path, target: Path, recipient: str) -> None:
    """Encrypt a file to `recipient`, age1…; raise Refusal where that is no such key."""
    try:
        key = pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise Refusal(
            "BACKUP_RECIPIENT is no public key of age: make a pair with `age-keygen`, and set it to the line age1…."
        ) from None
    pyrage.encrypt_file(str(source), str(target), [key])


def unseal(source: Path, target: Path, identity_file: str) -> None:
    """Decrypt a file by the key in `identity_file`; raise Refusal where it does not open it."""
    if not identity_file:
        raise Refusal("The backup is encrypted: set BACKUP_IDENTITY_FILE to the file with the key that age-keygen made.")
    try:
        lines = Path(identity_file).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise Refusal("BACKUP_IDENTITY_FILE names no file that can be read: correct it.") from None
    try:
        keys = [pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
        pyrage.decrypt_file(str(source), str(target), keys)
    except pyrage.IdentityError:
        raise Refusal("BACKUP_IDENTITY_FILE holds no key of age: it has a line AGE-SECRET-KEY-1….") from None
    except pyrage.DecryptError:
        raise Refusal("The key in BACKUP_IDENTITY_FILE does not open this backup: it was made for another.") from None
