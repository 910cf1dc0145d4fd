"""Explains an error in one sentence, with its cause and its cure.

fly2any/postgres/error_text.py has already cut a server's error to its message, without DETAIL, CONTEXT and the values that the
message quotes. logs.py uses `without_password` too, which removes passwords. exit_codes.py lists the exit codes.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, InterfaceError, OperationalError
from django.db.migrations.exceptions import (
    BadMigrationError,
    CircularDependencyError,
    InconsistentMigrationHistory,
    IrreversibleError,
    NodeNotFoundError,
)

from fly2any.postgres.embedded import EmbeddedServerError
from fly2any.postgres.search_path import SearchPathError

from .terminal_text import printable


class Refusal(Exception):  # noqa: N818  It says no; nothing is broken.
    """Something cannot be done: the message is one sentence for the user, with the cure."""


class Unfit(Refusal):
    """A backup or an archive cannot be used, because of its contents and not because of the tools or the server."""


NO_SCHEMA = "The search path names no schema that exists: correct ?schema= in POSTGRES_URL, or create the schema."


class Cause(NamedTuple):
    """SQLSTATEs, or a pattern in the text, by which an error is recognised, and its sentence; groups fill its {names}."""

    sqlstates: str  # separated by spaces
    pattern: str
    sentence: str


# A standby ends a statement, or a session in a transaction, that keeps it from replaying a lock or the removal of rows.
OF_STANDBYS = Cause("", r'due to conflict with recovery',
    "The standby stopped this command, because replaying the primary's changes could not wait any longer: on the standby, raise max_standby_streaming_delay"
    " and max_standby_archive_delay to more than the command takes, or run it on the primary.")  # fmt: skip
# Errors of connections: libpq gives no SQLSTATE if the connection itself fails, so these are recognised by their text.
OF_CONNECTIONS = (
    Cause("", r'FATAL: +(?P<reason>.*)\n(.*\n)*(CONTEXT: .*\n(.*\n)*?.*|CONTEXT: .*?)\b(PL/\w+|SQL) function (?P<function>[^(\n]+\([^)\n]*\)|"[^"\n]+")',
          "The function {function} of an event trigger ends each session when it begins ({reason}). Disable the trigger: connect as a superuser with psql"
          " and PGOPTIONS='-c event_triggers=off', list event triggers with \\dy, then ALTER EVENT TRIGGER … DISABLE."),
    Cause("", r'FATAL: +could not (access file|load library|find function \S+ in file) "(?P<file>[^"]*)"',
          'The server cannot load the library "{file}", which session_preload_libraries or local_preload_libraries names: install it there, or remove it from'
          " the setting: ALTER DATABASE … RESET session_preload_libraries in another database, ALTER ROLE … RESET, or the server's configuration file."),
    Cause("", r'connection to the remote node (\S*@)?(?P<node>\S+) failed',
          "The node {node} of Citus does not answer: start it, or repair its network (`manage.py dbstatus` shows the nodes)."),
    Cause("", r'password authentication failed for user "(?P<user>[^"]*)"',
          'The server refused the password of the user "{user}": correct the user and password in POSTGRES_URL.'),
    Cause("", r'no password supplied', "The server requires a password, but POSTGRES_URL has none: write it as postgresql://user:password@host/database."),
    Cause("", r'database "(?P<name>[^"]*)" does not exist',
          'The server has no database "{name}": create it (createdb {name}), or correct the name in POSTGRES_URL.'),
    Cause("", r'role "(?P<user>[^"]*)" does not exist',
          'The server has no role "{user}": create it, or correct the user in POSTGRES_URL.'),
    Cause("", r'role "(?P<user>[^"]*)" is not permitted to log in',
          'The role "{user}" may not log in: grant it LOGIN, or use another user in POSTGRES_URL.'),
    Cause("", r'(failed to resolve host|could not translate host name|Name or service not known|No address associated)',
          "The host{at} is unknown: correct its name in POSTGRES_URL, or check DNS."),
    Cause("", r'Connection refused',
          "Nothing listens{at}: start the server, or correct the host and port in POSTGRES_URL."),
    Cause("", r'(No such file or directory|socket directory)',
          "There is no server socket{at}: start the server, or correct the host in POSTGRES_URL."),
    Cause("", r'(timeout expired|timed out|Network is unreachable|No route to host|Host is unreachable)',
          "The server{at} did not answer in time: check that it is running and that no firewall blocks this machine's address."),
    Cause("", r'server does not support SSL',
          "The connection must be encrypted, but the server does not support TLS: turn on ssl on the server, or write sslmode=disable in POSTGRES_URL if the network is private."),
    Cause("", r'(SSL (connection )?(is )?required|SSL/TLS required|requires SSL|connection is insecure)',
          "The server accepts only encrypted connections: add ?sslmode=require to POSTGRES_URL."),
    Cause("", r'pg_hba.conf .*no encryption',
          "The server accepts this user from this machine only over TLS, or not at all: add ?sslmode=require to POSTGRES_URL, or a line to the server's pg_hba.conf."),
    Cause("", r'root certificate file "(?P<file>[^"]*)" does not exist',
          "The root certificate {file} does not exist: put it there, or set sslrootcert in POSTGRES_URL to its path."),
    Cause("", r'(certificate verify failed|server certificate for .* does not match)',
          "The server's certificate is not the one expected{at}: correct sslrootcert and the host name in POSTGRES_URL, and do not connect to a server without the right certificate."),
    Cause("", r'(no pg_hba.conf entry|pg_hba.conf rejects)',
          "The server does not accept this user from this machine: add a line to the server's pg_hba.conf."),
    Cause("", r'(too many clients already|remaining connection slots|too many connections for)',
          "The server has no connection slots left, or none for this role or database: end idle sessions, raise max_connections or the CONNECTION LIMIT of the role or database, or use a connection pooler."),
    Cause("", r"couldn't get a connection after (?P<after>[\d.]+) sec",
          "No connection was available within {after} s: the server{at} does not answer, or all DATABASE_POOL_MAX connections of this process are in use; if `manage.py dbstatus` works, it is the latter."),
    Cause("", r'the database system is (?P<state>starting up|shutting down|in recovery mode|not yet accepting connections)',
          "The server is {state}: try again in a moment (`dbstatus --wait 60` waits for it)."),
    Cause("", r'(?P<version>PostgreSQL \d+ or later) is required \(found (?P<found>[\d.]+)\)',
          "{version} is required, but this server is {found}: upgrade it."),
    Cause("", r'(server closed the connection unexpectedly|connection to server was lost|the connection is lost|SSL SYSCALL error)',
          "The connection was lost: the server stopped or restarted, or the network failed. Uncommitted changes are rolled back. If the answer to a COMMIT was lost, its changes may be stored: check before you try again."),
    Cause("", r'(invalid (?!input)[a-z_]+ value|invalid connection option|invalid integer value|bad value)',
          "A parameter of POSTGRES_URL has an invalid value ({line}): correct it."),
    Cause("", r'unsupported startup parameter',
          "A connection pooler{at} rejects the parameter options= (or schema=) of POSTGRES_URL: add pgbouncer=true (schema= is then only verified), and remove every other setting from options=."),
    Cause("", r'channel binding required',
          "POSTGRES_URL requires channel binding, which needs TLS: add sslmode=require, or remove channel_binding."),
    Cause("", r'received invalid response to (SSL|GSSAPI) negotiation',
          "The server{at} is not PostgreSQL: correct the host and port in POSTGRES_URL."),
    Cause("", r'permission denied for database "(?P<name>[^"]*)"',
          'The role may not connect to the database "{name}": grant it CONNECT on the database.'),
    Cause("", r'(unrecognized configuration parameter|invalid command-line argument|invalid value for parameter)',
          "PostgreSQL rejects the parameter options= (or schema=) of POSTGRES_URL ({line}): correct it."),
    Cause("", r'(definition of service|authentication method requirement|GSSAPI encryption required)',
          "A parameter of POSTGRES_URL needs something that does not exist ({line}): correct or remove it."),
)  # fmt: skip
OF_STATEMENTS = (
    OF_STANDBYS,
    Cause("", r'permission denied to create extension "(?P<name>[^"]*)"',
          'The role may not create the extension {name}: ask an administrator of the server to run CREATE EXTENSION "{name}" in this database, and run the command again.'),
    Cause("", r'permission denied to create temporary tables in database "(?P<name>.*)"$',
          'The role may not create temporary tables in the database "{name}": grant it TEMPORARY on the database, and run the command again.'),
    Cause("", r'(extension "(?P<name>[^"]*)" is not available|could not open extension control file)',
          "The server lacks an extension ({line}): install PostgreSQL's contrib package there, and run the command again."),
    Cause("", r'would be affected by row-level security', "Row-level security would hide rows ({line}): connect as a role with BYPASSRLS, or as the owner of the table if it has no FORCE ROW LEVEL SECURITY."),
    Cause("", r'violates row-level security policy', "Row-level security refuses this ({line}): add a policy that admits the role, or connect as a role with BYPASSRLS, or as the owner of the table if it has no FORCE ROW LEVEL SECURITY."),
    Cause("42501", "", "The role may not do this ({line}): connect as the owner of the tables, or grant it the privilege (for migrations, CREATE on the schema)."),
    Cause("25006", "", "The database is read-only (a standby, or default_transaction_read_only is on): set POSTGRES_URL to the primary, or turn the setting off."),
    Cause("55P03", "", "Another transaction holds a lock ({line}): try again when it has ended. pg_stat_activity shows sessions, and pg_prepared_xacts prepared transactions, which end only by COMMIT PREPARED or ROLLBACK PREPARED."),
    Cause("57014", "", "The statement was cancelled ({line}): if it exceeded a time limit, try again when the server is less busy."),
    Cause("40P01", "", "Two transactions deadlocked and this one was rolled back: try again."),
    Cause("42P07 42701 42710", "", "An object that a migration creates already exists ({line}): `manage.py dbstatus` shows it and the cure."),
    Cause("", r'violates unique constraint "django_migrations_pkey"', "The sequence of django_migrations returned a value that is in use ({line}): `manage.py dbstatus --sql` prints the cure."),
    Cause("42P01", "", "A table is missing ({line}): run `manage.py migrate`; if nothing is pending, run `manage.py dbstatus`."),
    Cause("42703", "", "A column is missing ({line}): run `manage.py migrate`; if nothing is pending, run `manage.py dbstatus`."),
    Cause("3F000", "", NO_SCHEMA),
    Cause("22P05", "", "The database's encoding cannot hold this ({line}): create the database with ENCODING 'UTF8'."),
    Cause("58P01", "", "The server lacks a file ({line}): if it is the library of an extension, install the package that contains it on the server (for pg_trgm, PostgreSQL's contrib package); if it is a file of the database, restore a backup."),
    Cause("53100", "", "The server's disk is full ({line}): free space there, and try again."),
    Cause("", r'out of shared memory', "The server's lock table is full, because many tables are locked at once: as a superuser, raise max_locks_per_transaction (ALTER SYSTEM SET …), and restart the server."),
    Cause("53300", "", "The server has no connection slots left, or none for this role or database: end idle sessions, raise max_connections or the CONNECTION LIMIT of the role or database, or use a connection pooler."),
    Cause("2BP01", "", "Another object depends on the dropped one ({line}): drop that object first, or ask its owner."),
    Cause("57P05", "", "The server ended the connection because it was idle for too long: raise idle_session_timeout, and try again."),
    Cause("25P03", "", "The server ended the connection because its transaction was idle for too long: raise idle_in_transaction_session_timeout, and try again."),
    Cause("25P04", "", "The server ended the transaction because it took too long: raise transaction_timeout, and try again."),
    Cause("57P01", "", "The server ended the connection: it was shut down or restarted, or the session was terminated. Uncommitted changes are rolled back. If the answer to a COMMIT was lost, its changes may be stored: check before you try again."),
)  # fmt: skip
CAUSES = (*OF_CONNECTIONS, *OF_STATEMENTS)
# SQLSTATE classes of an error that a statement meets because of its connection, for example to a pooler whose server does not answer.
CONNECTING = ("08", "28", "53", "57")

# The only functions of this project are temporary ones of dbseed: an error inside a function is that of other code, such as a trigger's.
# The function that a line of an error's context names. PostgreSQL translates the words and the quotes (lc_messages), but no name and none
# of the languages; of SQL, it names statements in the same way.
NAME = r'(?:"[^"\n]+"|[A-Za-z_][\w$]*)'
FUNCTION = re.compile(
    r'^[^\n("«»„“]*?(?:PL/[A-Za-z]+|SQL[- ]?[Ff]un[ck]\w+|SQL ?(?:関数|函数|함수)|(?:fonction|función|funzione|função|функция) SQL)[^\n("«»„“]*?'
    rf'(?:(?P<function>(?:{NAME}\.)?{NAME}\([^)\n]*\))|["«»„“]\s*(?P<quoted>[^\n"«»„“”]+?)\s*["«»“”])',
    re.MULTILINE,
)
FUNCTION_FAILED = (
    "The function {function} in the database failed ({line}): read its definition with \\sf {function} in `manage.py dbshell`, and ask its owner"
    " to correct it, or to drop what calls it, such as a trigger (DROP TRIGGER … ON …). `manage.py dbstatus` lists unmanaged objects."
)
# The context of a function in C does not name it.
UNNAMED_FUNCTION_FAILED = (
    "A function in the database failed ({line}): ask its owner to correct it, or to drop what calls it, such as a trigger"
    " (DROP TRIGGER … ON …). `manage.py dbstatus` lists unmanaged objects."
)
# SQLSTATE classes of errors that the server or another session causes, whichever code is running.
OUTSIDE = ("08", "25", "40", "53", "55", "57", "58")

LOST = ("", "08", "57")  # SQLSTATE classes that leave open whether a COMMIT succeeded.


def explain(error: BaseException) -> str | None:
    """Return the sentence for `error`, without any password, or None if `error` is a bug."""
    sentence = printable(text) if (text := _explain(error)) else text
    if not settings.configured or isinstance(error, Refusal | EmbeddedServerError | ImproperlyConfigured | SearchPathError):
        return sentence
    variables = (getattr(one, "database_variable", None) for one in _chain(error))
    variable = next(filter(None, variables), getattr(settings, "DATABASE_VARIABLE", "POSTGRES_URL"))
    return sentence and sentence.replace("POSTGRES_URL", variable)


def _explain(error: BaseException) -> str | None:
    if isinstance(error, Refusal | EmbeddedServerError | ImproperlyConfigured | SearchPathError):
        return str(error)
    if isinstance(error, InconsistentMigrationHistory):
        return f"{str(error).rstrip('.')}: make the rows of django_migrations match the migrations that ran; `manage.py dbstatus` prints the cure."
    if isinstance(error, IrreversibleError):
        return f"{str(error).rstrip('.')}: make it reversible (reverse_code of RunPython, reverse_sql of RunSQL), or restore a backup."
    if isinstance(error, BadMigrationError | CircularDependencyError | NodeNotFoundError):
        return f"{str(error).rstrip('.')}: correct the files of the migrations."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT):
        return f"The output could not be written ({error.strerror}): make room for it."
    if not isinstance(error, Error):
        return None
    text = without_password(str(error).strip())
    state = sqlstate(error)
    if state and state[:2] not in OUTSIDE and (sentence := _of_function(error)):
        return sentence.replace("{line}", first_line(text))
    # libpq's text about a failed connection has several lines, and no SQLSTATE; a server's error is recognised by its message alone.
    searched = first_line(text) if state else text
    for cause in OF_STATEMENTS if _is_of_statement(error) else CAUSES:
        match = re.search(cause.pattern, searched) if cause.pattern else None
        if match or (state and state in cause.sqlstates.split()):
            return cause.sentence.format(
                **{
                    "line": first_line(text),
                    "at": _place(text) or _configured_place(error),
                    **(match.groupdict() if match else {}),
                }
            )
    if not any(isinstance(one, psycopg.Error) for one in _chain(error)):
        return f"{text.splitlines()[0].rstrip('.') if text else 'No reason given'} ({type(error).__name__} of Django; --traceback shows where)."
    code = f", SQLSTATE {state}" if state else ""
    return f"The database refused ({type(error).__name__}{code}): {first_line(text)}{_hint(error)} (--traceback shows where)."


def _is_of_statement(error: BaseException) -> bool:
    """Return whether a statement failed, not the connection: the text of a server's message can look like that of libpq."""
    driver = next((one for one in _chain(error) if isinstance(one, psycopg.Error)), None)
    return bool(driver and driver.sqlstate and not driver.sqlstate.startswith(CONNECTING))


