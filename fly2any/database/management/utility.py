"""How manage.py runs a command."""

import gc

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand


class Utility(ManagementUtility):
    """Runs the commands of Django and of other packages so that they refuse to write where code of another role would run."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        command = super().fetch_command(subcommand)
        gc.freeze()  # What is imported stays: garbage is looked for among the rest.
        gc.enable()
        if not type(command).__module__.startswith("fly2any."):  # Ours ask themselves, for the tables that they write to.
            from django.db import connections

            from fly2any.database.schema.strangers import refuse_before_writes

            for connection in connections.all():
                refuse_before_writes(connection)
        return command
