"""Signatures of the files that describe backups: what this installation did not write is never used unasked, nor removed."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.utils.crypto import constant_time_compare, salted_hmac

SIGNED, UNSIGNED, MISMATCH = "signed", "unsigned", "signature does not match"


def signature(data: dict[str, Any], *, purpose: str, key: str | None = None) -> str:
    """Return the HMAC-SHA256, in hexadecimal digits, of what a JSON file holds, under `key` or the first of the keys."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    secret = settings.BACKUPS["signing_keys"][0] if key is None else key
    return salted_hmac(f"fly2any.{purpose}", canonical, secret=secret, algorithm="sha256").hexdigest()


def signed_as(data: dict[str, Any], given: object, *, purpose: str) -> str:
    """Return SIGNED where `given` is the signature of `data` under one of the keys, else UNSIGNED or MISMATCH."""
    if given is None:
        return UNSIGNED
    keys = settings.BACKUPS["signing_keys"]
    fits = [constant_time_compare(str(given), signature(data, purpose=purpose, key=key)) for key in keys]
    return SIGNED if any(fits) else MISMATCH
