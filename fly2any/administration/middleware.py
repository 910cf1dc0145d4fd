"""Refuses requests that no browser sends, before any other code reads them; settings.py lists the other middlewares."""

import codecs

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpResponse

from fly2any.content_length import body_length
from fly2any.request_handlers import TOO_LARGE


class FileRefused(Exception):  # noqa: N818  Nothing is broken: the admin has no field for a file.
    """A form contains a file."""


class NoUploads(FileUploadHandler):
    """Refuse a file before any byte of it is stored."""

    def new_file(self, *args, **kwargs):
        raise FileRefused

    def receive_data_chunk(self, raw_data, start):
        raise FileRefused

    def file_complete(self, file_size):
        raise FileRefused


def plain_requests(get_response):
    """Refuse a request that is too large, has a file, is in another encoding than UTF-8, or has a NUL in a header.

    Django decodes a URL and a form in the encoding that the request names, which can yield text that no table accepts: a failed
    sign-in with such text would not be counted.
    """

    def respond(request):
        return refusal(request) or get_response(request)

    return respond


def refusal(request) -> HttpResponse | None:
    """Return the response to a request that is refused, None for any other."""
    if not is_utf8(request.content_params.get("charset", "utf-8")):
        return _refuse(400, "The request is not encoded in UTF-8. Send it as UTF-8.")
    if any("\0" in value for name, value in request.META.items() if name.startswith("HTTP_")):
        return _refuse(400, "A request header contains a NUL character.")
    if "HTTP_TRANSFER_ENCODING" in request.META:
        return _refuse(411, "The request has no Content-Length header. Add it.")
    length = request.META.get("CONTENT_LENGTH", "").encode()
    if body_length([length] if length else [], largest=settings.DATA_UPLOAD_MAX_MEMORY_SIZE) is None:
        return _refuse(413, TOO_LARGE)
    if request.content_type == "multipart/form-data":  # Read here: otherwise the CSRF check would respond first.
        try:
            _ = request.POST
        except FileRefused:
            return _refuse(413, "The admin does not accept file uploads. Send the form without a file.")
        except (LookupError, ValueError):
            return _refuse(400, "A part of the form cannot be read. Send it as a browser does.")
    return None


def is_utf8(charset: str) -> bool:
    """Return whether `charset` is a name of UTF-8; some codecs, such as hex, are not text encodings."""
    try:
        return codecs.lookup(charset).name == "utf-8"
    except (LookupError, ValueError):
        return False


def _refuse(status: int, sentence: str) -> HttpResponse:
    return HttpResponse(f"{sentence.rstrip()}\n", status=status, content_type="text/plain")
