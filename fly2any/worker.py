"""gunicorn's worker with threads, in which a request gets a thread once it has arrived whole.

In gunicorn's own a thread waits for the rest of a request without end: as many slow clients as there are threads stop a process.
Here the main loop, which waits for all connections at once, receives them. TLS is the proxy's. docs/adr/0016 weighs this.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from django.conf import settings
from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from fly2any.content_length import body_length

ARRIVAL = 20  # Seconds that a request may take to arrive.
STALLED = 20  # Seconds that a client may take no byte of an answer, which a thread writes.
LINGER = 2  # Seconds that a client has to read the end of an answer before its connection is closed.
LONGEST_HEAD = 64 * 1024  # Bytes of the request line and the headers.
HELD = 64 * 1024 * 1024  # Bytes of requests that have not arrived whole, in a process.
READ = 256 * 1024  # Bytes that are received at once.
SEND_BUFFER = 1024 * 1024  # Bytes; the system may allow less. A page fits, so that no thread waits for who reads slowly.
LINGERING = 100  # Connections.

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Frame(NamedTuple):
    """Where the request at the beginning of some bytes ends."""

    size: int  # Bytes of the head and the body.
    is_read: bool = True  # Whether the body is received: not one too large, or of a length that is not told.
    is_awaited: bool = False  # Whether the client waits to be told to send the body.


def frame(received: bytes | bytearray, largest: int) -> Frame | None:
    """Return the frame of a request whose body may have `largest` bytes, None until its head has arrived.

    A malformed head is a frame without a body: gunicorn's parser answers the client.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    lengths, is_awaited = [], False
    for line in bytes(received[:end]).split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-length":
                lengths.append(value)
            case b"transfer-encoding":
                return Frame(end + 4, is_read=False)
            case b"expect":
                is_awaited = True
    length = body_length(lengths, largest=largest)
    if length is None:
        return Frame(end + 4, is_read=False)
    return Frame(end + 4 + length, is_awaited=is_awaited)


class Connection(TConn):
    """A connection, with what has arrived of its request."""

    def __init__(self, worker, *place):
        super().__init__(worker.cfg, *place)
        self.worker = worker
        self.received = bytearray()
        self.frame: Frame | None = None
        self.ends = 0.0
        stalled = struct.pack("@ll", STALLED, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, stalled)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stalled)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def init(self):
        super().init()
        if self.received:
            self.parser.unreader.unread(bytes(self.received))
            self.received.clear()

    def close(self, graceful=False):
        if graceful:
            self.worker.linger(self)  # gunicorn's own would stop the main loop for up to two seconds.
        else:
            util.close(self.sock)


class Worker(ThreadWorker):
    def init_process(self):
        self.arriving: dict[Connection, None] = {}  # Oldest first, as in `lingering`.
        self.lingering: dict[Connection, None] = {}
        self.held = 0
        super().init_process()

    def accept(self, listener):
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self.make_room()
        self.enqueue_req(Connection(self, client, address, listener.getsockname()))

    def make_room(self):
        """Close the connection that has waited longest, so that a full process goes on taking new ones."""
        if self.arriving:
            self.drop(next(iter(self.arriving)))
        elif self.keepalived_conns:
            oldest = self.keepalived_conns.popleft()
            self.poller.unregister(oldest.sock)
            self.nr_conns -= 1
            oldest.close()

    def enqueue_req(self, conn):
        """Receive the request, and give it a thread when it has arrived whole."""
        if self.cfg.is_ssl:
            super().enqueue_req(conn)
            return
        if conn.parser:  # What was read of this request behind the one before.
            conn.received += conn.parser.unreader.take_buffered()
        conn.frame, conn.ends = None, time.monotonic() + ARRIVAL
        self.held += len(conn.received)
        self.arriving[conn] = None
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_arriving, conn))
        if not self.has_arrived(conn):
            self.on_arriving(conn, conn.sock)

    def on_arriving(self, conn, _):
        """Receive what there is of a request."""
        if conn not in self.arriving:
            return  # Closed since the poller told of it.
        try:
            data = conn.sock.recv(READ)
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
            self.make_room()

    def has_arrived(self, conn):
        """Give the request a thread if it has arrived whole, and return whether this connection is done with here."""
        if conn.frame is None:
            conn.frame = frame(conn.received, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            if conn.frame is None:
                if len(conn.received) > LONGEST_HEAD:
                    self.drop(conn, TOO_LONG)
                return conn not in self.arriving
            if conn.frame.is_awaited and len(conn.received) < conn.frame.size:
                with suppress(OSError):
                    conn.sock.send(CONTINUE)
        if len(conn.received) < conn.frame.size:
            return False
        self.forget(conn)
        conn.data_ready = True
        super().enqueue_req(conn)
        return True

    def forget(self, conn):
        del self.arriving[conn]
        self.held -= len(conn.received)
        self.poller.unregister(conn.sock)

    def drop(self, conn, answer=b""):
        """Close a connection whose request does not arrive."""
        self.forget(conn)
        self.nr_conns -= 1
        if answer:
            with suppress(OSError):
                conn.sock.send(answer)
        conn.close(graceful=bool(answer))

    def handle_request(self, req, conn):
        if conn.frame and not conn.frame.is_read:
            req.force_close()  # The rest of it is not received.
        return super().handle_request(req, conn)

    def linger(self, conn):
        """Close a connection once its client has read the answer: closed with bytes unread, it would lose the answer's end."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            if len(self.lingering) < LINGERING:
                self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_lingering, conn))
                conn.ends = time.monotonic() + LINGER
                self.lingering[conn] = None
                return
        except OSError:
            pass
        conn.close()

    def on_lingering(self, conn, _):
        if conn not in self.lingering:
            return
        try:
            is_over = not conn.sock.recv(READ)
        except OSError as error:
            is_over = not isinstance(error, BlockingIOError)
        if is_over:
            self.let_go(conn)

    def let_go(self, conn):
        del self.lingering[conn]
        self.poller.unregister(conn.sock)
        conn.close()

    def murder_pending(self):
        """Close the connections whose time is up; gunicorn asks for it every second."""
        super().murder_pending()
        now = time.monotonic()
        for conn in [conn for conn in self.arriving if conn.ends <= now or not (self.alive or conn.received)]:
            self.drop(conn, TOO_SLOW if conn.received else b"")
        for conn in [conn for conn in self.lingering if conn.ends <= now]:
            self.let_go(conn)