def _of_function(error: BaseException) -> str | None:
    """Return the sentence for an error inside a function, with {line} still in it, or None if it occurred elsewhere."""
    diag = _diagnosis(error)
    context = (diag and diag.context) or ""
    if function := named_function(context):
        return FUNCTION_FAILED.replace("{function}", function)
    # The internal query of a DO statement is the statement of its author, not of a function.
    return UNNAMED_FUNCTION_FAILED if diag and diag.internal_query and "inline_code_block" not in context else None


def named_function(context: str) -> str | None:
    """Return the innermost function that the context of an error names, as SQL writes it."""
    match = FUNCTION.search(context)  # The innermost comes first.
    return match and (match["function"] or f'"{match["quoted"]}"')


def _diagnosis(error: BaseException) -> psycopg.errors.Diagnostic | None:
    return next((one.diag for one in _chain(error) if isinstance(one, psycopg.Error) and one.sqlstate), None)


def _hint(error: BaseException) -> str:
    """Return the server's advice, to be added to its message; "" without one. Unlike DETAIL, it quotes no row."""
    diag = _diagnosis(error)
    return f". {without_password(' '.join(diag.message_hint.split())).rstrip('.')}" if diag and diag.message_hint else ""


def without_password(text: str) -> str:
    """Return `text` with every configured password replaced where it occurs as a word, and the user and password of each URL."""
    text = re.sub(r"://[^/@\s]*@", "://********@", text)
    for database in settings.DATABASES.values():
        for password in filter(None, (database.get("PASSWORD"), (database.get("DIRECT") or {}).get("PASSWORD"))):
            for written in {password, quote(password, safe=""), quote(password)}:  # Also in its URL-encoded form.
                text = re.sub(rf"(?<!\w){re.escape(written)}(?!\w)", "********", text)
    return text


