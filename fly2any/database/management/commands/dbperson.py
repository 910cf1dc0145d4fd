import os
from contextlib import contextmanager

from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.diagnosis import Refusal
from fly2any.database.management.arguments import add_database
from fly2any.database.person import as_rows, count, erase, export, find


class Command(BaseCommand):
    help = "Give out, or erase, everything that is held about a person."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("what", choices=["export", "erase"], help="Whether to give it out, or to erase it.")
        parser.add_argument("email", metavar="EMAIL", help="The person's e-mail address.")
        parser.add_argument("--output", metavar="FILE", help="Write the export, or the certificate, into this new file.")
        parser.add_argument("--yes", action="store_true", help="With erase: do it; without, it is shown what would go.")
        add_database(parser, "they are in")

    def handle(self, *, what, email, output, yes, database, **options):
        connection = connections[database]
        person = find(connection, email)
        if what == "erase" and not yes:
            rows = "\n".join(as_rows(count(connection, person)))
            self.stdout.write(
                f"Nothing was changed. --yes erases these rows of {email}, for good but for backups and archives:\n{rows}"
            )
            return
        with self.opened(output) as write:  # Before anything is erased.
            for text in export(connection, person) if what == "export" else [erase(connection, person).as_json() + "\n"]:
                write(text)

    @contextmanager
    def opened(self, output):
        if output is None:
            yield lambda text: self.stdout.write(text, ending="")
            return
        try:
            file = os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
        except FileExistsError:
            raise Refusal(f"{output} is there already: name a new file.") from None
        except OSError as error:
            raise Refusal(f"{output} cannot be written ({error.strerror}): name another file.") from error
        with file:
            yield file.write
