from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.management.arguments import add_database
from fly2any.database.roles import roles_sql
from fly2any.database.schema import Table
from fly2any.database.schema.contract import load


class Command(BaseCommand):
    help = "Print the SQL that creates or updates three roles: for migrations, for the site and the admin, and for read-only access."
    requires_system_checks = []

    def add_arguments(self, parser):
        add_database(parser, "the roles are for")
        parser.add_argument(
            "--prefix", default="fly2any", help="Prefix of the role names: PREFIX_migrate, PREFIX_app, PREFIX_read."
        )

    def handle(self, *, database, prefix, **options):
        tables = {version.object.name for version in load().versions if isinstance(version.object, Table)}
        self.stdout.write(roles_sql(connections[database], sorted(tables), prefix=prefix))
