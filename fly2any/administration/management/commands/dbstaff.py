import shlex

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from fly2any.administration.staff import ROLES, appoint, dismiss, read_staff
from fly2any.database.management.arguments import add_database


class Command(BaseCommand):
    help = "List the admin's staff, or grant or revoke a person's role."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("email", nargs="?", metavar="EMAIL", help="The person's e-mail address.")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--role", choices=ROLES, help="Grant this role; create the person if missing.")
        what.add_argument("--remove", action="store_true", help="Revoke the person's role and access to the admin.")
        what.add_argument("--list", action="store_true", help="List the staff with their roles (the default).")
        add_database(parser, "to work on")

    def handle(self, *, email, role, remove, database, **options):
        if bool(email) != bool(role or remove):
            raise CommandError("Give EMAIL with --role or --remove, and leave it out to list the staff.")
        connection = connections[database]
        if role:
            self.stdout.write(sentence(appoint(connection, email, role), role))
        elif remove:
            self.stdout.write(f"{dismiss(connection, email)} is no longer staff. The account on the site stays.")
        else:
            self.list(read_staff(connection))

    def list(self, staff):
        for member in staff:
            signed_in = f"last sign-in {member.last_login:%Y-%m-%d}" if member.last_login else "never signed in"
            state = signed_in if member.is_active else "inactive"
            self.stdout.write(f"  {member.email:<40} {', '.join(member.roles) or 'no role':<16} {state}")
        if not staff:
            self.stdout.write("No staff. Appoint an administrator with `manage.py dbstaff EMAIL --role administrator`.")


def sentence(done, role):
    """Return what `appoint` did, with the password if there is a new one."""
    started = f"{done.email} was created with the role {role}." if done.is_new else f"{done.email} now has the role {role}."
    if done.password is None:
        return f"{started} The password stays; `manage.py changepassword {shlex.quote(done.email)}` sets another."
    replaced = " The old password was replaced, because others may have set it before the person became staff."
    return (
        f"{started}{replaced if done.replaces else ''}"
        f" New password: {done.password} (shown only now; change it after the first sign-in)."
    )
