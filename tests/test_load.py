"""Clients that have not signed in occupy no thread and little memory or disk: a real gunicorn, and slow or large requests."""

import re
import select
import selectors
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import bcrypt
import psycopg
import pytest
from gunicorn.config import Config

from fly2any.gunicorn_worker import ARRIVAL, BUSY, CONTINUE, STALLED, UNSENT, WAITING, Connection, Frame, Worker, frame
from tests.conftest import PROJECT, fresh
from tests.servers import free_port
from tests.test_deploy import BIN, environment

SLOW = 20  # Clients: more than there are threads.
MB = 1024 * 1024


class Web:
    """gunicorn with one process of eight threads, as it is configured."""

    def __init__(self, database, folder):
        self.port, self.database = free_port(), database
        self.log = (folder / "log").open("w+")
        arguments = f"--bind=127.0.0.1:{self.port} --workers=1"
        self.process = subprocess.Popen(
            [BIN / "gunicorn"], cwd=PROJECT, stdout=self.log, stderr=subprocess.STDOUT,
            env=environment(database, GUNICORN_CMD_ARGS=arguments, TMPDIR=str(folder), SECOND_FACTOR="false"),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                if self.ask("/health/live")[0] == 200:
                    return
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def ask(self, path, data=None, headers=(), timeout=30):
        """Return the status and the text of a response."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=data, headers={"Host": "localhost", "X-Forwarded-Proto": "https", **dict(headers)}
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def connect(self, sent, receive=None):
        """Return a socket that has sent `sent`, with a receive buffer of so many bytes."""
        client = socket.socket()
        if receive:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        client.connect(("127.0.0.1", self.port))
        client.sendall(sent)
        return client

    @contextmanager
    def clients(self, sent, number=SLOW, receive=None):
        """Clients that have sent `sent` and say no more, with a receive buffer of so many bytes."""
        with ExitStack() as stack:
            for _ in range(number):
                stack.enter_context(client := self.connect(sent, receive))
            time.sleep(0.5)
            yield client

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="module")
def web(django_db_setup, django_db_blocker, migrated_template, tmp_path_factory):
    with django_db_blocker.unblock():
        for database in fresh(migrated_template):
            server = Web(database, tmp_path_factory.mktemp("web"))
            yield server
            server.stop()


def head(path="/admin/login/", *lines, method="POST"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", "X-Forwarded-Proto: https", *lines, "", ""]).encode()


FORM = "Content-Type: application/x-www-form-urlencoded"
DAWDLING = {
    "the body": head("/admin/login/", FORM, "Content-Length: 1000") + b"username=",
    "the head": head("/admin/login/", FORM)[:-2],
    "anything": b"",
    "a body of no declared length": head("/admin/login/", FORM, "Transfer-Encoding: chunked") + b"5\r\n",
    "what it was asked for": head("/admin/login/", FORM, "Expect: 100-continue", "Content-Length: 1000"),
    "a length in many digits": head(
        "/admin/login/", "Content-Type: multipart/form-data; boundary=B", f"Content-Length: {'0' * 20}999"
    )
    + b"--B\r\n",
    "a body too large": head("/admin/login/", FORM, f"Content-Length: {600 * MB}") + b"username=",
}


def answers_in_time(web):
    begun = time.monotonic()
    return [web.ask("/health/live")[0], web.ask("/admin/login/")[0]] == [200, 200] and time.monotonic() - begun < 5


@pytest.mark.sampled(3)
@pytest.mark.parametrize("what", DAWDLING)
def test_clients_that_do_not_send_occupy_no_thread(web, what):
    with web.clients(DAWDLING[what]):
        assert answers_in_time(web)


def test_clients_that_do_not_read_occupy_no_thread(web):
    with web.clients(head("/static/admin/js/vendor/jquery/jquery.js", method="GET"), receive=4096):
        assert answers_in_time(web)


def test_clients_that_send_many_requests_and_do_not_read_occupy_no_thread(web):
    with web.clients(head("/static/admin/js/vendor/xregexp/xregexp.js", method="GET") * 30, receive=4096):
        assert answers_in_time(web)


@contextmanager
def busy(web, number, body=b""):
    """Make `number` requests wait for the database until the second yielded value is called."""
    lines = ["Cookie: __Host-sessionid=abcdefghijklmnopqrstuvwxyz012345", "Connection: close", f"Content-Length: {len(body)}"]
    sent = head("/admin/second-factor/", *lines, method="GET") + body
    with psycopg.connect(web.database.url) as other, ExitStack() as stack:
        other.execute("LOCK django_session")
        clients = [stack.enter_context(web.connect(b"")) for _ in range(number)]
        with ThreadPoolExecutor(number) as threads:
            for client in clients:
                threads.submit(client.sendall, sent)
        yield clients, other.rollback


def test_liveness_is_answered_while_all_threads_are_busy(web):
    web.ask("/admin/login/")  # So that everything is imported.
    with busy(web, 48):  # For twelve seconds.
        time.sleep(0.5)
        begun = time.monotonic()
        said = web.ask("/health/live")
        took = time.monotonic() - begun

    assert (said, took < 5) == ((200, '{"status": "ok"}'), True)


@pytest.mark.parametrize(("number", "body"), [(8 + WAITING + 20, b""), (60, b"a" * 2_600_000)], ids=["many", "large"])
def test_the_queue_for_threads_is_bounded(web, number, body):
    with busy(web, number, body) as (clients, release), ThreadPoolExecutor(number) as threads:
        deadline = time.monotonic() + 20
        while len(select.select(clients, [], [], 1)[0]) < 20 and time.monotonic() < deadline:
            time.sleep(0.1)
        release()
        refused = list(threads.map(lambda client: everything(client) == BUSY, clients))

    assert (len(refused), refused.count(True) >= 20) == (number, True)


def test_clients_that_do_not_close_occupy_no_thread_and_do_not_stop_the_main_loop(web):
    with web.clients(head("/nope/", "Connection: close", method="GET")):
        assert answers_in_time(web)


def test_a_process_full_of_idle_connections_takes_new_ones(web):
    with web.clients(b"", number=510):
        assert answers_in_time(web)


@pytest.mark.slow
def test_a_request_that_does_not_arrive_is_ended(web):
    with web.clients(DAWDLING["the body"], number=1) as client:
        client.settimeout(ARRIVAL + 10)
        said = client.recv(1000)

    assert said.startswith(b"HTTP/1.1 408 ")


def everything(client):
    """Return everything that a connection receives until it is closed."""
    client.settimeout(30)
    said = b""
    while data := client.recv(65536):
        said += data
    return said


def whole(client):
    """Return the statuses of the responses on a connection until it is closed."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", everything(client))]


