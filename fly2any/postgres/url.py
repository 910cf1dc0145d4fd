"""POSTGRES_URL, with its ?schema= and other parameters → an entry of Django's DATABASES."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from psycopg import pq

from . import embedded, search_path
from .pooler import NEON, pooler_of

SCHEMES = ("postgresql", "postgres")
EXAMPLE = "postgresql://user:password@host:5432/database?sslmode=require"
ESCAPES = "in the user and the password write % / @ : # ? [ ] as %25 %2F %40 %3A %23 %3F %5B %5D"
LONGEST_NAME = 63  # Bytes.
CONNECT_TIMEOUT = 10  # Seconds; by default, libpq waits forever.
# A connection whose host or network is gone is closed after 90 s of silence; the system's own limit is two hours. tcp_user_timeout
# would also end a connection to a server that exists but does not read: a paused virtual machine, a stalled disk.
ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6}

# Parameters of Prisma, of node-postgres and of the providers that say nothing to libpq: about pools, prepared statements and proxies.
NOT_LIBPQ = frozenset(
    [
        "connection_limit",
        "max_connection_lifetime",
        "max_idle_connection_lifetime",
        "pgbouncer",
        "pool_timeout",
        "statement_cache_size",
        "socket_timeout",
        "ssl",
        "single_use_connections",
        "sslaccept",
        "sslidentity",
        "supa",
        "uselibpqcompat",
        "workaround",
    ]
)
PLACE = {
    "host": "HOST",
    "port": "PORT",
    "user": "USER",
    "password": "PASSWORD",
    "dbname": "NAME",
}  # In the query string they take precedence, as in libpq.
POOL = {"connection_limit": "max_size", "pool_timeout": "timeout"}  # Parameters of Prisma's pool, and their names in psycopg's.
NOT_HERE = frozenset(
    ["service", "replication", "client_encoding"]
)  # They would lead to another server, or to something Django cannot use.
LIBPQ = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults()) - PLACE.keys() - NOT_HERE

# libpq's own variables that decide which database a connection reaches, and in which state and with which settings, where the URL does
# not say.
LIBPQS_PLACE = (
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGOPTIONS", "PGSERVICE", "PGTARGETSESSIONATTRS"),
    *("PGTZ", "PGDATESTYLE", "PGGEQO"),
)


class InvalidURL(ImproperlyConfigured):
    """A database URL that cannot be used; the message never contains the password."""


def parse(url: str, *, variable: str = "POSTGRES_URL") -> dict[str, Any]:
    """Return the DATABASES entry of a URL as Prisma and the providers write it.

    Raises InvalidURL, its message naming `variable`, for what cannot be used.
    """
    parts, port = _split(url.strip(), variable)
    place, query = _place(parts, port, variable)
    parameters = dict(query)
    options = _encryption(_options(query, variable), parameters, local=is_local(place["HOST"]))
    _require_one_database(place, variable, has_host=bool(parts.netloc))
    pooler = pooler_of(place["HOST"], place["PORT"], parameters)
    return {
        "ENGINE": "fly2any.postgres",
        **place,
        "OPTIONS": {"connect_timeout": CONNECT_TIMEOUT, "application_name": "fly2any", **ALIVE, **options},
        # Behind a transaction pooler, a server-side cursor may be on another server connection.
        "DISABLE_SERVER_SIDE_CURSORS": bool(pooler),
        "POOLER": pooler,
        "POOL": {
            name: _number(parameters[word], word, variable) for word, name in POOL.items() if parameters.get(word, "0") != "0"
        },
        "VARIABLE": variable,
    }


def _split(url: str, variable: str) -> tuple[SplitResult, int | None]:
    """Return the parts of a URL as they are written, and its port; raise InvalidURL if it is not one of PostgreSQL's."""
    if not url.isprintable():
        raise InvalidURL(f"{variable} is malformed (it has a character that cannot be printed): write it as {EXAMPLE}.")
    try:
        parts = urlsplit(url)
        if "," in parts.netloc.rpartition("@")[2]:
            raise InvalidURL(f"{variable} names several hosts: give the one that takes writes.")
        port = parts.port
    except ValueError as error:
        raise InvalidURL(f"{variable} is malformed ({_reason(error, url)}): write it as {EXAMPLE}; {ESCAPES}.") from None
    if parts.scheme not in SCHEMES:
        raise InvalidURL(_wrong_scheme(parts.scheme, variable))
    if "@" in parts.query:  # A ? in the password: the rest of the password would be the query string.
        raise InvalidURL(f"{variable} is malformed (it has one ? or @ too many): {ESCAPES}.")
    if parts.fragment or "#" in url:
        raise InvalidURL(f"{variable} is malformed (it contains #): {ESCAPES}.")
    return parts, port


