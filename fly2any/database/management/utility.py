"""The runner of manage.py's commands, also of Django's.

schema/write_refusals.py decides which writes of Django's commands are refused. manage.py exits with 130 or 143 after a signal.
"""

import gc
import os
import signal
from pathlib import Path

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand, CommandError, SystemCheckError

from .suggestions import Parser


class Utility(ManagementUtility):
    """Runs every command by our rules, also those of Django and of other packages.

    Commands of Django and of other packages refuse to write if code of another role would run. All refuse to read a table or column
    that is missing while another role may create something in its place. Every command exits with 2 if it fails, because 1 means
    that migrations are pending, and suggests the closest choice for a mistyped one. Only its user can read the file of dumpdata.
    """

    def fetch_command(self, subcommand: str) -> BaseCommand:
        command = super().fetch_command(subcommand)
        gc.freeze()  # Imported objects stay, so the garbage collector need not scan them.
        gc.enable()
        # manage.py blocked them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        from django.db import connections

        from fly2any.database.schema.stand_ins import refuse_stand_ins
        from fly2any.database.schema.write_refusals import refuse_before_writes

        for connection in connections.all():
            refuse_stand_ins(connection)
            if not type(command).__module__.startswith("fly2any."):  # Ours check the tables that they write to themselves.
                refuse_before_writes(connection)
        if subcommand == "dumpdata":  # Its file has password hashes and tokens.
            os.umask(0o077)
            command.handle = _dumping(command.handle)  # type: ignore[method-assign]
        command.create_parser = _suggesting(command.create_parser)  # type: ignore[method-assign]
        command.execute = _exiting(command.execute)  # type: ignore[method-assign]
        return command


def _suggesting(create_parser):
    def create(*arguments, **options):
        parser = create_parser(*arguments, **options)
        parser.__class__ = Parser  # Django's command makes its own, of the class that this one extends.
        return parser

    return create


def _dumping(handle):
    """Return `handle` of dumpdata, which first closes an existing file to other users, since it keeps its mode and its owner.

    It refuses XML.
    """

    def handled(*labels, **options):
        from fly2any.database.errors import Refusal
        from fly2any.database.management.arguments import refuse_xml

        refuse_xml(options["format"])
        path = Path(options.get("output") or os.devnull)
        if path.is_file():
            if path.stat().st_uid != os.geteuid():
                raise Refusal(f"{path} belongs to another user, who could read the rows: name another file.")
            path.chmod(0o600)
        return handle(*labels, **options)

    return handled


def _exiting(execute):
    def executed(*arguments, **options):
        try:
            return execute(*arguments, **options)
        except CommandError as error:
            if error.returncode == 1 and not isinstance(error, SystemCheckError):
                error.returncode = 2
            raise

    return executed
