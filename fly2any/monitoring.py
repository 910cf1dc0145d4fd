"""Endpoints for other machines: liveness, readiness and metrics.

A topic of dbhealth names the metric of a figure itself (`Figure`, database/health/examine.py);
administration/dashboard.py keeps the newest backups for five minutes.
"""

from __future__ import annotations

import functools
import hmac
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import Error, OperationalError, connection, connections
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from fly2any.administration.dashboard import read_backups
from fly2any.database.backup.inventory import BackupState
from fly2any.database.errors import explain, sqlstate
from fly2any.database.findings import Finding
from fly2any.database.health.examine import Topic
from fly2any.database.health.topics import TOPICS
from fly2any.database.migration.ledger import read_migrations
from fly2any.database.report.collect import Report, compare_and_collect
from fly2any.database.report.waivers import known_waivers
from fly2any.database.server import read_home
from fly2any.database.sql import time_limits
from fly2any.database.verification import Verification
from fly2any.postgres.response_timeout import at_most

READY = 2_000  # Milliseconds for each statement.
ANSWER_PATIENCE = 4  # Seconds for all statements and the connection.


def monitored(get_response):
    """Answer /health/live, /health/ready and /metrics before the host, the scheme or a session is checked.

    A platform asks by the machine's address and without TLS, and its answer must not be a redirect or a 400.
    """

    def respond(request):
        page = PAGES.get(request.path_info)
        if page is None:
            return get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
        response = page(request)
        response.headers["Cache-Control"] = "no-store"
        return response

    return respond


def live(request: HttpRequest) -> HttpResponse:
    """Answer that the process responds; the database is not queried, because a restart would not fix it."""
    return _json({"status": "ok"})


def ready(request: HttpRequest) -> HttpResponse:
    """Answer whether the database responds and every migration of this code is applied."""
    try:
        _loader()  # Before the time limit begins, because this reads many files, once.
        checks = READINESS.answer()
    except Error as error:
        logging.getLogger("fly2any.health").warning("not ready: %s", explain(error))
        # 42501: the database answered that this role may not read the migration ledger.
        checks = {"database": "ok" if sqlstate(error) == "42501" else "failing", "migrations": "unknown"}
    fine = set(checks.values()) == {"ok"}
    return _json({"status": "ok" if fine else "failing", **checks}, status=200 if fine else 503)


class SharedQuery:
    """A query of the database that runs at most once at a time, in a thread of its own; callers at the same time share its result.

    Through a pooler the query may wait for minutes, out of reach of the server's limits: the callers do not wait that long.
    """

    def __init__(self, ask: Callable[[], Any]):
        self.ask, self.lock = ask, threading.Lock()
        self.asked: Future[Any] | None = None
        self.ends = 0.0

    def answer(self) -> Any:
        """Return the result; raise the query's error, or OperationalError if it takes longer than ANSWER_PATIENCE."""
        with self.lock:
            if self.asked is None or self.asked.done():
                self.asked, self.ends = Future(), time.monotonic() + ANSWER_PATIENCE
                threading.Thread(target=self._run, args=(self.asked,), daemon=True).start()
            asked, left = self.asked, self.ends - time.monotonic()
        try:
            return asked.result(max(left, 0))
        except TimeoutError:
            raise OperationalError("timeout expired") from None

    def _run(self, asked: Future[Any]) -> None:
        try:
            try:
                with at_most(2 * ANSWER_PATIENCE):  # The next caller asks again.
                    result = self.ask()
            finally:
                # For a new connection, django.contrib.postgres queries types by its alias, which opens this thread's own connection too.
                connections.close_all()
        except BaseException as error:  # For the waiting callers.
            asked.set_exception(error)
        else:
            asked.set_result(result)


def read_readiness() -> dict[str, str]:
    checks = {"database": "ok", "migrations": "ok"}
    with own_connection() as probe, probe.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_is_in_recovery()")
        if cursor.fetchone()[0]:
            checks["database"] = "read-only"
        schema, recorded = read_home(probe)
        state = read_migrations(probe, schema=schema or "public", recorded=recorded, readable=True, loader=_loader())
        if state.pending or not state.readable:
            checks["migrations"] = "pending" if state.pending else "unknown"
    return checks


