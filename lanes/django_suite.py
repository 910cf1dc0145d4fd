"""`make django-suite`: Django's own test suite on fly2any.postgres, and on Django's backend to compare."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import django
import psycopg

from .packages import DJANGO, UnavailableError, django_source
from .servers import EMBEDDED, VERSIONS, running

PROJECT = Path(__file__).resolve().parents[1]
ENGINES = {"ours": "lanes.engine", "stock": "django.db.backends.postgresql"}
# The packages that test a database backend most: schema editor, introspection, migrations, transactions, PostgreSQL.
PACKAGES = (
    "backends", "schema", "migrations", "introspection", "inspectdb", "transactions", "delete", "delete_regress", "indexes",
    "constraints", "postgres_tests",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the tests on one engine: how many ran, which failed, which were skipped and why, and the seconds."""

    engine: str
    ran: int
    failed: frozenset[str]
    skipped: Counter[str]
    seconds: float

    def __str__(self):
        skipped = sum(self.skipped.values())
        passed = self.ran - len(self.failed) - skipped
        return f"{self.engine}: {passed:,} passed, {len(self.failed)} failed, {skipped} skipped in {self.seconds:.0f} s"


def run(engine: str, major: int, packages: tuple[str, ...], *, parallel: int = 1) -> Result:
    """Run the packages, all without any, on a new server of the version; raise UnavailableError if the suite cannot run."""
    version = django.get_version()
    if version not in DJANGO:
        raise UnavailableError(f"No source package of Django {version} is pinned in lanes/packages.py")
    with tempfile.TemporaryDirectory(prefix="django-suite-") as name, running(major) as host:
        source, written = django_source(version, Path(name)), Path(name, "result.json")
        with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
            for alias in ("default", "other"):
                connection.execute(f"CREATE DATABASE suite_{alias}")
        started = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                "runtests.py",
                "--settings=lanes.suite_settings",
                f"--parallel={parallel}",
                "--noinput",
                *packages,
            ],
            cwd=source / "tests",
            env={
                **{variable: value for variable, value in os.environ.items() if variable != "DJANGO_SETTINGS_MODULE"},
                "PYTHONPATH": str(PROJECT),
                "SUITE_ENGINE": ENGINES[engine],
                "SUITE_HOST": host,
                "SUITE_RESULT": str(written),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not written.exists():
            raise UnavailableError(f"Django's suite ended with {done.returncode} before its tests did:\n{done.stdout[-3000:]}")
        found = json.loads(written.read_text(encoding="utf-8"))
    if found["failed"]:
        print(done.stdout)
    reasons = Counter(reason for _, reason in found["skipped"])
    return Result(engine, found["ran"], frozenset(found["failed"]), reasons, time.monotonic() - started)


def report(result: Result, stock: Result | None) -> frozenset[str]:
    """Print the figures and each reason for a skip; return which tests fail on this engine but not on Django's."""
    print(result)
    for reason, number in sorted(result.skipped.items()):
        print(f"  {number:5,} skipped: {reason}")
    failed = result.failed - (stock.failed if stock else frozenset())
    for test in sorted(failed):
        print(f"  failed: {test}")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="make django-suite", description=__doc__)
    parser.add_argument("packages", nargs="*", help="packages of tests; by default those that test a backend")
    parser.add_argument("--all", action="store_true", help="run all packages")
    parser.add_argument(
        "--stock", action="store_true", help="run on Django's own backend too; what fails there is no failure here"
    )
    with_icu = [
        major for major in VERSIONS if major != EMBEDDED
    ]  # The embedded one is built without it, and Django's models use it.
    parser.add_argument("--server", type=int, choices=with_icu, default=15, help="PostgreSQL's major version")
    parser.add_argument("--parallel", type=int, default=1, help="processes")
    options = parser.parse_args()
    packages = () if options.all else tuple(options.packages) or PACKAGES
    print(f"Django {django.get_version()} on PostgreSQL {options.server}: {' '.join(packages) or 'all packages'}", flush=True)
    try:
        stock = run("stock", options.server, packages, parallel=options.parallel) if options.stock else None
        ours = run("ours", options.server, packages, parallel=options.parallel)
    except UnavailableError as reason:
        sys.exit(f"{reason}.")
    if stock:
        report(stock, stock)
    if failed := report(ours, stock):
        sys.exit(f"{len(failed)} tests fail on fly2any.postgres{' and not on Django’s backend' if stock else ''}.")


if __name__ == "__main__":
    main()
