"""Progress reports of a long run: sentences always, steps and a progress bar only on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from .terminal_text import printable


class Progress:
    """Progress reports of a run; this class discards them."""

    def say(self, sentence: str) -> None:
        """Report a sentence, on a line of its own."""

    def step(self, sentence: str) -> None:
        """Report, on a terminal only, a step that begins, on a line of its own."""

    def show(self, what: str, percent: float | None) -> None:
        """Show how far a statement is; `percent` is None if it is unknown."""

    def clear(self) -> None:
        """Report that the statement has ended."""


class Terminal(Progress):
    """Reports to stderr."""

    def __init__(self, stderr):
        self.stderr = stderr
        self.bar: Any = None  # From rich, which is imported only if there is a terminal.

    def say(self, sentence):
        self.clear()
        self.stderr.write(printable(sentence))

    def step(self, sentence):
        if sys.stderr.isatty():
            self.say(sentence)

    def show(self, what, percent):
        if not sys.stderr.isatty():
            return
        from rich.markup import escape

        if self.bar is None:
            sys.stderr.write("\n")  # The line that Django began says "Applying …", and waits for its OK.
            self.bar = begun()
        self.bar.update(
            self.bar.task_ids[0],
            description=escape(printable(what)),
            completed=percent or 0,
            total=100 if percent is not None else None,
        )

    def clear(self):
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def begun():
    """Return one of rich's progress bars, with one task."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    what = TextColumn("  {task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = (what, BarColumn(bar_width=20), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, expand=True)
    bar.add_task("", total=None)
    bar.start()
    return bar
