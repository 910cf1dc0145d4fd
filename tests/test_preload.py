"""What gunicorn loads before it forks its processes: the first request of a process compiles nothing that a later one would not."""

import pytest

from tests.conftest import manage

FIRST = """
import gc
from fly2any.wsgi import application
from fly2any.preload import load_pages
load_pages()
from django.contrib.auth import get_user_model
from django.db import connection
from django.template import Template
from django.test import Client
from django.urls import reverse
compiled, compile_one = [], Template.compile_nodelist
Template.compile_nodelist = lambda template: compiled.append(template.name) or compile_one(template)
print(connection.connection, gc.get_freeze_count() > 100_000)
import runpy, threading, time
threading.excepthook = print
runpy.run_path("gunicorn.conf.py")["post_worker_init"](None)
while not (size := connection.pool.get_stats().get("pool_size")):
    time.sleep(0.01)
print(size)
staff = get_user_model().objects.create_superuser("first@example.com")
client = Client(HTTP_HOST="localhost")
client.force_login(staff, backend="fly2any.administration.backends.PasswordBackend")
for path in ("admin:index", "admin:accounts_user_changelist", "admin:travel_pricealert_add"):
    print(path, client.get(reverse(path), secure=True).status_code)
print(compiled)
"""


@pytest.mark.slow
def test_the_first_pages_of_a_process_compile_no_template(migrated):
    result = manage("shell", "-v0", "-c", FIRST, url=migrated.url, SECOND_FACTOR="false", DEBUG="true")

    assert result.stdout.splitlines() == [
        "None True",
        "1",
        "admin:index 200",
        "admin:accounts_user_changelist 200",
        "admin:travel_pricealert_add 200",
        "[]",
    ], result.stderr
