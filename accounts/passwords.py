"""Passwords as the site stores them: raw bcrypt, which bcryptjs writes and reads. Django's own format would lock people out there."""

import re

import bcrypt
from django.core.exceptions import ValidationError

ROUNDS = 12
LONGEST_PASSWORD = 72  # Bytes: bcrypt uses no more, and bcryptjs truncates the rest.
# No password has this hash. An account without one is checked against it, so the response time does not reveal it.
NOBODYS_HASH = "$2b$12$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK"
# As bcryptjs knows them, and `dbstatus --security` (BCRYPT).
HASH = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


def make_hash(password: str) -> str:
    """Return the hash to store, `$2b$12$…`."""
    return bcrypt.hashpw(_bytes(password), bcrypt.gensalt(ROUNDS)).decode("ascii")


def verify(password: str, stored: str | None) -> bool:
    """Return whether `password` matches the hash `stored`; no password matches a missing hash, or one that is not bcrypt's."""
    try:
        return bcrypt.checkpw(_bytes(password), (stored or NOBODYS_HASH).encode("ascii")) and bool(stored)
    except ValueError:  # Another program's value, which no password matches.
        return False


def is_hash(stored: str | None) -> bool:
    """Return whether `stored` is a hash of bcrypt's: no password matches any other value."""
    return HASH.fullmatch(stored or "") is not None


class LongestPasswordValidator:
    """Reject a password that bcrypt would truncate."""

    def validate(self, password, user=None):
        if len(password.encode()) > LONGEST_PASSWORD:
            raise ValidationError(
                f"The password is longer than {LONGEST_PASSWORD} bytes, and the rest would be ignored. Choose a shorter one."
            )

    def get_help_text(self):
        return f"Your password may have up to {LONGEST_PASSWORD} bytes."


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")[:LONGEST_PASSWORD]