@contextmanager
def own_connection() -> Iterator[Any]:
    """Yield a new connection, in a read-only transaction; raise OperationalError if the server does not accept it within 2 s.

    It is not one of the pool: all of those may be in use, and waiting for one says nothing about the server.
    """
    probe = connection.copy()
    options = {name: value for name, value in probe.settings_dict["OPTIONS"].items() if name != "pool"}
    probe.settings_dict = {**probe.settings_dict, "OPTIONS": {**options, "connect_timeout": 2}}
    try:
        with time_limits(probe, lock=READY, statement=READY, read_only=True):
            yield probe
    finally:
        probe.close()


@functools.cache
def _loader() -> MigrationLoader:
    """Return the migrations of this code, which a process reads once."""
    return MigrationLoader(None)


def _json(data: dict[str, str], status: int = 200) -> HttpResponse:
    return HttpResponse(json.dumps(data), status=status, content_type="application/json")


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with the figures of `dbstatus` and `dbhealth`, in Prometheus's format."""
    if not settings.METRICS_TOKEN:
        return HttpResponse("METRICS_TOKEN is not set: there are no metrics.\n", status=404, content_type="text/plain")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode()):
        return HttpResponse(
            "Send the METRICS_TOKEN as Authorization: Bearer ….\n",
            status=401,
            content_type="text/plain",
            headers={"WWW-Authenticate": "Bearer"},
        )
    registry = CollectorRegistry()
    registry.register(Reports())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports as metrics: one collector, asked once a scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        begun = time.monotonic()
        try:
            READINESS.answer()  # Otherwise it would wait for the pool, longer than Prometheus waits.
            report = read_report(connection)
        except Error as error:
            logging.getLogger("fly2any.metrics").warning("not reported: %s", explain(error))
            yield _gauge("up", "Whether the database could be queried.", [((), 0)])
            return
        yield _gauge("up", "Whether the database could be queried.", [((), 1)])
        if report.verification:
            yield from of_verification(report.verification)
        yield from of_health(report.health)
        if report.backups:
            yield from of_backups(report.backups)
        yield _findings(report.findings)
        yield _gauge("report_seconds", "How long the queries took.", [((), time.monotonic() - begun)])


def of_verification(verified: Verification) -> Iterator[GaugeMetricFamily]:
    pending = len(verified.migrations.pending)
    yield _gauge("migrations_pending", "Migrations of this code that are not applied.", [((), pending)])
    objects = [
        ((group.name, kind, state), getattr(getattr(group, kind), state))
        for group in verified.groups
        for kind in ("tables", "columns", "indexes", "foreign_keys")
        for state in ("found", "expected")
    ]
    yield _gauge(
        "schema_objects",
        "Objects of the contract: how many are expected, and how many were found as defined.",
        objects,
        "group",
        "kind",
        "state",
    )


def of_health(topics: tuple[Topic, ...]) -> Iterator[GaugeMetricFamily]:
    asked = [((topic.name,), 0 if topic.trouble else 1) for topic in topics]
    yield _gauge("topic_asked", "Whether a topic of dbhealth could be queried.", asked, "topic")
    families: dict[str, dict[tuple[str, ...], float]] = {}
    for figure in (figure for topic in topics for figure in topic.figures):
        if figure.metric and figure.value is not None:
            samples, of = families.setdefault(figure.metric, {}), (figure.of,) if figure.of else ()
            samples[of] = max(figure.value, samples.get(of, figure.value))  # Of two with the same name, the worse.
    for name, samples in families.items():
        labels = ("name",) if next(iter(samples)) else ()
        yield _gauge(name, f"{name.replace('_', ' ')}, as dbhealth reports it.", samples.items(), *labels)


def of_backups(backups: BackupState) -> Iterator[GaugeMetricFamily]:
    if backups.good:
        age = backups.good.age(backups.now()).total_seconds()
        yield _gauge("backup_age_seconds", "Seconds since the newest verified backup was taken.", [((), age)])


def read_report(connection) -> Report:
    """Return what dbstatus and dbhealth say, backups as they are known to the pages of the admin."""
    return compare_and_collect(connection, backups=read_backups(), health=TOPICS, waivers=known_waivers())


def _findings(findings: Iterable[Finding]) -> GaugeMetricFamily:
    counts = Counter((str(finding.severity), finding.code) for finding in findings)
    return _gauge("findings", "Findings, by severity and code.", counts.items(), "severity", "code")


def _gauge(name: str, text: str, samples: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"fly2any_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, float(number))
    return family


READINESS = SharedQuery(read_readiness)
PAGES = {"/health/live": live, "/health/ready": ready, "/metrics": metrics}