def test_a_request_in_pieces_and_several_at_once_are_answered(web):
    body = b"username=a@example.com&password=p"
    post = head("/admin/login/", FORM, f"Content-Length: {len(body)}") + body
    last = head("/health/live", "Connection: close", method="GET")
    with web.connect(b"") as client:
        for place in range(0, len(post), 40):
            client.sendall(post[place : place + 40])
            time.sleep(0.01)
        client.sendall(post + head("/health/live", method="GET") + last)
        answers = whole(client)

    assert answers == [TAKEN, TAKEN, 200, 200]


def test_the_text_of_a_malformed_request_is_not_logged(web):
    for sent in (head("/admin/x?token=SECRET\xff", method="GET"), head("/admin/", "Authorization Bearer SECRET", method="GET")):
        with web.connect(sent) as client:
            assert whole(client) == [400]
    web.log.seek(0)
    log = web.log.read()

    assert ("SECRET" in log, log.count("Invalid request from ip=127.0.0.1: Invalid HTTP ")) == (False, 2)


def test_a_client_that_expects_100_continue_gets_it(web):
    with web.connect(head("/admin/login/", FORM, "Expect: 100-continue", "Content-Length: 4", "Connection: close")) as client:
        client.settimeout(10)
        received = client.recv(1000)
        client.sendall(b"a=bc")
        answers = whole(client)

    assert (received, answers) == (CONTINUE, [TAKEN])


REFUSED = {
    "600 MB": (["Content-Type: multipart/form-data; boundary=B", f"Content-Length: {600 * MB}"], b"--B\r\n", 413),
    "one byte too many": ([FORM, "Content-Length: 2621441"], b"a=", 413),
    "no declared length": ([FORM, "Transfer-Encoding: chunked"], b"5\r\na=bcd\r\n", 411),
    "two lengths": ([FORM, "Content-Length: 1", "Content-Length: 2"], b"a=", 400),
    "a head without end": ([f"X-{n}: {'a' * 4000}" for n in range(20)], b"", 431),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_that_is_too_large_is_refused_before_it_is_received(web, what):
    lines, body, status = REFUSED[what]
    begun = time.monotonic()
    with web.connect(head("/admin/login/", *lines)[: -2 if status == 431 else None] + body) as client:
        answers = whole(client)

    assert (answers, time.monotonic() - begun < 5) == ([status], True)


LARGEST = 1000


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", Frame(27)),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", Frame(20)),
        (b"POST / HTTP/1.1\r\ncontent-LENGTH:  1000 \r\n\r\n", Frame(1043)),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", Frame(41, is_read=False)),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Frame(39, is_read=False)),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Frame(57, is_read=False)),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Frame(47, is_read=False)),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", Frame(64, is_awaited=True)),
        (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", Frame(64)),
    ],
)
def test_where_a_request_ends(received, found):
    assert frame(received, LARGEST) == found


