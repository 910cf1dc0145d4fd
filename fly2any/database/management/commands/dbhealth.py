import sys

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.backup.inventory import read_newest
from fly2any.database.errors import Refusal
from fly2any.database.health.sessions import end
from fly2any.database.health.topics import TOPICS
from fly2any.database.management.arguments import add_database
from fly2any.database.management.output import write_report
from fly2any.database.management.suggestions import did_you_mean
from fly2any.database.report.as_json import health_as_json
from fly2any.database.report.collect import collect, compare_and_collect
from fly2any.database.report.text import health_as_text
from fly2any.database.report.waivers import read_waivers
from fly2any.postgres.response_timeout import RESPONSE, at_most


class Command(BaseCommand):
    help = (
        "Report the health of the database in use, topic by topic, each finding with its figure, its limit and its cure. It only"
        " reads; with --terminate and --yes it terminates one session, whose transaction is rolled back."
    )
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"Only these topics: {', '.join(TOPICS)}.")
        add_database(parser, "to check")
        parser.add_argument("--format", default="text", choices=["text", "json"], help="How to print the report.")
        parser.add_argument(
            "--terminate", type=int, metavar="PID", help="Terminate this session, instead of printing a report."
        )
        parser.add_argument(
            "--yes", action="store_true", help="With --terminate: terminate the session; without it, show the session."
        )

    @at_most(RESPONSE)  # Monitors run it, and a proxy may acknowledge for a server that is gone.
    def handle(self, *, topics, database, format, terminate: int, yes, force_color, **options):
        if unknown := [name for name in topics if name not in TOPICS]:
            near = did_you_mean(unknown[0], TOPICS)
            raise Refusal(f"There is no topic {unknown[0]}{near}: the topics are {', '.join(TOPICS)}.")
        if terminate is not None:
            self.stdout.write(end(connections[database], terminate, really=yes))
            return
        connection = connections[database]
        waivers = read_waivers(settings.WAIVERS)
        if topics:
            report = collect(connection, health={name: TOPICS[name] for name in topics}, waivers=waivers)
        else:
            report = compare_and_collect(connection, backups=read_newest(connection), health=TOPICS, waivers=waivers)
        if format == "json":
            self.stdout.write(health_as_json(report))
        else:
            write_report(self, health_as_text(report), report.exit_code, force_color=force_color)
        sys.exit(report.exit_code)
