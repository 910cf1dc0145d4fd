#!/usr/bin/env python
"""Run one of the project's commands: `python manage.py help`."""

import contextlib
import gc
import os
import signal
import sys
from pathlib import Path


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an interrupt: the driver then cancels the statement that runs."""


def terminate(*_):
    raise Terminated


def main():
    gc.disable()  # Until the command is imported, because garbage collection took a tenth of a short command's time.
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fly2any.settings")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # The caller closed it (`>&-`).
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        getattr(sys, name).reconfigure(
            errors="backslashreplace"
        )  # A table's name may have characters that the terminal's encoding lacks.
    signal.signal(signal.SIGTERM, terminate)  # So that a command removes its temporary files and databases.
    try:
        run()
    except KeyboardInterrupt as interrupt:
        sys.exit(143 if isinstance(interrupt, Terminated) else 130)
    except BrokenPipeError:  # The reader closed the pipe (`| head -1`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)


def refuse_other_encodings(arguments):
    """Exit with a sentence where an argument, also the name of a file, is not UTF-8: no database here could hold it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode(errors="backslashreplace")
            sys.stderr.write(
                f"The argument {shown} is not UTF-8: write it in UTF-8; a file with such a name must be renamed first.\n"
            )
            sys.exit(2)


def run():
    """Run the command; report an error in one sentence, with exit code 2."""
    try:
        import django  # noqa: F401
    except ImportError:
        if (Path(__file__).resolve().parent / ".venv" / "ready").exists():
            sentence = "Django is not installed for this Python, but for the project's own: run `. .venv/bin/activate` first."
        else:
            sentence = "Django is not installed here: run `make migrate`, or `pip install -r requirements.txt`."
        sys.stderr.write(f"{sentence}\n")
        sys.exit(2)
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    from fly2any.database.errors import explain
    from fly2any.database.management.utility import Utility

    try:
        refuse_other_encodings(sys.argv)
        with contextlib.suppress(ImproperlyConfigured):  # The command reports the error, or, like help, does not need it.
            if settings.URLS_NOT_USED:
                sys.stderr.write(f"{settings.URLS_NOT_USED}\n")
        try:
            Utility(sys.argv).execute()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except Exception as error:
        sentence = None if "--traceback" in sys.argv else explain(error)
        if sentence is None:
            raise
        sys.stderr.write(f"{sentence}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
