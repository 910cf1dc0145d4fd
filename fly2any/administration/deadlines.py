"""Deadlines of the admin's statements: each is limited, and a page that only reads is in a read-only transaction.

`limited` is a middleware, and `in_time` wraps each page. `AdminSite.too_slow` (site.py) answers instead of a page of which a
statement takes longer, or waits too long for a lock. The sum of a page's statements is not limited.
The access records of a page are written here, before it responds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connections, transaction
from django.http import HttpResponse
from psycopg import ServerCursor
from psycopg.errors import LockNotAvailable, QueryCanceled
from psycopg.pq import TransactionStatus

from fly2any.postgres.response_timeout import at_most

from . import replica
from .accesses import record

STATEMENT = 2_000  # Milliseconds: no statement of a page that reads may take longer.
WRITING = 60_000  # For a page that writes: a deletion also deletes dependent rows.
LOCK = 5_000  # Milliseconds that a page which writes waits for a lock: a page that waits holds locks too.
GRACE = 4  # Additional seconds, after which the connection to an unresponsive server is closed.
EXTRA = 400  # Milliseconds for an optional figure.


class TooSlow(Exception):  # noqa: N818  Nothing is broken: the answer would come too late.
    """A figure took too long; the page shows that it was not computed."""


def is_timeout(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.__cause__, QueryCanceled)


def is_locked_out(error: BaseException | None) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.__cause__, LockNotAvailable)


def limits(statement: int, lock: int | None = None) -> str:
    """Return the statements that limit a transaction, in milliseconds; by default, a lock may take three quarters of a statement's time.

    It must take less: PostgreSQL would report that the statement took too long, not that it waited for a lock.
    """
    return f"SET LOCAL statement_timeout = {statement}; SET LOCAL lock_timeout = {lock or statement * 3 // 4}"


def hurry() -> None:
    """Limit the rest of a transaction that writes as one that only reads, because others wait for its end."""
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(limits(STATEMENT))


def limited(get_response):
    """Limit each statement of a request to STATEMENT from the first on, including those that read its session and user."""

    def respond(request):
        with ExitStack() as stack:
            stack.enter_context(at_most(STATEMENT / 1000 + GRACE))
            for alias in connections:
                stack.enter_context(connections[alias].execute_wrapper(_limit))
                stack.enter_context(_limited_from_the_first(connections[alias]))
            return get_response(request)

    return respond


@contextmanager
def _limited_from_the_first(connection: Any) -> Iterator[None]:
    """Also limit transactions whose first statement sets their search path.

    postgres/base.py executes that statement, with this limit, before `_limit` runs.
    """
    connection.transaction_limit = limits(STATEMENT)
    try:
        yield
    finally:
        del connection.transaction_limit


@contextmanager
def writing_limit() -> Iterator[None]:
    """Limit the transactions that begin inside as those of a page that writes. No transaction may be open."""
    connection: Any = connections[DEFAULT_DB_ALIAS]
    before = connection.transaction_limit
    connection.transaction_limit = limits(WRITING, LOCK)
    try:
        with at_most(WRITING / 1000 + GRACE):
            yield
    finally:
        connection.transaction_limit = before


def _limit(execute, sql, parameters, many, context):
    """Execute a statement, with a limit for its transaction if it begins one.

    The limit is in the same message, which PostgreSQL takes for one transaction: it costs no round trip, and a pooler's next
    client does not get it.
    """
    cursor = context["cursor"]
    begins = context["connection"].connection.info.transaction_status == TransactionStatus.IDLE
    if not begins or many or not isinstance(sql, str) or isinstance(cursor.cursor, ServerCursor):
        return execute(sql, parameters, many, context)
    limit = context["connection"].transaction_limit
    result = execute(f"{limit}; {sql}", parameters, many, context)
    for _ in limit.split(";"):
        cursor.nextset()  # Skip the result of SET.
    return result


def in_time(view: Callable[..., HttpResponse], too_slow: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Return `view` in a transaction, rendered in it and read-only for all but POST; past its deadline `too_slow` answers instead.

    It gets whether the page waited for a lock. That of a page which writes is a refusal, which `report_refusals` (site.py) reports.
    """

    @wraps(view)
    def timed(request, *args, **kwargs):
        source = replica.source_of(request)
        try:
            try:
                return answer(request, source, *args, **kwargs)
            except replica.Missing:
                source = replica.PRIMARY
            except DatabaseError as error:
                if source.alias != replica.REPLICA or is_late(error):
                    raise
                source = replica.failed(error)
            request.__dict__.pop("accesses", None)
            return answer(request, source, *args, **kwargs)
        except (OperationalError, TooSlow) as error:
            locked_out = is_locked_out(error) and request.method != "POST"
            if not (isinstance(error, TooSlow) or is_timeout(error) or locked_out):
                raise
            return too_slow(request, locked=locked_out or is_locked_out(error.__cause__))

    def answer(request, source, *args, **kwargs):
        request.source = source
        writes = request.method == "POST"  # Django's pages treat every other method as GET.
        patience = at_most(WRITING / 1000 + GRACE) if writes else nullcontext()
        with patience, replica.reading_from(source), transaction.atomic(using=source.alias):
            with replica.current().cursor() as cursor:
                cursor.execute(limits(WRITING, LOCK) if writes else f"SET TRANSACTION READ ONLY; {limits(STATEMENT)}")
            response: Any = view(request, *args, **kwargs)
            if hasattr(response, "render") and not response.is_rendered:
                response.render()
            if writes:
                record(request)  # Here, so that a page which cannot be recorded changes nothing.
        if writes:
            replica.remember_writing(request)
        else:
            record(request)
        return response

    return timed


def is_late(error: BaseException) -> bool:
    """Return whether a statement took too long, or waited too long for a lock."""
    return is_timeout(error) or is_locked_out(error)


@contextmanager
def within(milliseconds: int = EXTRA) -> Iterator[None]:
    """Limit each statement in the block, which only reads, to `milliseconds`, then raise TooSlow; the page can continue.

    A statement that waits too long for a lock raises TooSlow too.

    Outside a transaction there is no deadline to tighten, and it does nothing.
    """
    connection = replica.current()
    if not connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(f"SAVEPOINT extra; {limits(milliseconds)}")
        try:
            yield
        except OperationalError as error:
            if not is_late(error):
                raise
            raise TooSlow from error
        finally:
            if not cursor.connection.closed:
                _return(cursor)


def _return(cursor: Any) -> None:
    """Return to the savepoint, which also restores the deadline.

    A timeout that fires as a statement ends is PostgreSQL's response to the next one, which is then not executed.
    """
    back = "ROLLBACK TO SAVEPOINT extra; RELEASE SAVEPOINT extra"
    try:
        cursor.execute(back)
    except OperationalError as error:
        if not is_late(error):
            raise
        cursor.execute(back)
