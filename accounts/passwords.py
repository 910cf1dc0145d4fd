"""Passwords as the site keeps them: raw bcrypt, which bcryptjs writes and reads. Django's own format would lock people out there."""

import bcrypt
from django.core.exceptions import ValidationError

ROUNDS = 12
LONGEST_PASSWORD = 72  # Bytes: bcrypt looks at no more, and bcryptjs cuts the rest off.
# Of no password: what a wrong one costs is spent on an account without one too, so the clock does not tell them apart.
NOBODYS_HASH = "$2b$12$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK"


def make_hash(password: str) -> str:
    """Return the hash to store, `$2b$12$…`."""
    return bcrypt.hashpw(_bytes(password), bcrypt.gensalt(ROUNDS)).decode("ascii")


def verify(password: str, stored: str | None) -> bool:
    """Return whether `password` is the one of the hash `stored`; with none, or none of bcrypt's, no password is."""
    try:
        return bcrypt.checkpw(_bytes(password), (stored or NOBODYS_HASH).encode("ascii")) and bool(stored)
    except ValueError:  # A value of another program, which no password matches.
        return False


class LongestPasswordValidator:
    """Refuse a password of which a part would not count."""

    def validate(self, password, user=None):
        if len(password.encode()) > LONGEST_PASSWORD:
            raise ValidationError(
                f"The password is longer than {LONGEST_PASSWORD} bytes, of which no more would count: choose a shorter one."
            )

    def get_help_text(self):
        return f"Your password may have up to {LONGEST_PASSWORD} bytes."


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")[:LONGEST_PASSWORD]
