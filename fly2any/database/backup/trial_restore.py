"""Verification of a backup: it is restored on a temporary server and compared with its manifest; the verdict is good, bad or unverified.

A backup is bad if its rows differ from the manifest, if an object is missing, or if its contents prevent reading or restoring it. It is unverified, with the
reason, if the cause of a failure may be this machine (a missing privilege, role, extension, locale, disk space, or time) or code of
another role that the restore runs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from itertools import zip_longest
from pathlib import Path

import psycopg
from django.conf import settings
from django.db import Error, transaction
from psycopg import sql

from fly2any.postgres.embedded import EmbeddedServerError

from ..clock import Clock, read_clock
from ..errors import Refusal, Unfit, explain
from ..progress import Progress
from ..units import plural
from ..verification import verify
from . import tools
from .encryption import ENDING, keys_in
from .extension_entries import data_of_extensions
from .load import shown
from .manifest import COMPUTED, OF_ROLES, OF_VIEW, Manifest, Verdict, as_json, from_json, home_of, with_verdict
from .owners import untrusted
from .properties import creation
from .restore import require_restorable
from .row_hashes import BY_COPY, clauses, differences, read_computed, read_contents, read_hash_partitions
from .store import Missing, Store
from .stored_file import opened
from .take import new_findings
from .toc_entries import NOTHING, VIEW_DATA, Entry, LeftOut, entries_in, find_left_out, listed, view_of, without_owner
from .trial_server import DATABASE, STATEMENTS, Trial, programs, trial
from .workfolder import work_folder

# Objects that only a superuser can create, by the beginning of their entries in the dump.
SUPERUSERS = tuple(
    f"{kind} "
    for kind in (
        "ACCESS METHOD", "AGGREGATE", "CAST", "EVENT TRIGGER", "EXTENSION", "FOREIGN DATA WRAPPER", "FUNCTION", "OPERATOR CLASS",
        "OPERATOR FAMILY", "PROCEDURAL LANGUAGE", "PROCEDURE", "PUBLICATION", "SERVER", "SHELL TYPE", "TEXT SEARCH PARSER",
        "TEXT SEARCH TEMPLATE", "TRANSFORM", "TYPE",
    )
)  # fmt: skip
# insufficient_privilege; feature_not_supported and undefined_file, raised for extensions that this machine lacks.
SERVER_STATES = ("42501", "0A000", "58P01")
OF_THE_MACHINE = ("COLLATION ", "SECURITY LABEL ", "USER MAPPING ")
UNDEFINED_OBJECT = "42704"  # A missing role, type or collation.
# SQLSTATEs of a missing object, function, table or schema.
MISSING = (UNDEFINED_OBJECT, "42883", "42P01", "3F000")
# SQLSTATE classes: data exceptions, constraint violations, syntax errors and access rule violations.
OF_THE_DUMP = ("22", "23", "42")
ELSEWHERE = (UNDEFINED_OBJECT, *SERVER_STATES)  # These can also occur because the server differs from the original.


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry of the dump's table of contents, "TABLE users", that could not be restored, and the SQLSTATE.

    `entry` is its number in the dump; `needs` are the numbers of the entries it depends on. `data` is "rows of cron.job", if it is
    the data of a table or a sequence of an extension.
    """

    what: str
    state: str
    entry: int = 0
    needs: tuple[int, ...] = ()
    data: str = ""

    @property
    def is_caused_by_server(self) -> bool:
        """Return whether the server is the cause. The SQLSTATE alone does not show it: code in the dump can raise any."""
        return self.what.startswith(OF_THE_MACHINE) or (self.what.startswith(SUPERUSERS) and self.state in SERVER_STATES)

    def __str__(self) -> str:
        return f"{self.data or self.what} ({self.state})"