def sqlstate(error: BaseException | None) -> str:
    """Return the SQLSTATE of the driver's error below `error`, "" without one."""
    return next((state for one in _chain(error) if (state := getattr(one, "sqlstate", None))), "")


def leaves_commit_open(error: BaseException) -> bool:
    """Return whether a COMMIT that raised `error` may have succeeded: its answer was lost."""
    return not isinstance(error, Error) or sqlstate(error)[:2] in LOST


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost, or the server ended it: the next statement needs a new one."""
    if isinstance(error, SearchPathError):
        return False
    if diag := _diagnosis(error):
        return diag.severity_nonlocalized in ("FATAL", "PANIC")
    return isinstance(error, OperationalError | InterfaceError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once: an error that was raised again can be its own cause."""
    todo, seen = [error], set()
    while todo:
        error = todo.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            todo += [error.__context__, error.__cause__]


def first_line(text: str) -> str:
    """Return the first line of an error's text that is not a hint, a position or a quotation, without the text that Django adds."""
    text = text.removeprefix("Unable to create the django_migrations table (")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    messages = [line for line in lines if not re.match(r"(LINE \d+:|\^|HINT:|CONTEXT:|DETAIL:)", line)]
    return (messages or lines or ["no reason given"])[0].rstrip(".)")


def _place(text: str) -> str:
    if match := re.search(r'at "(?P<host>[^"]*)"(?: \([^)]*\))?, port (?P<port>\d+)', text):
        return f" at {match['host']}, port {match['port']}"
    if match := re.search(r"(?:failed to resolve host|host:) '(?P<host>[^']*)'(?:, port: '?(?P<port>\d+))?", text):
        return f" {match['host']}" if "resolve" in match[0] else f" at {match['host']}"
    if match := re.search(r'on socket "(?P<path>[^"]*)"', text):
        return f" at {match['path']}"
    return ""


def _configured_place(error: BaseException) -> str:
    """Return the host of the database to which the connection failed, because a timeout does not name it."""
    database = next(
        filter(None, (getattr(one, "database_place", None) for one in _chain(error))), settings.DATABASES["default"]
    )
    return f" at {database['HOST']}, port {database.get('PORT') or 5432}" if database.get("HOST") else ""
