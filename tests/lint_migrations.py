"""`python -m tests.lint_migrations`: squawk's objections to the SQL of our migrations."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

# Rules that are covered in another way, or that would contradict Phase 7.
NOT_ASKED = {
    "require-lock-timeout": "our migrate sets it on every statement",
    "require-statement-timeout": "a build may take its time; a lock may not",
    "prefer-robust-stmts": "our migrate repairs what an interrupted run leaves",
    "prefer-bigint-over-int": "the guide's types, and Django's own keys",
}


# Statements that squawk allows but that rewrite, empty or lock a table for their whole duration.
REFUSED = re.compile(
    r"(CLUSTER|LOCK|TRUNCATE|REFRESH\s+MATERIALIZED|CREATE\s+(OR\s+REPLACE\s+)?(CONSTRAINT\s+)?TRIGGER)\b"
    r"|ALTER\b.*\bSET\s+TABLESPACE\b|(UPDATE|DELETE)\b(?!.*\bWHERE\b)",
    re.I | re.S,
)
NOT_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.S)


def refused(sql):
    """Return the statements of `sql` that stop the site."""
    for statement in NOT_CODE.sub("''", sql).split(";"):
        bare = " ".join(statement.replace("''", " ").split())
        while (inner := re.sub(r"\([^()]*\)", " ", bare)) != bare:  # A WHERE inside parentheses belongs to a subquery.
            bare = inner
        if REFUSED.match(bare) or re.match(r"\s*VACUUM\b.*\bFULL\b", statement, re.I | re.S):
            yield " ".join(statement.split())


def squawk():
    """Return the path of squawk, None where it is not installed."""
    return shutil.which("squawk", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def lint(sql):
    """Return squawk's output for `sql`, "" if there is none."""
    command = [squawk(), "--reporter", "gcc", "--pg-version", "14.0", *(f"--exclude={rule}" for rule in NOT_ASKED)]
    result = subprocess.run(command, input=sql, capture_output=True, text=True)
    return "".join(f"stops the site for as long as it takes: {statement}\n" for statement in refused(sql)) + (
        "" if result.returncode == 0 else result.stdout + result.stderr
    )


def statements(app, name):
    from django.core.management import call_command

    out = io.StringIO()
    call_command("sqlmigrate", app, name, stdout=out, no_color=True)
    return out.getvalue()


def main():
    import django

    django.setup()
    from fly2any.database.migration.ledger import known_migrations
    from fly2any.database.schema.contract import PHASE7_APPS

    ours = [name.split(".", 1) for name in known_migrations() if name.partition(".")[0] in (*PHASE7_APPS, "administration")]
    said = {f"{app}.{name}": lint(statements(app, name)) for app, name in ours}
    for name, text in said.items():
        if text:
            sys.stderr.write(f"{name}\n{text}\n")
    sys.exit(4 if any(said.values()) else 0)


if __name__ == "__main__":
    main()
