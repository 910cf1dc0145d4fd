"""gunicorn's threaded worker, changed so that threads do not wait for clients (docs/adr/0016).

In gunicorn's own worker, as many slow clients as there are threads block a process. Here the main loop receives complete requests
and sends the responses; threads compute them, and wait for a client only past UNSENT bytes of a response, as in a large export.
The proxy terminates TLS.
"""

from __future__ import annotations

import errno
import re
import selectors
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from django.conf import settings
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from fly2any.content_length import body_length
from fly2any.logs import Unquoted

ARRIVAL = 20  # Seconds in which a request must arrive.
TAKING = 60  # Seconds in which a client must receive a response, or each UNSENT bytes of a longer one.
STALLED = 20  # Seconds without an acknowledgement from the client.
LINGER = 2  # Seconds in which a client must read the end of a response before the connection is closed.
LONGEST_HEAD = 64 * 1024  # Bytes of the request line and the headers.
HELD = 64 * 1024 * 1024  # Bytes of unanswered requests in a process, and as many of unsent responses.
UNSENT = 1024 * 1024  # Bytes of a response, past which its thread waits for the client; a page fits.
WAITING = 100  # Requests that wait for a thread.
READ = 256 * 1024  # Bytes received at once.
SEND_BUFFER = 64 * 1024  # Bytes of a response that the system buffers; it may double them.
LINGERING = 100  # Connections.

LIVE = re.compile(rb"(GET|HEAD) /health/live HTTP/1\.")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _answer(status: str, length: int = 0) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


ALIVE = b'{"status": "ok"}'
TOO_SLOW, TOO_LONG, BUSY = map(
    _answer, ("408 Request Timeout", "431 Request Header Fields Too Large", "503 Service Unavailable")
)


class Frame(NamedTuple):
    """Where the first request in a buffer ends."""

    size: int  # Bytes of the head and the body.
    is_read: bool = True  # Whether the body is received; it is not if it is too large, or its length is not given.
    is_awaited: bool = False  # Whether the client waits for 100 Continue before it sends the body.


def frame(received: bytes | bytearray, largest: int) -> Frame | None:
    """Return the frame of a request whose body may have `largest` bytes, None until its head is complete.

    A malformed head is a frame without a body: gunicorn's parser answers the client.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = bytes(received[:end]).split(b"\r\n")
    lengths, is_awaited = [], False
    for line in lines:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-length":
                lengths.append(value)
            case b"transfer-encoding":
                return Frame(end + 4, is_read=False)
            case b"expect":
                is_awaited = first.endswith(b"HTTP/1.1")  # HTTP/1.0 has no 100 Continue.
    length = body_length(lengths, largest=largest)
    if length is None:
        return Frame(end + 4, is_read=False)
    return Frame(end + 4 + length, is_awaited=is_awaited)


class Answer:
    """A thread's replacement for the socket: there is nothing to read, and the main loop sends the written bytes."""

    def __init__(self, sock: socket.socket, written):
        self.fileno = sock.fileno
        self.written = written  # Called when there is something to send.
        self.unsent = bytearray()
        self.is_open = True
        self.changed = threading.Condition()

    def recv(self, size):
        return b""

    def send(self, data):
        return len(data)  # gunicorn's "100 Continue", which the main loop has already sent.

    def sendall(self, data):
        with self.changed:
            self.changed.wait_for(lambda: len(self.unsent) < UNSENT or not self.is_open, TAKING)
            if not self.is_open or len(self.unsent) >= UNSENT:
                raise BrokenPipeError(errno.EPIPE, "The client does not read the response.")
            self.unsent += data
            if len(self.unsent) == len(data):
                self.written()

    def send_to(self, sock):
        """Send as much as the system accepts, and return the number of bytes."""
        with self.changed:
            sent = sock.send(self.unsent) if self.unsent else 0
            del self.unsent[:sent]
            self.changed.notify_all()
        return sent

    def end(self):
        with self.changed:
            self.is_open, self.written = False, None  # This also breaks a cycle that would keep the request in memory.
            self.unsent.clear()
            self.changed.notify_all()

    def shutdown(self, how):
        raise OSError(errno.ENOTCONN, "The main loop closes it.")

    def gettimeout(self):
        return None

    def setblocking(self, _):
        pass

    settimeout = setblocking

    def close(self):
        pass


