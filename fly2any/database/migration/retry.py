"""Retries of actions that did not get a lock; run.py says whom they gave way to.

An atomic migration is rolled back and begins again as a whole (executor.py has its transaction); in another, `Run.__call__` (run.py)
repeats one statement.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.conf import settings
from django.db import OperationalError

from ..errors import sqlstate

T = TypeVar("T")

DEADLOCK = "40P01"
LOCKED_OUT = ("55P03", DEADLOCK)  # lock_not_available, deadlock_detected: the statement had no effect.
FIRST_PAUSE, LONGEST_PAUSE = 1 / 4, 3  # In multiples of LOCK_TIMEOUT; each pause is twice the one before.


def try_again(
    action: Callable[[], T],
    *,
    patience: float,
    again: Callable[[OperationalError, float], None],
    states: Sequence[str] = LOCKED_OUT,
) -> T:
    """Return the result of `action`, retried after growing pauses while it does not get its locks, or fails with another of `states`.

    `action` must undo its work when it raises. `again` is called with the error and the next pause in seconds. Raises the last
    error once `patience` seconds are over: for migrations, those of `--lock-wait`, by default PATIENCE (advisory_locks.py).
    """
    begun = time.monotonic()
    timeout = settings.LOCK_TIMEOUT / 1000
    pause = FIRST_PAUSE * timeout
    while True:
        tried = time.monotonic()
        try:
            return action()
        except OperationalError as error:
            now = time.monotonic()
            left = begun + patience - now
            if sqlstate(error) not in states or left <= 0:
                raise
            # Other sessions get at least as long as they waited behind this attempt.
            wait = min(max(random.uniform(pause / 2, pause), random.uniform(1, 1.2) * min(now - tried, timeout)), left)
            again(error, wait)
        time.sleep(wait)
        pause = min(pause * 2, LONGEST_PAUSE * timeout)