# pg_stat_statements, which the trial's superuser creates before the restore: the role that restores may not. The verdict lists it
# like a failure, because a restore by such a role fails there.
BY_SUPERUSER = Failure(f"EXTENSION {STATEMENTS}", "42501")
COMMENT = (f"COMMENT EXTENSION {STATEMENTS}", "42501")  # It fails because the superuser owns the extension, and does not count.


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a trial restore: failures, tables whose rows differ, and missing or changed objects."""

    failures: tuple[Failure, ...]
    changed: tuple[str, ...]
    absent: tuple[str, ...]
    unknown: str = ""  # How pg_restore's count of failures differs from the known failures.
    computed: tuple[str, ...] = ()  # Tables with stored generated columns.
    extensions: tuple[str, ...] = ()  # Those with tables whose rows differ.

    def left_out(self) -> list[Failure]:
        """Return the failures that the server caused, and those of objects that depend on them.

        The dump does not say on which extension the data of an extension's table depend.
        """
        omitted = [one for one in self.failures if one.is_caused_by_server]
        while more := [one for one in self.failures if one not in omitted and _depends_on(one, omitted)]:
            omitted += more
        if any(one.what.startswith("EXTENSION ") for one in omitted):
            omitted += [one for one in self.failures if one.data and one.state in MISSING]
        return [one for one in self.failures if one in omitted]

    def others(self) -> list[Failure]:
        left_out = self.left_out()
        return [one for one in self.failures if one not in left_out]


def _depends_on(failure: Failure, omitted: list[Failure]) -> bool:
    return failure.state in MISSING and any(one.entry in failure.needs for one in omitted)


def check(connection, store: Store, manifest: Manifest, progress: Progress) -> Manifest:
    """Restore a backup on a temporary server, compare it, store the verdict, and return the manifest with it.

    An unverified verdict replaces no other, whether it is of an earlier run or was stored by another run meanwhile. Raises Refusal if
    the backup cannot be read or was removed meanwhile.
    """
    if manifest.file.endswith(ENDING):
        keys_in(settings.BACKUPS["identity_file"])
    with connection.direct():
        connection.ensure_connection()
        require_restorable(manifest, connection)
        like, clock, others = creation(connection, DATABASE), read_clock(connection), untrusted(connection, manifest)
        _, version = tools.server_version(connection)
    connection.close()  # Servers and poolers may end a connection that is idle during the restore.
    try:
        with opened(store, manifest, progress) as dump:
            verdict = judge(dump, manifest, like, others, clock, progress)
    except Unfit as unfit:
        verdict = Verdict(clock.now(), version, str(unfit), "bad")
    progress.clear()
    tried, name = with_verdict(manifest, verdict), f"{manifest.name}.json"
    try:
        stored = from_json(store.read(name), where=name)  # Another run may have verified it meanwhile.
    except Missing as missing:
        raise Refusal(f"{manifest.name} was removed during its verification: no verdict was stored.") from missing
    if verdict.state != "unverified" or stored.state == "unverified":
        store.write(name, as_json(tried).encode())
    return tried


def judge(
    dump: FileIO, manifest: Manifest, like: sql.Composed, untrusted: Sequence[str], clock: Clock, progress: Progress
) -> Verdict:
    """Return the verdict on the dump, dated by `clock`.

    `like` creates a database like the original; `untrusted` are roles in the dump, whose code may interfere with the
    trial. If the backup cannot be verified because of it, it is tried again without the objects of these roles.
    """
    server, tool = (int(version.partition(".")[0]) for version in (manifest.server, manifest.tool))
    try:
        folder, major = programs(server, oldest=tool)
        # The trial counts every failure, so pg_restore must not send settings that the server does not know.
        restoring = tools.choose(major, tls=False, oldest=tool, newest=999 if major >= 17 else 16).folder / "pg_restore"
        if (listed := tools.read(restoring, dump, "--list", "--verbose")) is None:
            return Verdict(clock.now(), "", "pg_restore cannot read the dump.", "bad")
    except (Refusal, EmbeddedServerError, OSError, subprocess.SubprocessError) as error:
        return Verdict(clock.now(), "", explain(error) or type(error).__name__, "unverified")
    subject = _Subject(dump, manifest, folder, restoring, [like, *_fallback_locales(major)], tuple(entries_in(listed)))
    verdict = _verdict_of(subject, untrusted, NOTHING, clock, progress)
    if verdict.state != "unverified" or not untrusted:
        return verdict
    try:
        without = find_left_out(subject.entries, manifest, untrusted)
    except Refusal:
        return verdict
    second = _verdict_of(subject, (), without, clock, progress)
    if second.state != "good":
        return verdict
    left_out = f"{OF_ROLES}{', '.join(untrusted)} ({without}); with them it is not verified ({verdict.reason.rstrip('.')})"
    return replace(second, left_out=(*second.left_out, left_out))


@dataclass(frozen=True, slots=True)
class _Subject:
    """A dump, the server programs and the pg_restore to try it with, statements that create its database, and its entries."""

    dump: FileIO
    manifest: Manifest
    folder: Path
    restoring: Path
    like: list[sql.Composed]
    entries: tuple[Entry, ...]

    def views(self, without: LeftOut) -> list[Entry]:
        """Return the entries that refresh materialized views. They are not tried: here all belong to a role that bypasses policies.

        A restore refreshes each as its owner, and leaves one empty that cannot be refreshed.
        """
        return [one for one in self.entries if one.text.startswith(VIEW_DATA) and one.number not in without.entries]


def _verdict_of(subject: _Subject, untrusted: Sequence[str], without: LeftOut, clock: Clock, progress: Progress) -> Verdict:
    """Return the verdict on a trial restore that leaves out `without`."""
    manifest, version = subject.manifest, ""
    statements = any(one.text.startswith(f"EXTENSION - {STATEMENTS} ") for one in subject.entries)
    try:
        progress.show("starting a server for the trial restore", None)
        with trial(
            subject.folder,
            subject.like,
            server=int(manifest.server.partition(".")[0]),
            schema=home_of(manifest),
            roles=(*manifest.owners, *manifest.roles, *manifest.roles_of_values),
            statements=statements,
            entries=len(subject.entries),
        ) as running:
            version = running.version
            found, code = _try(running, subject, without, progress)
        readable = (
            code == 0
            or not (found.changed or found.absent)
            or tools.read(subject.restoring, subject.dump, "--file=/dev/null") is not None
        )
        by_copy = manifest.hashing == BY_COPY
        reason, state = decide(found, readable=readable, unlike=running.unlike, by_copy=by_copy, untrusted=untrusted)
        left_out = tuple(one.data or str(one) for one in found.left_out())
        if statements and not any(one.startswith(f"{BY_SUPERUSER.what} (") for one in left_out):
            left_out = (str(BY_SUPERUSER), *left_out)
        left_out += tuple(f"{OF_VIEW}{view_of(one, manifest.owners)}" for one in subject.views(without))
        left_out += tuple(f"{COMPUTED}{table}" for table in found.computed)
        return Verdict(clock.now(), version, reason, state, left_out if state == "good" else ())
    except (Refusal, EmbeddedServerError, Error, OSError, subprocess.SubprocessError) as error:
        return Verdict(clock.now(), version, explain(error) or type(error).__name__, "unverified")
    except psycopg.Error as error:
        message = error.diag.message_primary or type(error).__name__
        return Verdict(clock.now(), version, f"the server for the trial restore reported: {message}", "unverified")


def decide(
    found: TrialResult, *, readable: bool, unlike: tuple[str, ...], by_copy: bool, untrusted: Sequence[str]
) -> tuple[str, str]:
    """Return the reason and the state that follow from `found`; the code of `untrusted` ran in the trial."""
    left_out, others = found.left_out(), found.others()
    other_causes = [*(f"{one} was left out" for one in left_out), *(f"it was tried with {one}" for one in unlike)]
    other_causes += [f"the extension {name} may be another version here" for name in found.extensions]
    other_causes += [f"code of {', '.join(untrusted)} may have run in the trial restore"] if untrusted else []
    other_causes += [found.unknown] if found.unknown else []
    if not readable:
        return "pg_restore cannot read the whole dump.", "bad"
    if unknown := [one for one in others if one.data or not one.state.startswith(OF_THE_DUMP) or one.state in ELSEWHERE]:
        return _reason([f"{one} could not be restored here" for one in unknown], other_causes), "unverified"
    if found.changed and (by_copy or not unlike) and not others and not found.unknown and not untrusted:
        return clauses(found.changed), "bad"
    wrong = [*(f"{one} cannot be restored" for one in others), *found.changed, *found.absent]
    if wrong:
        return _reason(wrong, other_causes), "unverified" if other_causes else "bad"
    return (found.unknown, "unverified") if found.unknown else ("", "good")


def _reason(wrong: list[str], other_causes: list[str]) -> str:
    """Return the problems and their other possible causes, each list shortened."""
    return "; ".join(clauses(part) for part in (wrong, other_causes) if part)


def unknown_failures(code: int, last: str, *, named: int, logged: int) -> str:
    """Return how the known failures differ in number from those that pg_restore counts, "" if they agree.

    `code` is its exit code, and `last` its last line, which has the count; it named `named` entries, and the server logged
    `logged` errors. Only if all three agree can the errors be assigned to the entries in order.
    """
    match = re.fullmatch(r"warning: errors ignored on restore: (\d+)", last)
    if code and not match:
        return f"pg_restore exited with {code} and gave no reason"
    counted = int(match[1]) if match else 0
    if named == logged == counted:
        return ""
    return f"pg_restore counted {plural(counted, 'failure')}, named {named}, and the server logged {logged}"


def _try(running: Trial, subject: _Subject, without: LeftOut, progress: Progress) -> tuple[TrialResult, int]:
    """Restore the dump and compare it; return the findings, and pg_restore's exit code.

    restore.py's `compare` makes the same comparison for dbrestore.
    """
    manifest = subject.manifest
    failing: list[tuple[int, str]] = []
    show, last = shown(progress, manifest), ""

    def on_line(line: str) -> None:
        nonlocal last
        last = line
        show(line)
        if match := tools.OF_ENTRY.match(line):
            failing.append((int(match["number"]), without_owner(match["text"], manifest.owners)))

    options = ["--verbose", "--no-owner", "--no-privileges", "--no-subscriptions", "--no-tablespaces"]
    options += ["--no-data-for-failed-tables"]
    # The connection stays open, because the restored code may change the password of its role.
    with (
        tools.reached(running.connection) as (place, environment),
        work_folder("a backup's table of contents") as work,
    ):
        options.append(f"--dbname={place}")
        if excluded := {*without.entries, *(one.number for one in subject.views(without))}:
            kept = [one.number for one in subject.entries if one.number not in excluded]
            options.append(f"--use-list={listed(kept, work / 'chosen')}")
        with tools.Running(subject.restoring, options, environment, on_line, dump=subject.dump) as restoring:
            code = restoring.wait()
    states = running.server.states()
    unknown = unknown_failures(code, last, named=len(failing), logged=len(states))
    failed, needs = [], {one.number: one.needs for one in subject.entries}
    data = data_of_extensions(subject.entries, manifest.owners)
    for named, state in zip_longest(failing, states):
        entry, what = named or (0, "an object")
        failed.append(Failure(what, state or "?????", entry, needs.get(entry, ()), data.get(entry, "")))
    failures = [one for one in failed if (one.what, one.state) != COMMENT]
    return _compare(running.connection, manifest, without, progress, tuple(failures), unknown), code


def _compare(
    connection, manifest: Manifest, without: LeftOut, progress: Progress, failures: tuple[Failure, ...], unknown: str
) -> TrialResult:
    registered = manifest.registered
    with transaction.atomic(using=connection.alias):
        found = read_contents(connection, progress.show, how=manifest.hashing, registered=registered)
    # The rows of an extension's table that is missing are among the failures.
    rest = without.rest(manifest.tables).items()
    expected = {name: content for name, content in rest if name in found or name not in registered}
    ours = {name: content for name, content in expected.items() if name in found and name not in registered}
    hashed = read_hash_partitions(connection)
    changed = differences(ours, {name: found[name] for name in ours}, hashed)
    absent = [one for one in differences(expected, found, hashed) if one not in changed]
    absent += new_findings(verify(connection), manifest.findings)
    differing = {registered[name].extension for name in expected if name in registered and found[name] != expected[name]}
    return TrialResult(
        failures, tuple(changed), tuple(absent), unknown, tuple(read_computed(connection)), tuple(sorted(differing))
    )


def _fallback_locales(major: int) -> Iterator[sql.Composed]:
    """Yield statements that create the database with another locale, for machines that lack the original's."""
    make = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE ").format(sql.Identifier(DATABASE))
    if major >= 17:
        yield make + sql.SQL("'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'")
    yield make + sql.SQL("'C.UTF-8'")
    yield make + sql.SQL("'C'")
