import sys

from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.errors import Refusal
from fly2any.database.maintenance import render
from fly2any.database.maintenance.run import PERIODS, archives_of, maintain, planned
from fly2any.database.management.arguments import add_database, add_lock_wait, seconds
from fly2any.database.migration.advisory_locks import MAINTENANCE_LOCK, advisory_lock
from fly2any.database.progress import Terminal
from fly2any.database.server import read_schema


class Command(BaseCommand):
    help = (
        "Run the weekly, monthly or quarterly maintenance, one run at a time, with a summary as the last line. It deletes the"
        " rows that RETENTION selects, after archiving them if ARCHIVE_LOCATION is set, and vacuums and analyses tables."
    )
    requires_system_checks = []

    def add_arguments(self, parser):
        tasks = [*PERIODS, "archives"]
        parser.add_argument(
            "what", metavar="TASK", choices=tasks, help=f"{', '.join(PERIODS)}, or archives to list the archives."
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Change nothing, and show how many rows retention would remove."
        )
        parser.add_argument(
            "--deadline",
            type=seconds,
            default=3600,
            metavar="SECONDS",
            help="Start no new work after this many seconds (default: 3600).",
        )
        parser.add_argument(
            "--trust-clock",
            action="store_true",
            help="Remove old rows even if the database recorded nothing for a month, which may mean that the clock is ahead.",
        )
        add_lock_wait(parser, "another run of maintenance")
        parser.add_argument("--format", default="text", choices=["text", "json"], help="How to print the report.")
        add_database(parser, "to work on")

    def handle(self, *, what, dry_run, deadline, trust_clock, lock_wait, format, database, verbosity, **options):
        connection, progress = connections[database], Terminal(self.stderr)
        if what == "archives":
            if (archives := archives_of(connection)) is None:
                raise Refusal(
                    "ARCHIVE_LOCATION is not set, so there are no archives: set it to their folder, or s3://bucket/folder."
                )
            unfinished, schema = archives.unfinished(), read_schema(connection)
            listed = render.as_list(*archives.all(), format, place=archives.store.place, unfinished=unfinished, schema=schema)
            self.stdout.write(listed)
            return
        if dry_run:
            self.stdout.write(render.as_plan(planned(connection, trust_clock=trust_clock), format))
            return
        with connection.direct():  # type: ignore[attr-defined]
            connection.ensure_connection()
            with advisory_lock(connection, MAINTENANCE_LOCK, patience=lock_wait, say=progress.say):
                run = maintain(connection, what, seconds=deadline, progress=progress, trust_clock=trust_clock)
        self.stdout.write(render.as_json(run) if format == "json" else render.as_text(run, verbosity=verbosity))
        sys.exit(run.exit_code)
