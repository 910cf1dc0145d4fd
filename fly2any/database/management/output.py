"""Reports on a terminal."""

import os

from django.core.management.base import BaseCommand


def write_report(command: BaseCommand, text: str, exit_code: int, *, force_color: bool = False) -> None:
    """Write `text`, and on a terminal its first and last line, the verdict, in green, yellow or red; NO_COLOR is respected."""
    lines = text.removesuffix("\n").split("\n")
    if force_color or (command.stdout.isatty() and not os.environ.get("NO_COLOR")):
        style = command.style
        paint = {0: style.SUCCESS, 1: style.WARNING}.get(exit_code, style.ERROR)
        lines[0], lines[-1] = paint(lines[0]), paint(lines[-1])
    command.stdout.write("\n".join(lines))