def _place(parts: SplitResult, port: int | None, variable: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return which database the parts of a URL name, as DATABASES has it, and the parameters of its query, all decoded."""
    try:
        if not parts.netloc.rpartition("@")[2].startswith("["):
            _decode(_host(parts.netloc)).encode("idna")  # Raises UnicodeError for an impossible host name.
        user, password = _decode(parts.username or ""), _decode(parts.password or "")
        host, name = _decode(_host(parts.netloc)), _decode(parts.path.lstrip("/"))
        given = "&".join(filter(None, parts.query.split("&")))  # A superfluous & is ignored.
        query = parse_qsl(given, keep_blank_values=True, strict_parsing=bool(given), errors="strict")
    except UnicodeError:
        raise InvalidURL(
            f"{variable} is malformed (its host, or an escape, is not well-formed): write it as {EXAMPLE}."
        ) from None
    except ValueError:
        raise InvalidURL(f"{variable} is malformed (a % or a parameter in it is not well-formed): {ESCAPES}.") from None
    if "/" in name or "@" in name or "@" in host:
        raise InvalidURL(f"{variable} is malformed (it has one / or @ too many): {ESCAPES}.")
    if any("\0" in text for text in (user, password, host, name, *(value for pair in query for value in pair))):
        raise InvalidURL(f"{variable} is malformed (it contains a zero byte): write it as {EXAMPLE}.")
    place = {"NAME": name, "USER": user, "PASSWORD": password, "HOST": host, "PORT": str(port or "")}
    return place | {PLACE[key]: value for key, value in query if key in PLACE}, query


def _require_one_database(place: dict[str, str], variable: str, *, has_host: bool) -> None:
    """Raise InvalidURL if a place is not one database of one server."""
    if not place["NAME"]:
        raise InvalidURL(f"{variable} names no database: write it as {EXAMPLE}.")
    if len(place["NAME"].encode()) > LONGEST_NAME:
        raise InvalidURL(
            f"{variable} names a database of more than {LONGEST_NAME} bytes, which PostgreSQL cannot have: correct its name."
        )
    if has_host and not place["HOST"]:
        raise InvalidURL(f"{variable} names no host: write it as {EXAMPLE}.")
    if "," in place["HOST"]:
        raise InvalidURL(f"{variable} names several hosts: give the one that takes writes.")


def embedded_database(home: Path, **settings: str) -> dict[str, Any]:
    """Return the DATABASES entry of the embedded server in the folder `home`, with `settings` of postgresql.conf."""
    home = home.resolve()
    return {
        "ENGINE": "fly2any.postgres",
        "NAME": "fly2any",
        "USER": embedded.SUPERUSER,
        "HOST": str(embedded.socket_folder(home)),
        "OPTIONS": {"connect_timeout": CONNECT_TIMEOUT, "application_name": "fly2any"},
        "EMBEDDED": {"HOME": home, "NAME": "fly2any", "SETTINGS": settings},
    }


def is_same_database(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two DATABASES entries name one database of one server, directly, through its pooler or by a second route of its provider."""
    if one["NAME"] != other["NAME"]:
        return False
    if _server(one) == _server(other):
        return True
    pooled = bool(one["POOLER"] or other["POOLER"])  # PgBouncer beside the server: another port, the same user.
    return pooled and all(one[key] == other[key] for key in ("HOST", "USER", "PASSWORD"))


def _server(database: dict[str, Any]) -> tuple[str, ...]:
    """Return what all routes to a server have in common."""
    host, user = database["HOST"].lower(), database["USER"]
    first, _, rest = host.partition(".")
    if host.endswith(".pooler.supabase.com"):
        return "supabase", user.partition(".")[2]
    if match := re.fullmatch(r"db\.(\w+)\.supabase\.co", host):
        return "supabase", match[1]
    if host.endswith(
        (".railway.internal", ".rlwy.net")
    ):  # Railway's internal and public addresses: neither host nor port identifies the server.
        return "railway", user, database["PASSWORD"]
    if host.endswith(NEON):
        return f"{first.removesuffix('-pooler')}.{rest}", database["PORT"] or "5432"
    return "localhost" if host in ("127.0.0.1", "::1") else host, database["PORT"] or "5432"


def is_local(host: str) -> bool:
    """Return whether `host`, as DATABASES has it, is this machine: a socket, localhost or a loopback address."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(netloc: str) -> str:
    """Return the host of a netloc as written: urlsplit would lowercase it, but a socket's folder is case-sensitive."""
    host = netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _decode(text: str) -> str:
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a % that escapes nothing")
    return unquote(text, errors="strict")


def _encryption(options: dict[str, str], parameters: dict[str, str], *, local: bool) -> dict[str, str]:
    """Return libpq's options with the parameters of node-postgres and Prisma for encryption translated; a remote server gets it."""
    options = dict(options)
    if parameters.get("ssl") == "true":
        options.setdefault("sslmode", "require")
    if options.get("sslmode") == "no-verify":  # node-postgres' parameter.
        options["sslmode"] = "require"
    # Alone, it is Prisma's name for the server's certificate authority.
    if "sslcert" in options and options.keys().isdisjoint(["sslkey", "sslrootcert"]):
        options["sslrootcert"] = options.pop("sslcert")
    if not local:
        options.setdefault("sslmode", "require")
    if parameters.get("sslaccept") == "strict":  # Prisma's name for a certificate signed by this machine's authorities.
        options = {"sslrootcert": "system", **options, "sslmode": "verify-full"}
    return options


def _options(query: list[tuple[str, str]], variable: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in query:
        if name in PLACE:
            continue
        if name == "schema":
            options["options"] = f"{options.get('options', '')} {search_path.option(value)}".strip()
        elif name == "options":
            options["options"] = f"{value} {options.get('options', '')}".strip()
        elif name in LIBPQ:
            options[name] = value
        elif name not in NOT_LIBPQ:
            raise InvalidURL(f"{variable} has the parameter {name!r}, which is not accepted here: correct or remove it.")
    return options


def _number(value: str, name: str, variable: str) -> int:
    if not value.isdecimal() or not 0 < int(value) <= 10_000:
        raise InvalidURL(f"{variable} has {name}={value[:20]}, which is not a number from 1 to 10000: correct or remove it.")
    return int(value)


def _wrong_scheme(scheme: str, variable: str) -> str:
    if scheme in ("prisma", "prisma+postgres"):
        return f"{variable} is a URL of Prisma Accelerate, which only Prisma's client can use: give the database's own {SCHEMES[0]}:// URL."
    if not scheme:
        return f"{variable} has no scheme: write it as {EXAMPLE}."
    return f"{variable} has the scheme {scheme!r}, but this project runs on PostgreSQL only: write it as {EXAMPLE}."


def _reason(error: ValueError, url: str) -> str:
    """Return urlsplit's reason without the part of the URL that it quotes, which may hold the password."""
    if re.search(r"[\[\]]", url.partition("//")[2].rpartition("@")[0]):
        return "its user or password contains [ or ]"
    return "its port is not a number from 0 to 65535" if "ort" in str(error) else "its host is not well-formed"
