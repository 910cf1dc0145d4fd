from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.exit_codes import ExitCode
from fly2any.database.management.arguments import add_database
from fly2any.database.schema import contract
from fly2any.database.scratch import built_contract


class Command(BaseCommand):
    help = "Rewrite contract.json from a scratch database, migrated step by step on the same server and dropped again."
    requires_system_checks = []

    def add_arguments(self, parser):
        add_database(parser, "names the server to use")
        parser.add_argument(
            "--check", action="store_true", help="Write nothing; exit with 4 if the file does not match the migrations."
        )

    def handle(self, *, database, check, **options):
        text = contract.dump(built_contract(connections[database]))
        same = contract.PATH.exists() and contract.PATH.read_text(encoding="utf-8") == text
        if same:
            self.stdout.write(f"{contract.PATH.name} matches the migrations.")
        elif check:
            self.stderr.write(
                f"{contract.PATH.name} does not match the migrations: run `manage.py dbcontract` and commit the file."
            )
            raise SystemExit(ExitCode.FOUND)
        else:
            contract.PATH.write_text(text, encoding="utf-8")
            self.stdout.write(f"Wrote {contract.PATH}.")
