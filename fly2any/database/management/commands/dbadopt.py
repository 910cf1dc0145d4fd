import sys

from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.adoption import Kind, adopt, assess
from fly2any.database.adoption.render import NEXT_STEPS, as_json, as_text
from fly2any.database.errors import Refusal
from fly2any.database.management.arguments import add_database, add_lock_wait
from fly2any.database.progress import Terminal
from fly2any.database.units import plural


class Command(BaseCommand):
    help = "Adopt a database that Prisma created: show the plan, and with --yes convert it in place."
    requires_system_checks = []

    def add_arguments(self, parser):
        add_database(parser, "to adopt")
        parser.add_argument("--format", default="text", choices=["text", "json"], help="How to print the plan.")
        parser.add_argument("--yes", action="store_true", help="Execute the plan; without it, nothing is changed.")
        parser.add_argument("--repair", action="store_true", help="With --yes: first repair what can be repaired without loss.")
        parser.add_argument(
            "--end-idle",
            action="store_true",
            help="With --yes: end other clients' idle connections once, after the last step that changes a column's type. A Node process may exit"
            " when its connection is ended (57P01, unhandled): prefer a rolling restart of the site after the adoption.",
        )
        add_lock_wait(parser)

    def handle(self, *, database, format, yes, repair, end_idle, lock_wait, **options):
        text = as_json if format == "json" else as_text
        if (repair or end_idle) and not yes:
            raise Refusal("--repair and --end-idle change the database: add --yes, or omit both to see the plan.")
        if not yes:
            with connections[database].direct():  # type: ignore[attr-defined]
                assessment = assess(connections[database])
            self.stdout.write(text(assessment))
            sys.exit(assessment.exit_code)
        terminal = Terminal(self.stderr)

        def done(step, seconds):
            if format == "text":
                self.stdout.write(f"  {step.table}: {step.what} ({seconds:.2f} s)")

        assessment = adopt(database, patience=lock_wait, progress=terminal, repair=repair, end_idle=end_idle, done=done)
        is_finished = assessment.kind is Kind.OURS and not assessment.migrations
        adopted = not (assessment.blockers or assessment.kind is Kind.EMPTY or is_finished)
        if adopted and format == "text":
            self.stdout.write(
                f"Adopted: {plural(len(assessment.steps), 'step')}, {plural(len(assessment.recorded), 'migration')} recorded, {len(assessment.migrations)} run.{NEXT_STEPS}"
            )
        else:
            self.stdout.write(text(assessment))
        sys.exit(assessment.exit_code)
