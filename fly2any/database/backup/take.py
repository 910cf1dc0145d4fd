"""Taking a backup: one snapshot, dumped and hashed at once."""

from __future__ import annotations

import hashlib
from datetime import UTC
from pathlib import Path

from django.conf import settings
from django.db import transaction

from .. import contract, journal
from ..status import verify
from ..watching import Progress
from . import tools
from .manifest import Manifest, as_json, file_name, from_json, read_contents, sha256_of
from .sealing import ENDING, seal
from .store import Store

# Whom the privileges in the dump are for: the roles must be there where it is restored with them.
ROLES_SQL = """
    SELECT DISTINCT pg_catalog.pg_get_userbyid(a.grantee)
    FROM (SELECT relacl AS acl, relnamespace AS place FROM pg_catalog.pg_class
          UNION ALL SELECT nspacl, oid FROM pg_catalog.pg_namespace
          UNION ALL SELECT defaclacl, 0 FROM pg_catalog.pg_default_acl) AS granted,
         pg_catalog.aclexplode(granted.acl) AS a
    WHERE a.grantee <> 0 AND granted.place NOT IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema')
    ORDER BY 1
"""
LOCK_WAIT = "60s"  # For the tables' locks, which a running migration holds.


def take(connection, store: Store, progress: Progress) -> Manifest:
    """Take a backup of the database of `connection` into `store`, and return its manifest.

    Raises Refusal where it cannot be taken, after which nothing of it is kept.
    """
    with connection.direct(), store.workplace() as work:
        path = work / "dump"
        with transaction.atomic(using=connection.alias), tools.reached(connection) as (place, environment):
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                cursor.execute("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.current_database(), now()")
                snapshot, database, now = cursor.fetchone()
                cursor.execute(ROLES_SQL)
                roles = tuple(name for (name,) in cursor.fetchall())
            major, version = tools.server_version(connection)
            tool = tools.choose(major, tls=connection.connection.pgconn.ssl_in_use)
            report = verify(connection)
            arguments = ["--format=custom", "--verbose", f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_WAIT}"]
            arguments += [f"--file={path}", f"--dbname={place}"]
            with tools.Running(tool.folder / "pg_dump", arguments, environment, lambda line: None) as dump:
                tables = read_contents(connection, progress.show)
                progress.show("waiting for pg_dump", None)
                dump.finish()
        taken = now.astimezone(UTC)
        name = f"{file_name(database)}-{taken:%Y%m%dT%H%M%SZ}"
        file = f"{name}.dump"
        if recipient := settings.BACKUPS["recipient"]:
            progress.show("encrypting", None)
            sealed = work / "sealed"
            seal(path, sealed, recipient)
            path.unlink()
            path, file = sealed, file + ENDING
        manifest = Manifest(
            name=name,
            file=file,
            taken=taken,
            database=database,
            server=version,
            tool=tool.version,
            code=journal.code_version(),
            bytes=path.stat().st_size,
            sha256=sha256_of(path),
            contract=hashlib.sha256(contract.PATH.read_bytes()).hexdigest(),
            migrations=tuple(record.name for record in report.migrations.applied),
            findings=findings_of(report),
            roles=roles,
            tables=tables,
        )
        put(store, path, manifest, progress)
    progress.clear()
    return manifest


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


def backups(store: Store) -> list[Manifest]:
    """Return the manifests of what is in `store`, newest first."""
    found = [from_json(store.read(name), where=name) for name in store.names() if name.endswith(".json")]
    return sorted(found, key=lambda manifest: manifest.taken, reverse=True)
