import shlex

from django.contrib.auth.management.commands import createsuperuser
from django.db import connections

from fly2any.database.schema.write_refusals import refuse_before_writes


class Command(createsuperuser.Command):
    help = "Create an administrator. `manage.py dbstaff` appoints an existing person."

    def handle(self, *args, **options):
        refuse_before_writes(connections[options["database"]])
        return super().handle(*args, **options)

    def _validate_username(self, username, verbose_field_name, database):
        error = super()._validate_username(username, verbose_field_name, database)  # type: ignore[misc]
        if error and error.endswith(" is already taken."):
            return f"{error} Run `manage.py dbstaff {shlex.quote(username)} --role administrator` to make this person an administrator."
        return error
