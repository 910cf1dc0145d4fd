from pathlib import Path

from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.errors import Refusal
from fly2any.database.management.arguments import add_database
from fly2any.database.progress import Terminal
from fly2any.database.units import plural
from fly2any.database.upgrade import upgrade


class Command(BaseCommand):
    help = "Upgrade the embedded server's data directory to the installed major version of PostgreSQL."
    requires_system_checks = []

    def add_arguments(self, parser):
        add_database(parser, "to upgrade")
        parser.add_argument(
            "--programs",
            type=Path,
            metavar="FOLDER",
            help="Folder of the old version's server programs (postgres); if not given, installed packages are searched.",
        )

        parser.add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="ROLE",
            help="Let the code of this role run as the superuser, even if the role owns neither the database nor its tables; may be repeated.",
        )

    def handle(self, *, database, programs, trust, **options):
        place = connections[database].settings_dict
        if not place.get("EMBEDDED"):
            raise Refusal(
                f"{place.get('VARIABLE', 'POSTGRES_URL')} names a server that this project does not manage: docs/how-to/upgrade.md describes how to upgrade it."
            )
        done = upgrade(place, Terminal(self.stderr), programs=programs, trust=trust)
        if done is None:
            self.stdout.write("The data directory already has the installed major version of PostgreSQL; nothing was changed.")
            return
        self.stdout.write(f"Upgraded  from PostgreSQL {done.before} to {done.after}")
        self.stdout.write(
            f"Compared  {plural(done.databases, 'database')}, {plural(done.tables, 'table')}, {plural(done.rows, 'row')}: all are the same."
        )
        self.stdout.write(f"Kept      {done.kept}. Delete it when `manage.py dbstatus` reports no findings.")
