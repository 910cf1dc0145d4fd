"""The output of commands."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.core.management.base import BaseCommand


def write_report(command: BaseCommand, text: str, exit_code: int, *, force_color: bool = False) -> None:
    """Write `text`, and on a terminal its first and last line, the verdict, in green, yellow or red; NO_COLOR is respected."""
    lines = text.removesuffix("\n").split("\n")
    if force_color or (command.stdout.isatty() and not os.environ.get("NO_COLOR")):
        style = command.style
        paint = {0: style.SUCCESS, 1: style.WARNING}.get(exit_code, style.ERROR)
        lines[0], lines[-1] = paint(lines[0]), paint(lines[-1])
    command.stdout.write("\n".join(lines))


@contextmanager
def lasting(write: Callable[[str], object]) -> Iterator[Callable[[str], None]]:
    """Yield `write` for a command whose work matters more than its output: that its disk is full is raised at the end of the block."""
    failures = list[OSError]()

    def say(text: str) -> None:
        try:
            write(text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            failures.append(error)

    yield say
    if failures:
        raise failures[0]
