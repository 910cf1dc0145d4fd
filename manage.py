#!/usr/bin/env python
"""Run one of the project's commands: `python manage.py help`."""

import os
import sys


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fly2any.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed here: run `make migrate`, or `pip install -r requirements.txt`.")
    from fly2any.database.diagnosis import explain

    try:
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sentence = None if "--traceback" in sys.argv else explain(error)
        if sentence is None:
            raise
        sys.stderr.write(f"{sentence}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
