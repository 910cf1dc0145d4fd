"""The exit codes of the commands."""

from enum import IntEnum


class ExitCode(IntEnum):
    """0 is success; Python's own 1, 130 and 143 are an unknown error, Ctrl-C and SIGTERM."""

    OK = 0
    PENDING = 1  # Migrations are.
    REFUSED = 2  # Nothing was done, or it could not be found out; one sentence says why.
    FOUND = 4  # What was looked for is there: findings, blockers, remains, a difference.
    FOUND_AND_PENDING = 5
