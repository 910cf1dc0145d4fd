"""Backups in a bucket. Its response is not trusted: a stored file is looked up."""

import json
import os
import re
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fly2any.database.backup import store
from fly2any.database.backup.inventory import read_newest
from fly2any.database.backup.store import Unreachable, store_at
from fly2any.database.errors import Refusal
from tests.conftest import django
from tests.database.old_rows import CASES, put, swept
from tests.database.taken import databases, rows, run

SIGN_IN = b"<html><body>Please sign in</body></html>"


class Endpoint(BaseHTTPRequestHandler):
    """Answers 200 to whatever is stored, and loses it (`forgets`), has other bytes (`alters`), or is no storage at all (`page`)."""

    protocol_version = "HTTP/1.1"  # botocore waits a second for the “100 Continue” of an older one.

    def __init__(self, *arguments, kind, sizes):
        self.kind, self.sizes = kind, sizes
        super().__init__(*arguments)

    def answer(self, content=b"", status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_PUT(self):
        size = self.headers.get("X-Amz-Decoded-Content-Length") or self.headers["Content-Length"]
        self.rfile.read(int(self.headers["Content-Length"]))
        self.sizes[self.path] = int(size)
        self.answer()

    def do_GET(self):
        if self.kind == "drips":  # Before its status.
            with suppress(OSError):
                for _ in range(30):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
        elif self.kind == "page":
            self.answer(SIGN_IN)
        elif self.kind == "alters" and self.path in self.sizes:
            self.answer(b"?" * self.sizes[self.path])
        else:
            self.answer(status=404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(handler, monkeypatch):
    """Serve `handler` as the S3 of the environment."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def endpoint(request, monkeypatch):
    with serving(partial(Endpoint, kind=request.param, sizes={}), monkeypatch):
        yield


NO_STORAGE = {"forgets": "but does not have it", "page": f"but has {len(SIGN_IN)} bytes instead of 9,000"}


@pytest.mark.parametrize("endpoint", NO_STORAGE, indirect=True)
def test_a_file_that_a_bucket_accepted_but_does_not_have_is_not_stored(endpoint, request, tmp_path):
    said = NO_STORAGE[request.node.callspec.params["endpoint"]]
    (tmp_path / "file").write_bytes(b"x" * 9000)
    bucket = store_at("s3://fly/nightly")

    refusals = []
    for store_it in (
        partial(bucket.write, "name", b"x" * 9000),
        partial(bucket.put, "name", tmp_path / "file", lambda size: None),
    ):
        with pytest.raises(Refusal) as refusal:
            store_it()
        refusals.append(str(refusal.value))

    assert refusals == [
        f"s3://fly/nightly accepted name, {said}: correct AWS_ENDPOINT_URL, or the service there."
    ] * 2  # fmt: skip


@pytest.mark.parametrize("endpoint", ["page"], indirect=True)
def test_an_html_page_is_not_an_empty_bucket(endpoint):
    with pytest.raises(Refusal) as refusal:
        store_at("s3://fly/nightly").names()

    assert str(refusal.value) == (
        "s3://fly/nightly answered with something other than a list of files: correct AWS_ENDPOINT_URL."
    )


@pytest.mark.parametrize("endpoint", ["drips"], indirect=True)
def test_a_page_waits_for_a_bucket_that_sends_byte_by_byte_only_so_long(endpoint, monkeypatch):
    """A timeout of the socket begins again with each byte."""
    monkeypatch.setattr(store, "LONGEST", 0.5)
    bucket = store_at("s3://fly/nightly", hurried=True)

    refusals = []
    for ask in (bucket.names, partial(bucket.read, "name")):  # The second waits for the first, which is still being answered.
        with pytest.raises(Unreachable) as refusal:
            ask()
        refusals.append(str(refusal.value))

    assert refusals == ["s3://fly/nightly has not answered within 0.5 s: correct BACKUP_LOCATION and the AWS variables."] * 2
    with store.answering:  # The tests that follow need it.
        pass


def test_a_page_waits_for_a_mount_that_hangs_only_so_long(tmp_path, monkeypatch):
    """Opening a named pipe without a writer blocks, like reading a file from an NFS server that does not respond."""
    monkeypatch.setattr(store, "LONGEST", 0.3)
    os.mkfifo(tmp_path / "name")

    with pytest.raises(Unreachable) as refusal:
        store_at(str(tmp_path), hurried=True).read("name")
    (tmp_path / "name").write_bytes(b"")  # It ends the wait.
    with store.answering:
        pass

    assert str(refusal.value) == (
        f"{tmp_path} has not answered within 0.3 s: repair the disk or its mount, or correct BACKUP_LOCATION."
    )


def test_the_password_of_an_endpoint_is_not_printed(monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": "http://user:TOPSECRET@127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(Refusal) as refusal:
        store_at("s3://fly/nightly", hurried=True).names()

    assert str(refusal.value) == (
        's3://fly/nightly cannot be reached (Could not connect to the endpoint URL: "http://********@127.0.0.1:1/fly?list-type=2&prefix=nightly%2F&encoding-type=url"):'
        " correct BACKUP_LOCATION and the AWS variables."
    )


def test_a_place_with_a_password_is_refused_without_it():
    with pytest.raises(Refusal) as refusal:
        store_at("s3://key:TOPSECRET@fly/nightly")

    assert str(refusal.value) == (
        "BACKUP_LOCATION has a user or a password before @: write s3://bucket/folder, and the key to AWS_ACCESS_KEY_ID."
    )


@pytest.mark.parametrize("endpoint", ["alters"], indirect=True)
def test_rows_whose_archive_cannot_be_read_back_are_not_removed(endpoint, migrated, monkeypatch, tmp_path):
    put(migrated, "price_history", "stays", CASES["price_history"][0])
    monkeypatch.setattr("fly2any.database.retention.archive.Archives.settle", lambda *arguments: None)  # It lists the bucket.

    with pytest.raises(Refusal, match=r"price_history-.*\.zip is damaged \(its SHA-256 differs\): use another\.$"):
        swept(migrated, "price_history", "s3://fly/archive")

    assert migrated.execute("SELECT id FROM price_history") == [("stays",)]


LISTED = b"""<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>fly</Name><IsTruncated>false</IsTruncated>%s</ListBucketResult>"""
A_FILE = "<Contents><Key>%s</Key><Size>9</Size></Contents>"


class Silent(BaseHTTPRequestHandler):
    """Lists two backups, where it `lists`, and answers no other request until it is told to end."""

    def __init__(self, *arguments, names, ended, asked):
        self.names, self.ended, self.asked = names, ended, asked
        super().__init__(*arguments)

    def do_GET(self):
        self.asked.append(self.path)
        if self.names and "list-type" in self.path:
            content = LISTED % "".join(A_FILE % name for name in self.names).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            self.ended.wait(60)

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("lists", [False, True])
def test_a_report_asks_a_silent_bucket_once(lists, migrated, monkeypatch, settings):
    ended, asked = threading.Event(), []
    names = [f"{migrated.name}-2026050{day}T000000Z.json" for day in (1, 2)] if lists else []
    monkeypatch.setitem(store.HURRIED, "read_timeout", 0.5)
    settings.BACKUPS = {**settings.BACKUPS, "location": "s3://fly", "expected": True}
    with serving(partial(Silent, names=names, ended=ended, asked=asked), monkeypatch), django(migrated) as connection:
        state = read_newest(connection)
        ended.set()

    assert (state.newest, state.good, len(asked)) == (None, None, 1 + lists)
    assert state.trouble.startswith("s3://fly")
    assert "cannot be reached (Read timeout on endpoint URL" in state.trouble


@pytest.fixture
def bucket():
    moto = pytest.importorskip("moto.server", reason="moto is not installed: make check installs it")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    import boto3

    access = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-9f3a",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    access["AWS_DEFAULT_REGION"] = "us-east-1"
    boto3.client(
        "s3",
        endpoint_url=access["AWS_ENDPOINT_URL"],
        aws_access_key_id="key",
        aws_secret_access_key="secret-9f3a",
        region_name="us-east-1",
    ).create_bucket(Bucket="fly2any")
    yield access
    server.stop()


@pytest.mark.slow
def test_backups_in_a_bucket_are_taken_verified_listed_and_restored(filled, bucket):
    place = "s3://fly2any/nightly"
    held = rows(filled)

    taken = run(filled, "dbbackup", "--verify", place=place, **bucket)
    status = run(filled, "dbstatus", place=place, **bucket)
    filled.execute("DELETE FROM users")
    restored = run(filled, "dbrestore", "latest", "--yes", place=place, **bucket)
    listed = run(filled, "dbbackup", "--list", "--format", "json", place=place, **bucket)
    after = run(filled, "dbstatus", place=place, **bucket)
    nowhere = run(filled, "dbbackup", "--list", place="s3://another", **bucket)

    assert [answer.returncode for answer in (taken, restored, listed, status)] == [0, 0, 0, 0], taken.stderr + restored.stderr
    assert rows(filled) == held
    assert [entry["state"] for entry in json.loads(listed.stdout)["backups"]] == ["good"]
    assert "  verified  " in status.stdout
    assert re.findall(r"WARNING (backup\.\w+)", after.stdout) == ["backup.none"]
    assert (
        nowhere.returncode,
        "s3://another refused the request (NoSuchBucket): correct BACKUP_LOCATION" in nowhere.stderr,
    ) == (2, True)
    assert "secret-9f3a" not in "".join(answer.stdout + answer.stderr for answer in (taken, restored, listed, status, nowhere))
    for name in databases(filled):
        if name.startswith(f"{filled.name}_before_"):
            filled.execute(f'DROP DATABASE "{name}"')