class Connection(TConn):
    """A connection, with the received part of its request and the unsent part of its response."""

    def __init__(self, worker, sock, *place):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED * 1000)
        super().__init__(worker.cfg, Answer(sock, lambda: worker.method_queue.defer(worker.send, self)), *place)
        self.socket, self.worker = sock, worker
        self.received = bytearray()
        self.frame: Frame | None = None
        self.since = self.ends = 0.0  # When the wait for it began, and when it ends.
        self.size = 0  # Bytes of the request, once a thread has it.
        self.taken = 0  # Bytes of the response that were sent, counted up to UNSENT.
        self.finished = None  # The thread's result.

    def init(self):
        super().init()
        if self.received:
            self.parser.unreader.unread(bytes(self.received))
            self.received.clear()

    def wait(self, seconds):
        self.since = time.monotonic()
        self.ends = self.since + seconds

    def close(self, graceful=False):
        self.sock.end()
        if graceful:
            self.worker.linger(self)  # gunicorn's own method would block the main loop for up to two seconds.
        else:
            self.socket.close()


class Worker(ThreadWorker):
    @classmethod
    def check_config(cls, cfg, log):
        if cfg.is_ssl:
            raise RuntimeError("fly2any.gunicorn_worker does not support TLS: remove certfile and keyfile, and use a proxy.")
        super().check_config(cfg, log)

    def init_process(self):
        self.arriving: dict[Connection, None] = {}  # Oldest first, as in the next two.
        self.sending: dict[Connection, None] = {}
        self.lingering: dict[Connection, None] = {}
        self.held = 0
        self.working = 0  # Requests that have a thread or wait for one.
        self.log.error_log.addFilter(Unquoted())
        super().init_process()

    def accept(self, listener):
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.make_room()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self.make_room()
        self.enqueue_req(Connection(self, client, address, listener.getsockname()))

    def make_room(self):
        """Close the connection that has waited longest, so that a full process can accept new ones."""
        oldest = [next(iter(those)) for those in (self.arriving, self.sending, self.keepalived_conns) if those]
        match min(oldest, key=lambda conn: conn.since, default=None):
            case None:
                return
            case conn if conn in self.arriving:
                self.drop(conn)
            case conn if conn in self.sending:
                self.cut(conn)
            case conn:
                self.keepalived_conns.popleft()
                self.poller.unregister(conn.sock)
                self.nr_conns -= 1
                conn.close()

    def on_client_socket_readable(self, conn, client):
        if conn in self.keepalived_conns:  # It may have been closed since the poller's event.
            super().on_client_socket_readable(conn, client)

    def enqueue_req(self, conn):
        """Receive the request, and give it a thread when it is complete."""
        if conn.parser:  # Bytes of this request that arrived with the previous one.
            conn.received += conn.parser.unreader.take_buffered()
        conn.frame = None
        conn.wait(ARRIVAL)
        self.held += len(conn.received)
        self.arriving[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_arriving, conn))
        if not self.has_arrived(conn):
            self.on_arriving(conn, conn.sock)

    def on_arriving(self, conn, _):
        """Receive the available part of a request."""
        if conn not in self.arriving:
            return  # It was closed since the poller's event.
        try:
            data = conn.socket.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(conn)
            return
        conn.received += data
        self.held += len(data)
        if not self.has_arrived(conn) and self.held > HELD:
            self.drop(next(iter(self.arriving)), BUSY)

    def has_arrived(self, conn):
        """Give the request a thread if it is complete; return whether the connection is no longer among those arriving."""
        if conn.frame is None:
            conn.frame = frame(conn.received, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            if conn.frame is None:
                if len(conn.received) > LONGEST_HEAD:
                    self.drop(conn, TOO_LONG)
                return conn not in self.arriving
            if conn.frame.is_awaited and len(conn.received) < conn.frame.size:
                with suppress(OSError):
                    conn.socket.send(CONTINUE)
        if len(conn.received) < conn.frame.size:
            return False
        if answer := self.without_thread(conn):
            self.drop(conn, answer)
            return True
        conn.size = len(conn.received)
        self.held += conn.size  # Until the response is sent.
        self.forget(conn)
        self.working += 1
        conn.data_ready = True
        super().enqueue_req(conn)
        return True

    def without_thread(self, conn):
        """Return the response to a request that gets no thread, b"" if it gets one or may wait for one."""
        if self.working < self.cfg.threads:
            return b""
        if live := LIVE.match(conn.received):
            return _answer("200 OK", len(ALIVE)) + (ALIVE if live[1] == b"GET" else b"")
        return BUSY if self.working >= self.cfg.threads + WAITING else b""

    def forget(self, conn):
        del self.arriving[conn]
        self.held -= len(conn.received)
        self.poller.unregister(conn.sock)

    def drop(self, conn, answer=b""):
        """Close a connection whose request is incomplete or gets no thread."""
        self.forget(conn)
        self.nr_conns -= 1
        conn.received.clear()
        if answer:
            with suppress(OSError):
                conn.socket.send(answer)
        conn.close(graceful=bool(answer))

    def handle_request(self, req, conn):
        if conn.frame and not conn.frame.is_read:
            req.force_close()  # The rest of it is never read.
        return super().handle_request(req, conn)

    def finish_request(self, conn, fs):
        """Send the response, then continue with the connection."""
        self.working -= 1
        self.held -= conn.size
        conn.finished = fs
        self.send(conn)

    def send(self, conn, _=None):
        """Send the available part of a response, and wait for the client if it does not accept all of it."""
        try:
            sent = conn.sock.send_to(conn.socket)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.cut(conn)
            return
        conn.taken += sent
        if conn.sock.unsent:
            if conn not in self.sending:
                conn.taken = 0
                conn.wait(TAKING)
                self.sending[conn] = None
                self.poller.register(conn.sock, selectors.EVENT_WRITE, partial(self.on_writable, conn))
                if sum(len(one.sock.unsent) for one in self.sending) > HELD:
                    self.cut(next(iter(self.sending)))
            elif conn.taken >= UNSENT:
                conn.taken -= UNSENT
                conn.ends = time.monotonic() + TAKING
            return
        if conn in self.sending:
            del self.sending[conn]
            self.poller.unregister(conn.sock)
        if conn.finished:
            finished, conn.finished = conn.finished, None
            if conn.sock.is_open:
                super().finish_request(conn, finished)
                conn.since = time.monotonic()
            else:
                self.nr_conns -= 1

    def on_writable(self, conn, _):
        if conn in self.sending:  # It may have been closed since the poller's event.
            self.send(conn)

    def cut(self, conn):
        """Close a connection whose client does not read the response; its thread may still be writing it."""
        if conn in self.sending:
            del self.sending[conn]
            self.poller.unregister(conn.sock)
        conn.close()
        if conn.finished:
            conn.finished = None
            self.nr_conns -= 1

    def linger(self, conn):
        """Close a connection once its client has read the response; closed earlier, it would lose the end."""
        try:
            conn.socket.shutdown(socket.SHUT_WR)
            if len(self.lingering) < LINGERING:
                self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_lingering, conn))
                conn.wait(LINGER)
                self.lingering[conn] = None
                return
        except OSError:
            pass
        conn.close()

    def on_lingering(self, conn, _):
        if conn not in self.lingering:
            return
        try:
            is_over = not conn.socket.recv(READ)
        except OSError as error:
            is_over = not isinstance(error, BlockingIOError)
        if is_over:
            self.let_go(conn)

    def let_go(self, conn):
        del self.lingering[conn]
        self.poller.unregister(conn.sock)
        conn.close()

    def murder_pending(self):
        """Close the connections whose time is up; gunicorn calls this every second."""
        super().murder_pending()
        now = time.monotonic()
        for conn in [conn for conn in self.arriving if conn.ends <= now or not (self.alive or conn.received)]:
            self.drop(conn, TOO_SLOW if conn.received else b"")
        for conn in [conn for conn in self.sending if conn.ends <= now]:
            self.cut(conn)
        for conn in [conn for conn in self.lingering if conn.ends <= now]:
            self.let_go(conn)
