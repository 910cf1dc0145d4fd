"""Taking a backup: one snapshot, dumped and hashed at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from .. import contract, journal
from ..clock import LIMIT
from ..diagnosis import Refusal
from ..server import Origin, read_home, read_origin
from ..sql import catalogue
from ..status import verify
from ..watching import Progress
from . import tools
from .contents import BY_COPY, PATIENT, pin, read_contents
from .manifest import Manifest, as_json, file_name, from_json, sha256_of
from .sealing import ENDING, seal
from .signing import SIGNED
from .store import Store
from .workfolder import work_folder

# Which roles the dump names, and whether something belongs to them: they must be there where it is restored.
ROLES_SQL = """
    SELECT role, pg_catalog.bool_or(owns)
    FROM (SELECT pg_catalog.pg_get_userbyid(d.refobjid) AS role, d.deptype = 'o' AS owns
          FROM pg_catalog.pg_shdepend AS d
          WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
            AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
          UNION ALL
          SELECT pg_catalog.pg_get_userbyid(c.relowner), true  -- The server's first role is in no pg_shdepend.
          FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                            WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')) AS named
    WHERE role !~ '^pg_'
    GROUP BY role ORDER BY role
"""
TRUSTED_SQL = """
    SELECT pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database AS d
    WHERE d.datname = pg_catalog.current_database()
    UNION
    SELECT pg_catalog.pg_get_userbyid(c.relowner)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = 'users' AND c.relkind = 'r'
    ORDER BY 1
"""


def take(connection, store: Store, progress: Progress) -> Manifest:
    """Take a backup of the database of `connection` into `store`, and return its manifest.

    Raises Refusal where it cannot be taken, after which nothing of it is kept.
    """
    store.make()
    recipient = settings.BACKUPS["recipient"]
    # What is to be encrypted is not at the store before it is.
    workplace = work_folder("a backup to encrypt") if recipient else store.workplace()
    with connection.direct(), workplace as work:
        path = work / "dump"
        manifest = _dump(connection, path, progress)
        file = manifest.file
        if recipient:
            progress.show("encrypting", None)
            sealed = work / "sealed"
            seal(path, sealed, recipient)
            path.unlink()
            path, file = sealed, file + ENDING
        manifest = replace(manifest, file=file, bytes=path.stat().st_size, sha256=sha256_of(path))
        put(store, path, manifest, progress)
    progress.clear()
    return manifest


def _dump(connection, path: Path, progress: Progress) -> Manifest:
    """Dump the database to `path` and hash it meanwhile; return the manifest, without the file's size and hash."""
    with transaction.atomic(using=connection.alias), tools.reached(connection) as (place, environment):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            pin(cursor, PATIENT)
            cursor.execute("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.now()")
            snapshot, now = cursor.fetchone()
        origin, (major, version), roles = read_origin(connection), tools.server_version(connection), _roles(connection)
        tool = tools.choose(major, tls=connection.connection.pgconn.ssl_in_use)
        report = verify(connection)
        arguments = ["--format=custom", "--verbose", f"--snapshot={snapshot}", f"--lock-wait-timeout={PATIENT['lock_timeout']}"]
        arguments += [f"--file={path}", f"--dbname={place}"]
        with tools.Running(tool.folder / "pg_dump", arguments, environment, lambda line: None) as dump:
            tables = read_contents(connection, progress.show)
            progress.show("waiting for pg_dump", None)
            dump.finish()
    taken = now.astimezone(UTC)
    name = f"{file_name(origin.database)}-{taken:%Y%m%dT%H%M%S.%fZ}"
    return Manifest(
        name=name,
        file=f"{name}.dump",
        taken=taken,
        database=origin.database,
        cluster=origin.cluster,
        oid=origin.oid,
        server=version,
        tool=tool.version,
        code=journal.code_version(),
        bytes=0,
        sha256="",
        contract=hashlib.sha256(contract.PATH.read_bytes()).hexdigest(),
        migrations=tuple(record.name for record in report.migrations.applied),
        findings=findings_of(report),
        tables=tables,
        hashing=BY_COPY,
        **roles,
    )


def _roles(connection) -> dict[str, Any]:
    """Return whom the database and what is in it belong to, whom it names besides, and the schema of our tables."""
    schema = read_home(connection)[0] or ""
    with catalogue(connection) as cursor:
        cursor.execute(ROLES_SQL)
        named = cursor.fetchall()
        cursor.execute(TRUSTED_SQL, [schema])
        trusted = tuple(name for (name,) in cursor.fetchall())
    return {
        "owners": tuple(name for name, owns in named if owns),
        "roles": tuple(name for name, owns in named if not owns),
        "trusted": trusted,
        "schema": schema,
    }


def put(store: Store, path: Path, manifest: Manifest, progress: Progress) -> None:
    """Keep the dump, then its manifest: a dump without one is none."""
    done = 0

    def show(size: int) -> None:
        nonlocal done
        done += size
        progress.show(f"storing {manifest.file}", 100 * done / max(manifest.bytes, 1))

    store.put(manifest.file, path, show)
    store.write(f"{manifest.name}.json", as_json(manifest).encode())


def findings_of(report) -> tuple[str, ...]:
    """Return what `dbstatus` finds, besides what it says of the server and of backups, as "code at where"."""
    found = {f"{f.code} at {f.where}" for f in report.findings if not f.code.startswith(("server.", "backup."))}
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in a store: the manifests, newest first, and the names of files that belong to none or cannot be read."""

    manifests: tuple[Manifest, ...]
    odd: tuple[str, ...]


def backups(store: Store, *, of: Origin | None = None) -> Kept:
    """Return what is in `store`, of the database `of` where it is given. A file of another size than was stored is none."""
    sizes = store.sizes()
    names = sorted(sizes)
    begins = f"{file_name(of.database)}-" if of else ""
    found, odd = [], []
    for name in names:
        if name.endswith(".json") and name.startswith(begins):
            try:
                manifest = from_json(store.read(name), where=name)
            except Refusal:
                odd.append(name)
                continue
            if sizes.get(manifest.file) == manifest.bytes:
                found.append(manifest)
            else:
                odd.append(name)
    dumps = {manifest.file for manifest in found}
    odd += [name for name in names if name.endswith((".dump", ".dump.age")) and name.startswith(begins) and name not in dumps]
    of_this = [manifest for manifest in found if of is None or manifest.is_of(of)]
    return Kept(tuple(sorted(of_this, key=lambda manifest: manifest.taken, reverse=True)), tuple(sorted(odd)))


def find(
    store: Store, name: str, *, of: Origin, good: bool, others: bool, now: datetime, progress: Progress, unsigned: bool = False
) -> Manifest:
    """Return the manifest of the backup `name`; raise Refusal where there is none.

    `latest` is the newest of the database `of`, the newest good one where `good`; where its server has none and `others`,
    the newest of a database of that name on another. One without a good signature must be named, and allowed by `unsigned`.
    `now` is the server's time; one from later on must be named too, and `progress` is told of it.
    """
    if name == "latest":
        every = backups(store, of=replace(of, cluster="")).manifests
        signed = [one for one in every if one.signed == SIGNED and (one.state == "good" or not good)]
        for one in signed:
            if one.taken > now + LIMIT:
                progress.say(
                    f"{one.name} is not `latest`: it was taken in the future by the server's clock ({now:%Y-%m-%d %H:%M:%S} UTC)."
                    " Correct the clock that is wrong, or name the backup."
                )
        there = [one for one in signed if one.taken <= now + LIMIT]
        there.sort(key=lambda one: not one.is_of(of))
        if there and (others or there[0].is_of(of)):
            return there[0]
        named = f"name one: the newest of another server's {of.database} is {there[0].name}" if there else "name one"
        proven = " that was proven good" if good else ""
        raise Refusal(
            f"{store.place} has no backup of {of.database}{'' if others else ' on this server'}{proven}: run `manage.py dbbackup --verify`, or {named}."
        )
    name = name.removesuffix(".json").removesuffix(ENDING).removesuffix(".dump")
    if "/" in name or f"{name}.json" not in store.names():
        raise Refusal(f"{store.place} has no backup {name}: `manage.py dbbackup --list` shows what it has.")
    manifest = from_json(store.read(f"{name}.json"), where=f"{name}.json")
    if manifest.signed != SIGNED and not unsigned:
        raise Refusal(
            f"{name}.json is not signed with a key of this installation ({manifest.signed}): if you know where it is from, add --unsigned."
        )
    return manifest
