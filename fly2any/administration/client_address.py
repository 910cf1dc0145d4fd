"""The address that a request comes from, and the network and the user name by which failed sign-ins are counted.

settings.py has the limit of failures (AXES_FAILURE_LIMIT, AXES_COOLOFF_TIME), and backends.py the turns of sign-ins.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.http import HttpRequest

# Guesses of these are counted apart from those of the password, under the user name followed by one of these.
CODE, OLD_PASSWORD = " (code)", " (old password)"


def address_of(request: HttpRequest) -> str | None:
    """Return the address that a request came from; behind a proxy that is trusted, the one that the proxy saw."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2] if settings.TRUST_PROXY else ""
    for text in (forwarded, forwarded.rpartition(":")[0], request.META.get("REMOTE_ADDR", "")):  # Some proxies add a port.
        with suppress(ValueError):
            address = ip_address(text.strip().strip("[]"))
            return str(
                getattr(address, "ipv4_mapped", None) or address
            )  # The form in which a dual-stack socket reports IPv4 addresses.
    return None


def network_of(request: HttpRequest) -> str | None:
    """Return the address under which guesses are counted: for IPv6 the /64, which belongs to one subscriber."""
    address = address_of(request)
    if address is None or ":" not in address:
        return address
    return str(ip_network((address, 64), strict=False).network_address)
