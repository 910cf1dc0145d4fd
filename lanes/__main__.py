"""`make lanes`: the tests on the other versions of Python, Django and PostgreSQL that this machine has."""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .packages import CACHE, UnavailableError, environment
from .servers import EMBEDDED, running
from .versions import LANES, WHOLE, Lane

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a lane: `ok`, `failed` or `not run`, and the last line of the tests or the reason."""

    lane: Lane
    result: str
    said: str
    seconds: float

    def __str__(self):
        lane = self.lane
        versions = f"{lane.python:<8}{lane.django:<8}{lane.postgresql:<12}{'whole' if lane.tests == WHOLE else 'server':<8}"
        return f"{lane.name:<18}{versions}{self.result:<9}{self.seconds:>6.0f} s  {self.said}"


@contextmanager
def _server(major: int) -> Iterator[str]:
    """Yield TEST_POSTGRES_URL: that of a new server, or "" for the tests' own embedded one."""
    if major == EMBEDDED:
        yield ""
    else:
        with running(major) as host:
            yield f"postgresql://postgres@/fly2any?host={host}"


def run(lane: Lane, options: list[str]) -> Outcome:
    started = time.monotonic()
    try:
        python = environment(lane.python, lane.django)
        with _server(lane.postgresql) as url:
            done = subprocess.run(
                [python, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", *lane.tests, *options],
                cwd=PROJECT,
                env={**os.environ, "TEST_POSTGRES_URL": url},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
    except UnavailableError as reason:
        return Outcome(lane, "not run", str(reason), 0)
    report = CACHE / f"{lane.name}.txt"
    report.write_text(done.stdout)
    lines = [line for line in done.stdout.splitlines() if re.search(r"\b(passed|failed|errors?)\b.* in ", line)]
    said = lines[-1].strip("= ") if lines else "the tests did not end"
    if done.returncode:
        return Outcome(lane, "failed", f"{said} ({report})", time.monotonic() - started)
    return Outcome(lane, "ok", said, time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make lanes", description=__doc__)
    parser.add_argument("lanes", nargs="*", help=f"lanes to run, by default all: {', '.join(lane.name for lane in LANES)}")
    parser.add_argument("--pytest", default="", help="options for pytest")
    options = parser.parse_args()
    if unknown := set(options.lanes) - {lane.name for lane in LANES}:
        parser.error(f"There is no lane {', '.join(sorted(unknown))}.")
    outcomes = []
    for lane in LANES:
        if not options.lanes or lane.name in options.lanes:
            print(f"{lane.name} …", file=sys.stderr, flush=True)
            outcomes.append(run(lane, options.pytest.split()))
    print(f"{'lane':<18}{'Python':<8}{'Django':<8}{'PostgreSQL':<12}{'tests':<8}{'result':<9}{'time':>8}")
    for outcome in outcomes:
        print(outcome)
    # In CI, everything that a lane needs is installed.
    bad = {"failed", "not run"} if os.environ.get("CI") else {"failed"}
    sys.exit(any(outcome.result in bad for outcome in outcomes) or not any(outcome.result == "ok" for outcome in outcomes))


main()
