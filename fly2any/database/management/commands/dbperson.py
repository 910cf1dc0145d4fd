import sys
from pathlib import Path

from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.exit_codes import ExitCode
from fly2any.database.management.arguments import add_database
from fly2any.database.person import File, Stream, erase, export, find, plan, write_new
from fly2any.database.person.render import plan_as_text
from fly2any.database.progress import Terminal


class Command(BaseCommand):
    help = "Export or erase all data about a person."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument(
            "what", metavar="TASK", choices=["export", "erase"], help="export prints the data, erase deletes it."
        )
        parser.add_argument("email", metavar="EMAIL", help="The person's e-mail address or ID.")
        parser.add_argument(
            "--output", metavar="FILE", type=Path, help="Write the export, or the certificate, into this new file."
        )
        parser.add_argument(
            "--yes", action="store_true", help="With erase: erase the person; without it, show what would be removed."
        )
        parser.add_argument(
            "--no-search",
            action="store_true",
            help="With erase: do not search the database for what remains; the certificate says so.",
        )
        add_database(parser, "holds the person")

    def handle(self, *, what, email, output, yes, no_search, database, **options):
        connection = connections[database]
        progress = Terminal(self.stderr)
        person = find(connection, email)
        if what == "export":
            self.export(connection, person, output)
        elif not yes:
            planned = plan(connection, person, searched=not no_search, progress=progress)
            planned.require()
            self.stdout.write(plan_as_text(planned), ending="")
        else:
            keeper = File(output) if output else Stream(self.stdout)
            certificate = erase(connection, person, keeper, searched=not no_search, progress=progress)
            if not certificate.is_whole:
                self.stderr.write(
                    "The person was erased. The certificate lists what remains or was not searched: check those places."
                )
                sys.exit(ExitCode.FOUND)

    def export(self, connection, person, output):
        texts = export(connection, person)
        if output:
            write_new(output, lambda stream: stream.writelines(texts))
            return
        for text in texts:
            self.stdout.write(text, ending="")
