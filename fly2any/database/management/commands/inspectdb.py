from django.core.management.commands import inspectdb
from django.db import connections

from fly2any.database.schema.untrusted_code import read_readable
from fly2any.database.server import read_schema


class Command(inspectdb.Command):
    help = "Print models of the database's tables; for views and tables of other roles, print only their names."

    def handle_inspection(self, options):
        connection = connections[options["database"]]
        tables = read_readable(connection, schema=read_schema(connection))
        passed_over = []

        def is_readable(table):
            if table not in tables:
                passed_over.append(table)
            return table in tables

        yield from super().handle_inspection(options | {"table_name_filter": is_readable})
        for table in passed_over:
            yield f"# Not read, because that could run another role's code: {table!r}"
