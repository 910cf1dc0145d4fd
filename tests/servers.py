"""Real servers for faults that must not affect the tests' common server."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from fly2any.postgres.embedded import pid
from fly2any.postgres.supervisor import Server

SUPERUSER = "postgres"


def let_through(home):
    """Give the user that a server runs as access to a folder of pytest, whose mode is 0700."""
    for folder in (home, *home.parents):
        if "pytest-of-" in str(folder):
            folder.chmod(folder.stat().st_mode | 0o011)


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
        """Return a new connection in autocommit mode."""
        return psycopg.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=self.name, autocommit=True, **options
        )

    @contextmanager
    def role(self, *grants):
        """Yield the URL of a role with these grants and no others."""
        role = f"{self.name}_role"
        self.execute(f"CREATE ROLE {role} LOGIN")
        try:
            for grant in grants:
                self.execute(grant.format(role=role))
            yield self.url.replace(f"//{self.user}", f"//{role}", 1)
        finally:
            self.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    def execute(self, statement, parameters=None):
        """Run `statement`, and return its rows if it has any."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else None

    def give_tables(self, role):
        """Make `role` the owner of all tables in public."""
        tables = self.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        self.execute("; ".join(f'ALTER TABLE "{name}" OWNER TO {role}' for (name,) in tables))


@contextmanager
def open_transaction(database, *statements):
    """Another client that has run `statements` and does not commit."""
    with database.connect(application_name="the site") as client:
        client.execute("BEGIN")
        for statement in statements:
            client.execute(statement)
        yield client


# Whether the session that inserted rows has reported them; a report after ANALYZE would be added to what ANALYZE counts.
REPORTED_SQL = "SELECT 1 FROM pg_stat_user_tables HAVING sum(n_tup_ins) >= %s"


def wait_until(database, question, parameters=None, seconds=60):
    """Wait until `question` has a row, and return it."""
    deadline = time.monotonic() + seconds
    while not (rows := database.execute(question, parameters)):
        assert time.monotonic() < deadline, question
        time.sleep(0.05)
    return rows[0]


def recorded(database, app):
    return [name for (name,) in database.execute("SELECT name FROM django_migrations WHERE app = %s ORDER BY id", [app])]


def runs(database, app):
    return database.execute(
        "SELECT migration, direction, finished IS NOT NULL, error FROM fly2any_migration_runs WHERE migration LIKE %s ORDER BY id",
        [f"{app}.%"],
    )


class OwnServer:
    """A server on its own port, with a database `fly2any`; its data come from `template` or initdb."""

    def __init__(self, home, settings, template=None):
        let_through(home)
        self.home = home.resolve()
        self.port = free_port()
        self.server = self.make({"listen_addresses": "127.0.0.1", "port": str(self.port), "fsync": "off", **settings})
        if template is None:
            self.server.create()
        else:
            subprocess.run(["cp", "-a", template / "data", self.home], check=True)

    def make(self, settings):
        return Server(self.home, settings)

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
        let_through(home)
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


DEBIANS = Path("/usr/lib/postgresql/15/bin")


def certificate(folder, name, host):
    """Make an authority and, by it, a certificate for `host`; return the paths of both certificates and of the key."""
    authority, key, request, made = (folder / f"{name}{end}" for end in ("-ca.crt", ".key", ".csr", ".crt"))
    openssl = partial(subprocess.run, check=True, capture_output=True)
    authority_key = folder / f"{name}-ca.key"
    subject = f"/CN={name} authority"
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    openssl([*new, "-x509", "-days", "2", "-subj", subject, "-keyout", str(authority_key), "-out", str(authority)])
    openssl([*new, "-subj", f"/CN={host}", "-keyout", str(key), "-out", str(request)])
    extension = folder / f"{name}.ext"
    extension.write_text(f"subjectAltName=DNS:{host}\n")
    openssl(["openssl", "x509", "-req", "-in", str(request), "-CA", str(authority), "-CAkey", str(authority_key), "-CAcreateserial",
             "-days", "2", "-extfile", str(extension), "-out", str(made)])  # fmt: skip
    return authority, made, key


class DebiansPrograms(Server):
    LOCALE = ("--locale=C.UTF-8",)


class DebianServer(OwnServer):
    """Debian's PostgreSQL 15, with TLS: the embedded one is built without."""

    def make(self, settings):
        return DebiansPrograms(self.home, settings, folder=DEBIANS)

    def give(self, path):
        """Put a file among the server's own, and return where."""
        to = self.home / "data" / path.name
        shutil.copy(path, to)
        to.chmod(0o600)
        shutil.chown(to, *_owner(self.home / "data"))
        return str(to)


class PgBouncer:
    """PgBouncer in front of a server on a TCP port."""

    def __init__(self, home, port, mode, *, size=20, ignored="options,extra_float_digits"):
        self.port = free_port()
        settings = home / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={port} user={SUPERUSER}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = {mode}\nmax_client_conn = 100\ndefault_pool_size = {size}\n"
            f"ignore_startup_parameters = {ignored}\n"
        )
        let_through(home)
        program = next(path for path in ("/usr/sbin/pgbouncer", "/usr/bin/pgbouncer") if os.path.exists(path))
        user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        words = ["setpriv", "--pdeathsig=KILL", *user, program, str(settings)]  # It ends when the tests end, for any reason.
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.05)

    def url(self, parameters="", database="fly2any"):
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}{parameters}"

    def remove(self):
        self.process.terminate()
        self.process.wait()


class Relay:
    """A proxy in front of a server that can drop connections silently, like a host or a NAT that disappears."""

    def __init__(self, port):
        self.to, self.forgotten = port, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.held = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.to))
                self.held += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(*pair, self.forgotten), daemon=True).start()

    def _pump(self, one, other, forgotten):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if forgotten.is_set():
                    return  # Neither passed on nor closed.
                other.sendall(data)
            if not forgotten.is_set():
                other.shutdown(socket.SHUT_WR)

    def forget(self):
        """Silence the existing connections; new ones work."""
        self.forgotten.set()
        self.forgotten = threading.Event()

    def remove(self):
        for one in (self.listener, *self.held):
            one.close()


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
