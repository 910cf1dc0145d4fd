"""What no browser sends is refused before anything reads it."""

import codecs

from django.http import HttpResponseBadRequest


def plain_requests(get_response):
    """Refuse a request that is in another encoding than UTF-8, or has a NUL in a header.

    Django decodes an address and a form as the request says, which yields text that no table takes: a failed sign-in with such
    text would be counted nowhere.
    """

    def respond(request):
        if codecs.lookup(request.encoding or "utf-8").name != "utf-8":
            return HttpResponseBadRequest("The request is not in UTF-8: send it so.", content_type="text/plain")
        if any("\0" in value for name, value in request.META.items() if name.startswith("HTTP_")):
            return HttpResponseBadRequest("A header has a character that no text has.", content_type="text/plain")
        return get_response(request)

    return respond
