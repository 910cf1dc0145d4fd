from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.distribution import render
from fly2any.database.distribution.run import distribute, gather, planned
from fly2any.database.errors import Refusal
from fly2any.database.management.arguments import add_database, add_lock_wait
from fly2any.database.progress import Terminal


class Command(BaseCommand):
    help = "Distribute the growing tables over the nodes of Citus, show how they are distributed, or move all rows back."
    requires_system_checks = []

    def add_arguments(self, parser):
        add_database(parser, "to distribute")
        parser.add_argument("--yes", action="store_true", help="Carry out the plan; without it, nothing is changed.")
        parser.add_argument("--undo", action="store_true", help="Move all rows back to the coordinator (with --yes).")
        parser.add_argument("--format", default="text", choices=["text", "json"], help="How to print the plan.")
        add_lock_wait(parser)

    def handle(self, *, database, yes, undo: bool, format, lock_wait, **options):
        if database == "replica":
            raise Refusal("A replica follows its primary: run the command without --database replica.")
        connection, progress = connections[database], Terminal(self.stderr)
        with connection.direct():  # type: ignore[attr-defined]
            connection.ensure_connection()
            if yes:
                action = gather if undo else distribute
                done = action(connection, patience=lock_wait, progress=progress)
            else:
                done = planned(connection)
        self.stdout.write(render.as_json(done) if format == "json" else render.as_text(done, _last(done, yes=yes, undo=undo)))


def _last(done, *, yes: bool, undo: bool) -> str:
    """Return what was done, and what to do next."""
    if undo:
        return (
            "All tables are plain tables of this server again."
            if yes
            else "`manage.py dbdistribute --undo --yes` makes all of them plain tables of the coordinator again; reads and writes wait until it has finished."
        )
    if done.done:
        return "All tables are placed as planned."
    return "Nothing was changed. Take a backup (`manage.py dbbackup --verify`), then run `manage.py dbdistribute --yes`."
