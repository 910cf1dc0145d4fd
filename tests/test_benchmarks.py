"""Every benchmark runs at its smallest size and prints its figures, so that breakage is noticed."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.__main__ import BENCHMARKS, BY_HAND
from tests.commands import PROJECT

FIGURES = dict.fromkeys(BENCHMARKS, r" ×") | {"load": r"errors 0 .* × the limit"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [BENCHMARKS[: len(BENCHMARKS) // 2], BENCHMARKS[len(BENCHMARKS) // 2 :]], ids=["first", "others"]
)
def test_each_benchmark_prints_its_figures(names):
    if "load" in names and find_spec("locust") is None:  # Importing it would replace this process's sockets.
        pytest.skip("locust is not installed: make check installs it")

    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *names], cwd=PROJECT, capture_output=True, text=True, timeout=600
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    printed = re.split(r"^(\w+): ", ran.stdout, flags=re.MULTILINE)
    assert printed[1::2] == [*names]
    for name, figures in zip(names, printed[2::2], strict=True):
        assert re.search(FIGURES[name], figures), figures


def test_a_missing_benchmark_is_named():
    ran = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], cwd=PROJECT, capture_output=True, text=True)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"There is no benchmark speed: there are {', '.join((*BENCHMARKS, *BY_HAND))}.\n"
