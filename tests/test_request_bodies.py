"""Request bodies: one that is too large, contains a file or is in another encoding is refused without being read."""

import asyncio
import encodings
import io

import pytest
from django.test import RequestFactory

from fly2any import request_handlers

MB = 1024 * 1024


class Unread(io.BytesIO):
    """A body that must not be read."""

    def read(self, *_):
        raise AssertionError("it was read")


def answer(body=b"", *, method="POST", path="/admin/login/", **environ):
    """Return the status and text of the application's response, called as a server would."""
    environ = RequestFactory().generic(method, path, body).environ | environ
    said = []
    text = b"".join(request_handlers.WSGIHandler()(environ, lambda status, headers: said.append(int(status[:3])))).decode()
    return said[0], text


FILE = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nabc\r\n--B--\r\n'
FIELD = b'--B\r\nContent-Disposition: form-data; name="f"%s\r\n\r\nabc\r\n--B--\r\n'
TAKEN = 403  # By the CSRF check, because there is no cookie.
MULTIPART = "multipart/form-data; boundary=B"


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/admin/login/", "/admin/", "/nope/", "/admin/second-factor/passkey/registration/begin/"])
def test_a_body_too_large_is_a_sentence_on_every_page_and_is_not_read(path):
    environ = {"CONTENT_LENGTH": "2621441", "CONTENT_TYPE": MULTIPART, "wsgi.input": Unread()}

    assert answer(path=path, **environ) == (413, request_handlers.TOO_LARGE)


@pytest.mark.django_db
@pytest.mark.parametrize("length", ["9" * 5000, "²", "-1", "1, 1"])
def test_a_length_that_is_not_a_number_is_refused_like_one_too_large(length):
    assert answer(CONTENT_LENGTH=length) == (413, request_handlers.TOO_LARGE)


@pytest.mark.django_db
def test_a_file_is_refused_and_a_form_of_the_same_kind_is_not():
    assert answer(FILE, CONTENT_TYPE=MULTIPART) == (
        413,
        "The admin does not accept file uploads. Send the form without a file.\n",
    )
    assert answer(FIELD % b"", CONTENT_TYPE=MULTIPART)[0] == TAKEN
    assert answer(FIELD % b'; filename=""', CONTENT_TYPE=MULTIPART)[0] == TAKEN


CHARSETS = [
    "text/plain; charset=hex", "text/plain; charset=rot13", "text/plain; charset=zip", "text/plain; charset=undefined", "text/plain; charset=nope",
    "text/plain; charset=", "text/plain; charset=utf-7", "text/plain; charset*=hex''%41", "text/plain; charset*=nope''%41", "text/plain; boundary*=nope''a",
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("charset", CHARSETS)
def test_a_charset_other_than_utf_8_is_refused_in_one_sentence(method, charset):
    for path in ("/admin/login/?next=%41", "/nope/"):
        assert answer(method=method, path=path, CONTENT_TYPE=charset) == (
            400,
            "The request is not encoded in UTF-8. Send it as UTF-8.\n",
        )
    assert answer(method="GET", path="/health/live", CONTENT_TYPE=charset)[0] == 200


@pytest.mark.django_db
@pytest.mark.parametrize("odd", [b"; filename*=hex''%41", b"; filename*=nope''a", b"; x*=rot13''%41"])
def test_a_form_part_that_cannot_be_decoded_is_a_400(odd):
    assert answer(FIELD % odd, CONTENT_TYPE=MULTIPART)[0] in (TAKEN, 400, 413)


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "u8", '"utf-8"'])
@pytest.mark.django_db
def test_a_utf_8_name_is_accepted(name):
    assert answer(b"a=b", CONTENT_TYPE=f"application/x-www-form-urlencoded; charset={name}")[0] == TAKEN


def ask_asgi(*bodies, headers=()):
    """Return the statuses that the ASGI application sends for a request that comes in these pieces."""
    messages = [{"type": "http.request", "body": body, "more_body": n < len(bodies)} for n, body in enumerate(bodies, 1)]
    sent = []

    async def receive():
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/nope/", "query_string": b"", "headers": [(b"host", b"localhost"), *headers],
        "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(request_handlers.ASGIHandler()(scope, receive, send))
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def test_under_asgi_a_large_body_is_not_kept_either():
    piece = b"a" * MB

    assert ask_asgi(piece, headers=[(b"content-length", str(600 * MB).encode())]) == [413]
    assert ask_asgi(b"a", headers=[(b"content-length", b"1")] * 2) == [413]  # Repeated, as under WSGI.
    assert ask_asgi(*[piece] * 3) == []  # Without a Content-Length, the body is ended.
    assert ask_asgi(b"a=b", headers=[(b"content-type", b"text/plain; charset=hex")]) == [400]


@pytest.mark.parametrize(
    "header",
    ["text/plain; charset={}", "multipart/form-data; boundary=b; a*={}''%41"],
)
def test_names_of_encodings_that_clients_invent_are_not_remembered(header):
    before = len(encodings._cache)
    for number in range(50):
        answer(CONTENT_TYPE=header.format(f"x{number}{'y' * 100}"))
    assert len(encodings._cache) - before < 10
