import sys
import time
from dataclasses import replace

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import Error, connections

from fly2any.database.backup.inventory import read_newest
from fly2any.database.errors import sqlstate
from fly2any.database.health.examine import Reader
from fly2any.database.health.replication import commits_that_wait
from fly2any.database.management.arguments import add_database, seconds
from fly2any.database.management.output import write_report
from fly2any.database.migration.take_over import take_over as write_migration
from fly2any.database.report.as_json import status_as_json
from fly2any.database.report.collect import collect
from fly2any.database.report.script import status_as_sql
from fly2any.database.report.text import status_as_text
from fly2any.database.report.waivers import read_waivers
from fly2any.database.schema.unmanaged import tried
from fly2any.database.verification import verify
from fly2any.database.write_check import check_writes
from fly2any.postgres.response_timeout import RESPONSE, at_most

DROPPED = "XX000"  # An internal error: another session dropped an object that the query had begun to read.


class Command(BaseCommand):
    help = (
        "Report the status of the database, and compare its live schema with what the migrations build. It changes"
        " nothing in the database; what --write-check writes is rolled back. --take-over writes a file."
    )
    requires_system_checks = []  # Must also run on a database that is not migrated yet.

    def add_arguments(self, parser):
        add_database(parser, "to check")
        printed = parser.add_mutually_exclusive_group()
        printed.add_argument("--format", default="text", choices=["text", "json"], help="How to print the report.")
        printed.add_argument("--sql", action="store_true", help="Print only the cures, in order, as a script for dbshell.")
        printed.add_argument(
            "--take-over",
            metavar="TABLE.NAME",
            help="Write the migration that takes over an unmanaged constraint or index, under its own name, instead of the report.",
        )
        parser.add_argument(
            "--tables", action="store_true", help="List the 18 tables with their rows (estimated), size and state."
        )
        parser.add_argument(
            "--indexes", action="store_true", help="List each index with its definition, size, scans and last use."
        )
        parser.add_argument(
            "--write-check", action="store_true", help="Also create, read, update and delete a row in each table, rolled back."
        )
        parser.add_argument(
            "--security",
            action="store_true",
            help="Also check privileges, readers of secrets, ownership, code, encryption, passwords, exposure, audit and secrets.",
        )
        parser.add_argument(
            "--release",
            action="store_true",
            help="For deploys: findings about the server, wraparound, replication, backups and security, foreign_key.restricts, migrations.unknown and object.unprintable become notes.",
        )
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0,
            metavar="SECONDS",
            help="Wait this long for the database to answer with nothing pending.",
        )

    @at_most(RESPONSE)  # Monitors run it, and a proxy may acknowledge for a server that is gone.
    def handle(
        self,
        *,
        database,
        format,
        sql,
        take_over,
        tables,
        indexes,
        write_check,
        security,
        release,
        wait,
        verbosity,
        force_color,
        **options,
    ):
        connection = connections[database]
        verification = self.verify(connection, tables, indexes, wait)
        if take_over:
            path = write_migration(connection, take_over, verification.unmanaged, schema=verification.server.schema or "")
            self.stdout.write(f"Wrote {path}. Now run `manage.py dbcontract` and `manage.py migrate`.")
            return
        checked = check_writes(connection) if write_check else None
        report = collect(
            connection,
            verification=verification,
            found=commits_that_wait(Reader(connection, verification.server.schema or "")),
            backups=read_newest(connection),
            security=self.topics_of_security() if security else None,
            waivers=read_waivers(settings.WAIVERS),
            release=release,
        )
        if checked:
            report = self.with_writes(report, checked)
        if sql:
            self.stdout.write(status_as_sql(report))
        elif format == "json":
            self.stdout.write(status_as_json(report))
        else:
            write_report(self, status_as_text(report, verbosity=verbosity), report.exit_code, force_color=force_color)
        if checked and checked.error is not None:
            raise checked.error
        sys.exit(report.exit_code)

    def with_writes(self, report, checked):
        return replace(
            report,
            findings=tuple(tried(one, checked.passed, checked.failed, checked.refused_by) for one in report.findings),
            write_checked=None if checked.error else checked.passed,
            write_untried=checked.untried,
            write_failed=checked.error is not None,
        )

    def topics_of_security(self):
        from fly2any.database.health.security import TOPICS

        return TOPICS

    def verify(self, connection, tables, indexes, wait):
        deadline, retries = time.monotonic() + wait, 2
        while True:
            left = deadline - time.monotonic()
            try:
                verification = verify(connection, with_indexes=indexes, with_tables=tables)
                if left <= 0 or not verification.migrations.pending:
                    return verification
            except Error as error:
                if left <= 0 and (sqlstate(error) != DROPPED or not retries):
                    raise
                retries -= left <= 0
            connection.close()
            time.sleep(min(1, max(left, 0)))
