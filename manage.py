#!/usr/bin/env python
"""Run one of the project's commands: `python manage.py help`."""

import contextlib
import errno
import gc
import os
import signal
import sys
from pathlib import Path


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP (its number), as an interrupt: the driver then cancels the statement that runs."""


def terminate(number, _):
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)  # A lost terminal may send it twice, the second time during the clean-up.
        discard_output()
    raise Terminated(number)


def discard_output():
    """Discard what is written to a lost terminal: the clean-up reports its progress there, and an error would end it.

    Return whether a terminal was lost.
    """
    lost = False
    for descriptor in (1, 2):
        try:
            os.tcgetpgrp(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
                lost = True
    return lost


def main():
    gc.disable()  # Until the command is imported, because garbage collection took a tenth of a short command's time.
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fly2any.settings")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # The caller closed it (`>&-`).
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        getattr(sys, name).reconfigure(
            errors="backslashreplace"
        )  # A table's name may have characters that the terminal's encoding lacks.
    for number in (signal.SIGTERM, signal.SIGHUP):  # So that a command removes its temporary files and databases.
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP.
            signal.signal(number, terminate)
    # Until the command is imported, because one that arrives while an extension module is imported becomes a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        run()
    except KeyboardInterrupt as interrupt:
        sys.exit(128 + (interrupt.args[0] if isinstance(interrupt, Terminated) else signal.SIGINT))
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
        if discard_output():  # A write to the terminal may fail just before SIGHUP arrives.
            raise Terminated(signal.SIGHUP) from error
        sentence = None if "--traceback" in sys.argv else explain(error)
        if sentence is None:
            raise
        sys.stderr.write(f"{sentence}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
