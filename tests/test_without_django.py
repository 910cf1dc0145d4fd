"""manage.py with a Python that has no Django: one sentence, and not the exit code of pending migrations."""

import subprocess
import sys

from fly2any.settings import BASE_DIR


def test_a_python_without_django_is_told_so_and_the_command_ends_with_2():
    ended = subprocess.run([sys.executable, "-S", "manage.py", "dbstatus"], cwd=BASE_DIR, capture_output=True, text=True)

    said = ended.stderr.partition(":")[0]
    assert (ended.returncode, ended.stdout, said) in [
        (2, "", "Django is not installed here"),
        (2, "", "Django is not installed for this Python, but for the project's own"),
    ]
