"""Real servers for faults that the tests' common server must not have."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import time
from urllib.parse import quote

import psutil
import psycopg

from fly2any.postgres.embedded import pid
from fly2any.postgres.supervisor import Server

SUPERUSER = "postgres"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Database:
    """A database, as tests and the commands that they start reach it."""

    host: str
    port: str
    user: str
    password: str
    name: str

    @property
    def url(self):
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        return f"postgresql://{self.user}{secret}@/{self.name}?host={self.host}&port={self.port}"

    def connect(self, **options):
        """Return a connection of its own, in autocommit."""
        return psycopg.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=self.name, autocommit=True, **options
        )

    def execute(self, statement, parameters=None):
        """Run `statement`, and return its rows if it has any."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else None


class OwnServer:
    """A server on a port of its own, with a database `fly2any`."""

    def __init__(self, home, settings):
        for folder in (home, *home.parents):  # pytest makes its folders 0700: the server may be another user.
            if folder.name.startswith("pytest-"):
                folder.chmod(0o711)
        home.chmod(0o711)
        self.home = home.resolve()
        self.port = free_port()
        self.server = Server(self.home, {"listen_addresses": "127.0.0.1", "port": str(self.port), "fsync": "off", **settings})
        self.server.create()

    def start(self):
        self.server.start()
        return self

    def stop(self):
        self.server.stop()

    def remove(self):
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def hba(self, *lines):
        """Replace pg_hba.conf: TCP follows `lines`, the socket is trusted."""
        (self.home / "data" / "pg_hba.conf").write_text("\n".join(["local all all trust", *lines, ""]))
        if number := pid(self.home):
            os.kill(number, signal.SIGHUP)
            time.sleep(0.3)

    def url(self, user=SUPERUSER, password="", database="fly2any", parameters=""):
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}{parameters}"

    def execute(self, statement, database="fly2any"):
        """Run `statement` as the superuser over the socket, and return its rows if it has any."""
        with psycopg.connect(
            host=str(self.home / "data"), port=self.port, user=SUPERUSER, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def create_database(self):
        self.execute("CREATE DATABASE fly2any", database="postgres")
        return self

    def standby(self, home):
        """Return a started hot standby of this server."""
        standby = OwnServer.__new__(OwnServer)
        home.chmod(0o711)
        standby.home, standby.port = home.resolve(), free_port()
        data = standby.home / "data"
        data.mkdir(mode=0o700)
        shutil.chown(data, *_owner(self.home / "data"))
        with open(home / "log", "a") as log:
            code = self.server.run(
                log, "pg_basebackup", "-h", str(self.home / "data"), "-p", str(self.port), "-U", SUPERUSER, "-D", str(data), "-R", "-c", "fast"
            ).wait()  # fmt: skip
        assert code == 0, (home / "log").read_text()
        standby.server = Server(standby.home, {"listen_addresses": "127.0.0.1", "port": str(standby.port), "hot_standby": "on"})
        return standby.start()


def _owner(path):
    facts = path.stat()
    return facts.st_uid, facts.st_gid


def processes(word):
    """Return the process ids and command lines of the processes that have `word` in theirs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if word in line:
                found.append(f"{process.pid} {line}")
    return found
