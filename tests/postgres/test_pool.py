"""The connection pool of processes that serve pages, each tested in a separate process."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import PROJECT

SERVE = """
    import threading
    from fly2any.wsgi import application
    from django.db import connection, connections

    def page(number):
        barrier.wait()
        for _ in range(5):
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fly2any' AND datname = current_database()")
                seen.append(cursor.fetchone()[0])
            connection.close()

    seen, barrier = [], threading.Barrier(20)
    threads = [threading.Thread(target=page, args=[number]) for number in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(len(seen), max(seen) <= 3, connection.settings_dict["OPTIONS"].get("pool"))
    connection.close_pool()
"""
ASK = "from django.conf import settings; print(settings.DATABASES['default']['POOL'])"


def run(program, **environment):
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("POSTGRES_URL", "DATABASE_URL", "DJANGO_SETTINGS_MODULE")
    }
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=PROJECT, env={**clean, "SECRET_KEY": "x", "ALLOWED_HOSTS": "x", "DJANGO_SETTINGS_MODULE": "fly2any.settings", **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


@pytest.mark.slow
def test_twenty_requests_at_once_share_three_connections(database):
    assert (
        run(SERVE, POSTGRES_URL=database.url, DATABASE_POOL_MAX="3")
        == "100 True {'min_size': 0, 'timeout': 5, 'reconnect_timeout': 5, 'max_size': 3}\n"
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("environment", "most"),
    [
        ({}, 5),
        ({"POSTGRES_URL": "postgresql://u@h/d"}, 10),
        ({"POSTGRES_URL": "postgresql://u@h/d?connection_limit=3"}, 3),
        ({"POSTGRES_URL": "postgresql://u@h/d?connection_limit=3", "DATABASE_POOL_MAX": "7"}, 7),
        ({"POSTGRES_URL": "postgresql://u@h/d", "VERCEL": "1"}, None),
        ({"POSTGRES_URL": "postgresql://u@h/d", "AWS_LAMBDA_FUNCTION_NAME": "f"}, None),
        ({"POSTGRES_URL": "postgresql://u@h/d", "VERCEL": "1", "DATABASE_POOL_MAX": "2"}, 2),
        ({"POSTGRES_URL": "postgresql://u@h/d", "DATABASE_POOL_MAX": "0"}, None),
    ],
)
def test_a_pool_has_its_configured_size(environment, most):
    options = None if most is None else {"min_size": 0, "timeout": 5, "reconnect_timeout": 5, "max_size": most}

    assert run(ASK, **environment) == f"{options}\n"


def test_a_pool_size_that_is_not_a_number_is_reported_in_one_sentence():
    result = subprocess.run(
        [sys.executable, "manage.py", "dbstatus"], cwd=PROJECT, env={**os.environ, "DJANGO_SETTINGS_MODULE": "fly2any.settings", "DATABASE_POOL_MAX": "many"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert (result.returncode, result.stderr) == (
        2,
        "DATABASE_POOL_MAX is not a number from 0 (no pool) to 10000: correct it.\n",
    )
