"""A server of each supported version of PostgreSQL, started in a temporary folder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fly2any.postgres.embedded import bin_folder
from fly2any.postgres.supervisor import Server

from .packages import POSTGRESQL, UnavailableError, postgresql, unpacked

DEBIAN = Path("/usr/lib/postgresql")
EMBEDDED = 18
VERSIONS = (14, 15, 16, 17, 18)
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum_naptime": "1d"}


class Older(Server):
    """A server of a version without the builtin locale provider, or of Debian's."""

    LOCALE = ("--locale=C.UTF-8",)


def programs(major: int) -> Path:
    """Return the folder of a version's server programs; raise UnavailableError if there is none."""
    if major == EMBEDDED:
        return bin_folder()
    debians = DEBIAN / str(major) / "bin"
    if (debians / "postgres").exists():
        return debians
    if major in POSTGRESQL:
        return postgresql(major)
    raise UnavailableError(f"PostgreSQL {major} is not installed (apt-get install postgresql-{major})")


def is_here(major: int) -> bool:
    """Return whether this machine has a version's server programs, without a download."""
    if major == EMBEDDED or (DEBIAN / str(major) / "bin" / "postgres").exists():
        return True
    return major in POSTGRESQL and unpacked(major).exists()


@contextmanager
def running(major: int) -> Iterator[str]:
    """Yield the folder of the socket of a new server, whose superuser is `postgres`; raise UnavailableError if there is none."""
    folder = programs(major)
    with tempfile.TemporaryDirectory(prefix="lane-") as name:
        home = Path(name).resolve()
        home.chmod(0o711)  # For root, the server runs as another user.
        server = (Server if major == EMBEDDED else Older)(home, SETTINGS, folder=folder)
        try:
            server.create()
            server.start()
            yield str(home / "data")
        finally:
            server.stop()


def main() -> None:
    """Fetch the server programs that this machine does not have yet, and print where each version's are, or why there are none."""
    for major in VERSIONS:
        try:
            print(f"PostgreSQL {major}: {programs(major)}")
        except UnavailableError as reason:
            print(f"PostgreSQL {major}: none here. {reason}.")


if __name__ == "__main__":
    main()
