"""The Makefile's own refusals."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NO_SERVER, PROJECT

NO_KEY = "SECRET_KEY is not set, and with POSTGRES_URL this is production: set it, for example to the output of `openssl rand -base64 48`.\n"
NOT_DEVELOPMENT = (
    "make admin adds demo data and serves for development, and a URL is set without DEBUG=true: nothing was done.\n"
)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(
    ("settings", "said"),
    [({}, NO_KEY), ({"SECRET_KEY": "only for tests, and of some length", "ALLOWED_HOSTS": "localhost"}, NOT_DEVELOPMENT)],
)
def test_make_admin_refuses_a_server_in_production_in_one_sentence(settings, said):
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": "", "POSTGRES_URL": NO_SERVER, **settings}
    result = subprocess.run(
        ["make", "--old-file=.venv/ready", f"BIN={Path(sys.executable).parent}", "admin"],
        cwd=PROJECT, env=environment, capture_output=True, text=True,
    )  # fmt: skip

    assert (result.returncode, result.stdout, result.stderr.partition("make: ***")[0]) == (2, "", said)
