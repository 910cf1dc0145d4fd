"""Content-Length: a request that is too large is refused before its body is received, under WSGI and ASGI."""

from __future__ import annotations

from collections.abc import Sequence

DIGITS = 18  # More digits are not a valid length, and int() is slow for very many.


def body_length(values: Sequence[bytes], *, largest: int) -> int | None:
    """Return the bytes of a request's body by the values of its Content-Length headers, 0 without one.

    None where the body is larger than `largest`, or the header is malformed or repeated.
    """
    if not values:
        return 0
    value = values[0].strip()
    if len(values) > 1 or not value.isdigit() or len(value) > DIGITS or int(value) > largest:
        return None
    return int(value)
