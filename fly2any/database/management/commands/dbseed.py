import argparse
import secrets
import sys
from datetime import UTC, date, datetime

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connections
from rich.console import Console
from rich.progress import Progress

from fly2any.database.errors import Refusal
from fly2any.database.management.arguments import add_database
from fly2any.database.seed import DEMO_DOMAIN, seed
from fly2any.database.units import plural

MOST_USERS = 100_000_000


def whole_number(text):
    if not text.isdecimal() or int(text) > MOST_USERS:
        raise argparse.ArgumentTypeError(f"give a whole number from 0 to {MOST_USERS:,}")
    return int(text)


def day(text):
    try:
        until = date.fromisoformat(text)
    except ValueError:
        until = date.min
    if not 1980 <= until.year <= 2037:  # What the site's 32-bit epoch seconds can hold.
        raise argparse.ArgumentTypeError("give a day as YYYY-MM-DD, from 1980 to 2037")
    return until


class Command(BaseCommand):
    help = "Add demo data to all 18 tables: the same for the same seed; a second run adds only missing rows."

    def add_arguments(self, parser):
        add_database(parser, "to fill")
        parser.add_argument(
            "--users",
            type=whole_number,
            default=1_000,
            metavar="N",
            help="Number of users (default: 1000, about 89,000 rows; each further one adds about 64).",
        )
        parser.add_argument(
            "--seed", type=whole_number, default=1, metavar="S", help="Seed of the data: the same seed gives the same data."
        )
        parser.add_argument(
            "--until", type=day, metavar="YYYY-MM-DD", help="The day at whose start the data ends, in UTC (default: now)."
        )
        parser.add_argument(
            "--admin", action="store_true", help="Also create demo staff, one of each role, and show their passwords once."
        )
        parser.add_argument("--yes", action="store_true", help="Proceed even if the database contains real users.")
        parser.add_argument("--production", action="store_true", help="Proceed even in production (DEBUG is off).")

    def handle(self, *, database, users, seed: int, until, admin, yes, production, **options):
        place = connections[database].settings_dict
        if not (production or settings.DEBUG):
            raise Refusal(
                f"Database {place['NAME']} {f'at {host}' if (host := place['HOST']) else 'on the local socket'} is in production (DEBUG is off):"
                " give --production to add demo data to it, or set DEBUG=true if it is a development database."
            )
        added = self.seed(connections[database], users, seed, until or datetime.now(UTC), yes)
        for table, number in added.items():
            self.stdout.write(f"  {table:<20}{number:>12,} {'row' if number == 1 else 'rows'} added")
        self.stdout.write(f"{plural(sum(added.values()), 'row')} added in total.")
        if admin:
            self.make_staff(database)

    def seed(self, connection, users, number, until, yes):
        # On a terminal only: Rich would otherwise write to a file too.
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
            task = progress.add_task("Users", total=users)
            return seed(
                connection,
                users=users,
                seed=number,
                until=until,
                among_real_users=yes,
                progress=lambda done: progress.update(task, completed=done),
            )

    def make_staff(self, database):
        people = get_user_model()._default_manager.db_manager(database)
        for role in ("admin", "support", "operations"):
            email = f"{role}{DEMO_DOMAIN}"
            if people.filter(email=email).exists():
                self.stdout.write(f"{email} exists; `manage.py changepassword {email}` sets another password.")
            elif role == "admin":
                password = secrets.token_urlsafe(12)
                people.create_superuser(email, password, name="Demo administrator")
                self.stdout.write(f"Sign in as {email} with the password {password} (shown only now).")
            else:
                call_command("dbstaff", email, role=role, database=database, stdout=self.stdout)
