"""`make bench`: each benchmark prints ours, the peer's or the limit's, and the ratio, measured in one run.

`--quick` runs each at a small size on a temporary server: its figures only show that the benchmark works.
"""

import importlib
import os
import sys

import django

BENCHMARKS = (
    "startup",
    "migrate",
    "status",
    "deletion",
    "seed",
    "adoption",
    "admin",
    "load",
    "backup",
    "retention",
    "partition",
)
BY_HAND = ("distributed",)  # Only if named: it needs a cluster.


def main():
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    if "--quick" in sys.argv:
        os.environ["BENCHMARKS_QUICK"] = "1"  # Also for the processes that a benchmark starts.
    chosen = [word for word in sys.argv[1:] if word != "--quick"] or BENCHMARKS
    if unknown := set(chosen) - {*BENCHMARKS, *BY_HAND}:
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}: there are {', '.join((*BENCHMARKS, *BY_HAND))}.")
    django.setup()
    for name in chosen:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"{name}: {module.__doc__.strip()}", flush=True)
        module.run()
        print(flush=True)


if __name__ == "__main__":
    main()
