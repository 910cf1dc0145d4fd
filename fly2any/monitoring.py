"""What other machines ask this process: whether it lives, whether it can serve, and its metrics."""

from __future__ import annotations

import functools
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import Error, OperationalError, connection, connections
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from fly2any.administration.dashboard import read_backups
from fly2any.database.backup.inventory import Newest
from fly2any.database.errors import Refusal, explain, sqlstate
from fly2any.database.findings import Finding
from fly2any.database.health.examine import Health, examine
from fly2any.database.health.topics import TOPICS
from fly2any.database.migration.state import read_migrations
from fly2any.database.report.waivers import Waiver, read_waivers
from fly2any.database.server import read_home
from fly2any.database.sql import time_limits
from fly2any.database.verification import Report, verify, waived
from fly2any.postgres.patience import at_most

READY = 2_000  # Milliseconds for each statement.
PATIENCE = 4  # Seconds for all of them, and the connection.


def monitored(get_response):
    """Answer /health/live, /health/ready and /metrics before anything looks at the host, the scheme or a session.

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
    """The process answers; whether the database does is not asked: a restart would not fix it."""
    return _json({"status": "ok"})


def ready(request: HttpRequest) -> HttpResponse:
    """The database answers, and every migration of this code is applied."""
    try:
        _loader()  # Before the clock runs: it reads many files, once.
        checks = READINESS.answer()
    except Error as error:
        logging.getLogger("fly2any.health").warning("not ready: %s", explain(error))
        checks = {"database": "ok" if sqlstate(error) == "42501" else "failing", "migrations": "unknown"}
    fine = set(checks.values()) == {"ok"}
    return _json({"status": "ok" if fine else "failing", **checks}, status=200 if fine else 503)


class Question:
    """A question to the database that is asked at most once at a time, in a thread of its own.

    Through a pooler it may wait for minutes, where no limit of the server reaches it: who asks does not wait with it.
    """

    def __init__(self, ask: Callable[[], Any]):
        self.ask, self.lock = ask, threading.Lock()
        self.asked: Future[Any] | None = None
        self.ends = 0.0

    def answer(self) -> Any:
        """Return what the question yields; raise the error that it raised, or OperationalError where it took PATIENCE."""
        with self.lock:
            if self.asked is None or self.asked.done():
                self.asked, self.ends = Future(), time.monotonic() + PATIENCE
                threading.Thread(target=self._run, args=(self.asked,), daemon=True).start()
            asked, left = self.asked, self.ends - time.monotonic()
        try:
            return asked.result(max(left, 0))
        except TimeoutError:
            raise OperationalError("timeout expired") from None

    def _run(self, asked: Future[Any]) -> None:
        try:
            try:
                with at_most(2 * PATIENCE):  # Then it is asked anew.
                    result = self.ask()
            finally:
                connections.close_all()  # Of this thread: django.contrib.postgres asks for types by the alias, on another one.
        except BaseException as error:  # For those who wait.
            asked.set_exception(error)
        else:
            asked.set_result(result)


def read_readiness() -> dict[str, str]:
    checks = {"database": "ok", "migrations": "ok"}
    with own_connection() as probe, probe.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_is_in_recovery()")
        if cursor.fetchone()[0]:
            checks["database"] = "only reads"
        schema, recorded = read_home(probe)
        if read_migrations(probe, schema=schema or "public", recorded=recorded, readable=True, loader=_loader()).pending:
            checks["migrations"] = "pending"
    return checks


@contextmanager
def own_connection() -> Iterator[Any]:
    """Yield a connection beside the pool, which would be waited for, that says within 2 s whether the server answers.

    It is in a read-only transaction.
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
    """What `dbstatus` and `dbhealth` report, as Prometheus reads it."""
    if not settings.METRICS_TOKEN:
        return HttpResponse("METRICS_TOKEN is not set: there are no metrics.\n", status=404, content_type="text/plain")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode()):
        return HttpResponse(
            "Give the METRICS_TOKEN as Authorization: Bearer ….\n",
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
            READINESS.answer()  # Else the pool is waited for, longer than Prometheus waits for this.
            report, health, backups = everything(connection)
        except Error as error:
            logging.getLogger("fly2any.metrics").warning("not reported: %s", explain(error))
            yield _gauge("up", "Whether the database could be asked.", [((), 0)])
            return
        yield _gauge("up", "Whether the database could be asked.", [((), 1)])
        yield from of_status(report)
        yield from of_health(health)
        yield from of_backups(backups)
        yield from _findings({"status": report.findings, "health": health.findings})
        yield _gauge("report_seconds", "How long it took to ask.", [((), time.monotonic() - begun)])


def of_status(report: Report) -> Iterator[GaugeMetricFamily]:
    yield _gauge("migrations_pending", "Migrations of this code that are not applied.", [((), len(report.migrations.pending))])
    objects = [
        ((group.name, kind, state), getattr(getattr(group, kind), state))
        for group in report.groups
        for kind in ("tables", "columns", "indexes", "foreign_keys")
        for state in ("found", "expected")
    ]
    yield _gauge("schema_objects", "Objects of the contract, found as defined and expected.", objects, "group", "kind", "state")


def of_health(health: Health) -> Iterator[GaugeMetricFamily]:
    asked = [((topic.name,), 0 if topic.trouble else 1) for topic in health.topics]
    yield _gauge("topic_asked", "Whether a topic of dbhealth could be asked.", asked, "topic")
    families: dict[str, dict[tuple[str, ...], float]] = {}
    for figure in (figure for topic in health.topics for figure in topic.figures):
        if figure.metric and figure.value is not None:
            samples, of = families.setdefault(figure.metric, {}), (figure.of,) if figure.of else ()
            samples[of] = max(figure.value, samples.get(of, figure.value))  # Of two of one name the worse.
    for name, samples in families.items():
        labels = ("name",) if next(iter(samples)) else ()
        yield _gauge(name, f"{name.replace('_', ' ')}, as dbhealth reports it.", samples.items(), *labels)


def of_backups(backups: Newest) -> Iterator[GaugeMetricFamily]:
    if backups.good:
        age = backups.good.age(backups.now()).total_seconds()
        yield _gauge("backup_age_seconds", "Since when the newest good backup was taken.", [((), age)])


def everything(connection) -> tuple[Report, Health, Newest]:
    """Return what dbstatus, dbhealth and the backups say, less what is waived."""
    waivers = known_waivers()
    report = verify(connection)
    backups = read_backups()
    report = waived(replace(report, backups=backups, findings=(*report.findings, *backups.findings())), waivers)
    return report, examine(connection, TOPICS, waivers), backups


def known_waivers() -> tuple[Waiver, ...]:
    """Return the waivers; of a file that cannot be read none, which the log says."""
    try:
        return read_waivers(settings.WAIVERS)
    except Refusal as refusal:
        logging.getLogger("fly2any.waivers").warning("nothing is waived: %s", refusal)
        return ()


def _findings(reports: dict[str, tuple[Finding, ...]]) -> Iterator[GaugeMetricFamily]:
    counts: dict[tuple[str, str, str], int] = {}
    for name, findings in reports.items():
        for finding in findings:
            key = (name, str(finding.severity), finding.code)
            counts[key] = counts.get(key, 0) + 1
    yield _gauge("findings", "Findings, by report, severity and code.", counts.items(), "report", "severity", "code")


def _gauge(name: str, text: str, samples: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"fly2any_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, float(number))
    return family


READINESS = Question(read_readiness)
PAGES = {"/health/live": live, "/health/ready": ready, "/metrics": metrics}
