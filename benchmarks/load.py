"""twenty staff, then sixty: locust, gunicorn as gunicorn.conf.py configures it, and the pool, on the rows of `admin`"""

import contextlib
import csv
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from benchmarks.admin import fill
from benchmarks.measure import show, sized

SECONDS = sized(120, 8)
FIRST = 40  # Responses in turn; a process that gets none of them is not measured.
LIST = "/admin/engagement/notification/"
# Staff, and milliseconds for 95 of 100 pages; waiting for a thread and for the network is in what locust measures.
LIMITS = sized({20: 150, 60: 400}, {4: 150})


def run():
    fill()
    addresses = get_user_model().objects.exclude(email=None).order_by("email").values_list("email", flat=True)[:200_000:1000]
    environment = {
        **os.environ,
        "TRUST_PROXY": "true",
        "SESSIONS": ",".join(f"{settings.SESSION_COOKIE_NAME}={session()}" for _ in range(max(LIMITS))),
        "ADDRESSES": ",".join(addresses),
    }
    connection.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = f"localhost:{port}"
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", place, "--log-level", "warning"]
    server = subprocess.Popen(gunicorn, env=environment)
    try:
        wait_for(port)
        begin(server, port, environment["SESSIONS"].split(",")[0])
        for staff, limit in LIMITS.items():
            work(staff, limit, place, environment)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def work(staff, limit, place, environment):
    with tempfile.TemporaryDirectory() as folder:
        locust = [sys.executable, "-m", "locust", "-f", "benchmarks/locust_user.py", "--host", f"http://{place}", "--headless"]
        numbers = ["--users", str(staff), "--spawn-rate", "4", "--run-time", f"{SECONDS}s", "--csv", f"{folder}/run"]
        ended = subprocess.run([*locust, *numbers, "--loglevel", "WARNING"], env=environment, capture_output=True, text=True)
        if not (figures := Path(folder, "run_stats.csv")).exists():
            sys.exit(f"locust measured nothing: {ended.stderr.strip()}")
        print(f"  {staff} staff, {SECONDS} s")
        report(figures, limit)
        for error in list(csv.DictReader(Path(folder, "run_failures.csv").read_text(encoding="utf-8").splitlines()))[:5]:
            print(f"  {error['Occurrences']} × {error['Error']}")


def begin(server, port, cookie):
    """Print the time of the first response of a process of gunicorn beside its later ones, each over a connection of its own."""
    time.sleep(2)  # The system accepts connections before the processes have started.
    first, later = {}, []
    for _ in range(FIRST):
        connection = http.client.HTTPConnection("localhost", port, timeout=30)
        begun = time.perf_counter()
        connection.request("GET", LIST, headers={"Cookie": cookie, "X-Forwarded-Proto": "https"})
        response = connection.getresponse()
        response.read()
        taken = time.perf_counter() - begun
        if response.status != 200:
            sys.exit(f"{response.status} at {LIST}")
        process = process_of(server, connection.sock.getsockname())
        later += [taken] if process in first else []
        first.setdefault(process, taken)
        connection.close()
    show(
        f"first response of {len(first)} processes, the slower",
        max(first.values()),
        statistics.median(later),
        "a later one",
        "aim: ≤ 1.5",
    )


def process_of(server, client):
    """Return the process of gunicorn that keeps the connection of `client`, an address and port."""
    for process in psutil.Process(server.pid).children():
        if any(one.raddr and one.raddr[1] == client[1] for one in process.net_connections("tcp")):
            return process.pid
    sys.exit("No process of gunicorn kept the connection.")


def wait_for(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        time.sleep(0.1)
    sys.exit("gunicorn does not listen.")


def session():
    people = get_user_model().objects
    staff = people.filter(email="bench@demo.fly2any.example").first() or people.create_superuser("bench@demo.fly2any.example")
    client = Client()
    client.force_login(staff)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def report(path, limit):
    for row in csv.DictReader(path.read_text().splitlines()):
        print(
            f"  {row['Name']:<22}{int(row['Request Count']):>7,} pages {float(row['Requests/s']):>6.1f}/s"
            f"   p50 {row['50%']:>5} ms   p95 {row['95%']:>5} ms   p99 {row['99%']:>5} ms   longest {float(row['Max Response Time']):>6.0f} ms"
            f"   errors {row['Failure Count']}"
            + (f"   {float(row['95%']) / limit:.2f} × the limit" if row["Name"] == "Aggregated" else ""),
            flush=True,
        )