@pytest.fixture
def main_loop():
    """A worker in the state of its main loop, and a connection with the client's socket."""
    worker = Worker(0, 0, [], None, 1, Config(), None)
    worker.arriving, worker.sending, worker.lingering, worker.held, worker.working = {}, {}, {}, 0, 0
    worker.method_queue.init()
    with (
        selectors.DefaultSelector() as worker.poller,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        connection = Connection(worker, server.accept()[0], ("", 0), ("", 0))
        worker.nr_conns = 1
        yield worker, connection, client
        connection.close()
    worker.method_queue.close()
    worker.tmp.close()


def test_an_event_of_a_connection_that_was_closed_to_make_room_is_ignored(main_loop):
    worker, connection, _ = main_loop
    worker.keepalived_conns.append(connection)
    worker.poller.register(connection.sock, selectors.EVENT_READ)

    worker.make_room()
    worker.on_client_socket_readable(connection, connection.sock)  # Events from the same round of the poller.

    assert (worker.nr_conns, [*worker.keepalived_conns], connection.socket.fileno()) == (0, [], -1)


def test_a_response_that_is_not_read_in_time_is_dropped_and_frees_its_thread(main_loop):
    worker, connection, _ = main_loop
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(lambda: [connection.sock.sendall(b"a" * MB) for _ in range(20)])
        while not worker.sending or len(connection.sock.unsent) < UNSENT:
            worker.method_queue.run_callbacks(None)
        worker.murder_pending()
        waits = not writing.done()
        connection.ends = 0
        worker.murder_pending()

    assert waits
    assert isinstance(writing.exception(), BrokenPipeError)
    assert (worker.sending, connection.socket.fileno(), len(worker.poller.get_map())) == ({}, -1, 0)


def test_the_system_buffers_little_of_a_response_and_not_for_long(main_loop):
    _, connection, _ = main_loop

    assert connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 64 * 1024
    assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == STALLED * 1000


def test_a_thread_has_nothing_to_read(main_loop):
    _, connection, client = main_loop
    client.sendall(b"a")

    assert connection.sock.recv(1) == b""


def test_tls_is_refused():
    config = Config()
    config.set("certfile", "a")

    with pytest.raises(RuntimeError, match="does not support TLS"):
        Worker.check_config(config, None)


STAFF = """
    INSERT INTO users (id, email, password, "isStaff", "isSuperuser", "updatedAt") VALUES (%s, %s, %s, true, true, now())
"""


@pytest.mark.slow
def test_of_sixteen_guesses_at_once_no_more_are_tried_than_of_sixteen_in_a_row(web):
    email = "boss@example.com"
    web.database.execute(STAFF, ["boss", email, bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()])
    page = urllib.request.Request(
        f"http://127.0.0.1:{web.port}/admin/login/", headers={"Host": "localhost", "X-Forwarded-Proto": "https"}
    )
    with urllib.request.urlopen(page) as shown:
        cookie = shown.headers["Set-Cookie"].partition(";")[0]
        token = re.search('name="csrfmiddlewaretoken" value="(.*?)"', shown.read().decode())[1]

    def guess(password):
        data = urllib.parse.urlencode({"username": email, "password": password, "csrfmiddlewaretoken": token}).encode()
        headers = {"Cookie": cookie, "Referer": "https://localhost/", "User-Agent": password}
        status, text = web.ask("/admin/login/", data, headers)
        while "at once" in text:  # It was not tried, because other sign-ins were running.
            status, text = web.ask("/admin/login/", data, headers)
        return status

    with ThreadPoolExecutor(16) as threads:
        answers = sorted(threads.map(guess, [f"wrong {n}" for n in range(16)]))

    assert answers == [200] * 4 + [429] * 12  # The fifth causes the lockout.
    assert guess("right") == 429
    assert web.database.execute("SELECT sum(failures_since_start)::int FROM axes_accessattempt") == [(5,)]


TAKEN = 403  # By the CSRF check, because there is no cookie.


@pytest.mark.slow
def test_a_client_behind_a_proxy_of_this_machine_cannot_move_the_path(web):
    """Nor pass the proxy's rules for a path: gunicorn trusts some headers of local clients."""
    assert web.ask("/health/live", headers={"SCRIPT_NAME": "/health"})[0] == 200
    assert web.ask("/public/health/live", headers={"SCRIPT_NAME": "/public"})[0] == 404
