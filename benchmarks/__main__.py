"""`make bench`: each benchmark prints ours, the peer's or the limit's, and the ratio, measured in one run."""

import importlib
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

import django

BENCHMARKS = ("startup", "migrate", "status", "deletion", "seed", "adoption", "admin", "load", "backup", "partition")


def main():
    chosen = sys.argv[1:] or BENCHMARKS
    if unknown := set(chosen) - set(BENCHMARKS):
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}: there are {', '.join(BENCHMARKS)}.")
    django.setup()
    for name in chosen:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"{name}: {module.__doc__.strip()}", flush=True)
        module.run()
        print(flush=True)


main()
