"""What a long run tells a person: sentences always, a progress bar on a terminal only."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from .printable import printable
from .watching import Progress


class Terminal(Progress):
    """Tells on stderr."""

    def __init__(self, stderr):
        self.stderr = stderr
        self.bar: Bar | None = None

    def say(self, sentence):
        self.clear()
        self.stderr.write(printable(sentence))

    def show(self, what, percent):
        if not sys.stderr.isatty():
            return
        if self.bar is None:
            sys.stderr.write("\n")  # The line that Django began says "Applying …", and waits for its OK.
            what_column = TextColumn("  {task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
            columns = (what_column, BarColumn(bar_width=20), TaskProgressColumn(), TimeElapsedColumn())
            self.bar = Bar(*columns, console=Console(stderr=True), transient=True, expand=True)
            self.bar.add_task("", total=None)
            self.bar.start()
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
