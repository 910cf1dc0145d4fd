import sys
import time
from dataclasses import replace

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import Error, connections

from fly2any.database.backup.inventory import read_newest
from fly2any.database.health.examine import examine, not_asked
from fly2any.database.management.arguments import add_database, seconds
from fly2any.database.report.render import as_json, as_text
from fly2any.database.report.waivers import read_waivers
from fly2any.database.verification import for_release, verify, waived
from fly2any.database.write_check import check_writes


class Command(BaseCommand):
    help = "Report the status of the database, and compare its live schema with what the migrations build."
    requires_system_checks = []  # Must also run on a database that is not migrated yet.

    def add_arguments(self, parser):
        add_database(parser, "to look at")
        parser.add_argument("--format", default="text", choices=["text", "json"], help="How to print the report.")
        parser.add_argument(
            "--indexes", action="store_true", help="List each index with its definition, size, scans and last use."
        )
        parser.add_argument(
            "--write-check", action="store_true", help="Also create, read, update and delete a row in each table, rolled back."
        )
        parser.add_argument(
            "--security", action="store_true", help="Also look at who may do what, what is encrypted, and who gets in."
        )
        parser.add_argument(
            "--release",
            action="store_true",
            help="For deploys: what is found of the server, backups and security does not count.",
        )
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0,
            metavar="SECONDS",
            help="Wait this long for the database to answer with nothing pending.",
        )

    def handle(self, *, database, format, indexes, write_check, security, release, wait, verbosity, **options):
        connection = connections[database]
        report, failure = self.report(connection, indexes, wait), None
        if write_check:
            try:
                report = replace(report, write_checked=check_writes(connection))
            except Error as error:
                failure = error
        newest = read_newest(connection)
        looked = self.look_at_security(connection) if security else None
        found = (
            *report.findings,
            *newest.findings(),
            *(looked.findings if looked else ()),
            *(not_asked(looked, "security.not_asked") if looked else ()),
        )
        report = waived(replace(report, backups=newest, security=looked, findings=found), read_waivers(settings.WAIVERS))
        report = for_release(report) if release else report
        self.stdout.write(as_json(report) if format == "json" else as_text(report, verbosity=verbosity))
        if failure is not None:
            raise failure
        sys.exit(report.exit_code)

    def look_at_security(self, connection):
        from fly2any.database.health.security import TOPICS

        return examine(connection, TOPICS)

    def report(self, connection, indexes, wait):
        deadline = time.monotonic() + wait
        while True:
            left = deadline - time.monotonic()
            try:
                report = verify(connection, with_indexes=indexes)
                if left <= 0 or report.exit_code & 1 == 0:
                    return report
            except Error:
                if left <= 0:
                    raise
            connection.close()
            time.sleep(min(1, max(left, 0)))
