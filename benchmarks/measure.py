"""Measurements: sizes, and medians of interleaved rounds, so that noise affects both sides alike."""

import os
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TypeVar

import psutil
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from fly2any.database.scratch import scratch_database

T = TypeVar("T")


def sized(full: T, quick: T) -> T:
    """Return the size to measure: `quick` only shows that the benchmark works."""
    return quick if os.environ.get("BENCHMARKS_QUICK") else full


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def child_seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time and the processor time of the processes that `action` runs and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = seconds(action)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processor_seconds(connection, action: Callable[[], object]) -> float:
    """Return the processor time of this process and of the server's process of `connection`, on this machine, during `action`."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = psutil.Process(cursor.fetchone()[0])

    def taken() -> float:
        return time.process_time() + sum(backend.cpu_times()[:2])

    before = taken()
    action()
    return taken() - before


def rounds(number: int, **sides: Callable[[], float]) -> dict[str, float]:
    """Return the median of `number` measurements of each side, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(number):
        for name, measure in sides.items():
            taken[name].append(measure())
    return {name: statistics.median(values) for name, values in taken.items()}


def show(what: str, ours: float, peer: float, of: str, aim: str = "") -> None:
    print(
        f"  {what:<46}{ours * 1000:>12,.1f} ms{peer * 1000:>14,.1f} ms {of:<28}{ours / peer:>8.3g} ×  {aim}".rstrip(),
        flush=True,
    )


@contextmanager
def migrated_database():
    """Yield a connection to a scratch database with every migration applied."""
    with scratch_database(connection) as scratch:
        executor = MigrationExecutor(scratch)
        executor.migrate(executor.loader.graph.leaf_nodes())
        yield scratch
