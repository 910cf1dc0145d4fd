"""Django's handlers and requests, hardened where a client could cause an error or fill the disk before any middleware runs."""

from __future__ import annotations

import encodings
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.handlers import asgi, wsgi
from django.http import HttpResponse

from fly2any.content_length import body_length

TOO_LARGE = "The request exceeds the limit of 2.5 MB. Send a smaller one.\n"


class FoundEncodings(dict[str, Any]):
    """The encodings that Python has looked up, without the names that it did not find: clients may send any number of these."""

    def __setitem__(self, name: str, found: Any) -> None:
        if found is not None:
            super().__setitem__(name, found)


encodings._cache = FoundEncodings(encodings._cache)


class AnyContentType:
    """A request whose Content-Type cannot be read: `plain_requests` refuses it for the charset, which is no encoding of text."""

    content_type: str | None
    content_params: dict[str, str] | None

    def _set_content_type_params(self, meta):
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
        except (LookupError, ValueError, BadRequest):  # The last from Django 6.1 on.
            self.content_type, self.content_params, self._encoding = "", {"charset": ""}, None


class WSGIRequest(AnyContentType, wsgi.WSGIRequest):
    pass


class WSGIHandler(wsgi.WSGIHandler):
    request_class = WSGIRequest


class ASGIRequest(AnyContentType, asgi.ASGIRequest):
    pass


class ASGIHandler(asgi.ASGIHandler):
    """Django's handler, which would write a body of any size to the disk before any check."""

    request_class = ASGIRequest

    async def handle(self, scope, receive, send):
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if body_length(lengths, largest=settings.DATA_UPLOAD_MAX_MEMORY_SIZE) is None:
            await self.send_response(HttpResponse(TOO_LARGE, status=413, content_type="text/plain"), send)
            return
        await super().handle(scope, receive, send)

    async def read_body(self, receive):
        size = 0

        async def receive_so_much():
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message if size <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE else {"type": "http.disconnect"}

        return await super().read_body(receive_so_much)
