"""The configuration of gunicorn. PORT and GUNICORN_CMD_ARGS are gunicorn's own variables."""

import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from fly2any.environment import Env

env = Env()
try:
    if file := env.file(default=Path(__file__).parent / ".env"):
        env.read_file(file)
    workers = env.int("WEB_CONCURRENCY", default=2, least=1, most=1_000)
except ImproperlyConfigured as error:
    sys.exit(str(error))

wsgi_app = "fly2any.wsgi"
preload_app = True
worker_class = "fly2any.gunicorn_worker.Worker"  # gthread, changed so that no client occupies a thread.
threads = 8
worker_connections = 500  # Per process; below the usual limit of 1,024 open files.
timeout = 90  # Seconds: a page that writes may take 60.
graceful_timeout = 30
keepalive = 75  # Longer than a proxy keeps connections; otherwise it may send into one that is closing.
sendfile = False  # A thread writes to memory; the main loop sends.
control_socket_disable = True
# Otherwise a client behind a proxy on this machine moves the path below a SCRIPT_NAME of its own, past the proxy's rules for paths.
forwarder_headers = ""


def on_starting(server):
    from fly2any.preload import load_pages  # Not before wsgi_app: it needs Django's settings.

    load_pages()


def post_worker_init(worker):
    from threading import Thread

    from fly2any.preload import make_a_page

    Thread(target=make_a_page, daemon=True).start()  # Otherwise nothing would be served while a host does not answer.
