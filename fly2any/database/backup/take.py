"""Taking a backup: one snapshot, dumped and hashed at once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings

from ..database_identity import read_origin
from ..errors import Refusal
from ..migration import journal
from ..migration.activity import HASHING
from ..migration.retry import LOCKED_OUT, try_again
from ..progress import Progress
from ..schema import contract
from ..schema.relation_kinds import refuse_on_worker
from ..schema.untrusted_code import our_tables
from ..server import read_home
from ..snapshot_after_locks import locked_snapshot
from ..sql import PEOPLE, catalogue, fetch_all, fetch_one, literal, quote
from ..trusted_roles import TRUSTED_SQL
from ..units import few, plural
from ..unprintable_definitions import explain_unprintable
from ..verification import verify
from . import tools
from .creatable_extensions import read_extensions
from .dump_blockers import Waits, report_lock_holders
from .dump_definitions import POLL, Definitions, DroppedError, locked_out, of_dropped
from .encryption import ENDING, encrypt
from .lenient_reads import refuse_lenient_reads
from .lock_space import explained
from .manifest import COLLATION, Manifest, as_json, file_name, sha256_of
from .owners import DATABASE_SQL
from .role_names import require_valid_names
from .row_hashes import BY_COPY, LOCK_WAIT, PATIENT, pin, read_contents
from .standby import data_of, require_logged
from .store import Store, all_or_none
from .user_mappings import report_hidden_options
from .value_types import MONEY_SQL, NAMED_BY_VALUES_SQL
from .workfolder import work_folder

# The catalogues of the objects that pg_dump dumps with their owners: the columns of the schema, if any, and of the owner.
OWNED = (
    ("pg_class", "relnamespace", "relowner"),
    ("pg_type", "typnamespace", "typowner"),
    ("pg_proc", "pronamespace", "proowner"),
    ("pg_operator", "oprnamespace", "oprowner"),
    ("pg_opclass", "opcnamespace", "opcowner"),
    ("pg_opfamily", "opfnamespace", "opfowner"),
    ("pg_collation", "collnamespace", "collowner"),
    ("pg_conversion", "connamespace", "conowner"),
    ("pg_ts_dict", "dictnamespace", "dictowner"),
    ("pg_ts_config", "cfgnamespace", "cfgowner"),
    ("pg_statistic_ext", "stxnamespace", "stxowner"),
    ("pg_namespace", "oid", "nspowner"),
    ("pg_publication", "", "pubowner"),
    ("pg_event_trigger", "", "evtowner"),
    ("pg_foreign_data_wrapper", "", "fdwowner"),
    ("pg_foreign_server", "", "srvowner"),
    ("pg_language", "", "lanowner"),
    ("pg_largeobject_metadata", "", "lomowner"),
)
CONDITIONS = {"pg_class": "relkind IN ('r', 'p', 'v', 'm', 'f', 'S')", "pg_language": "lanispl"}
OWNED_SQL = " UNION ALL ".join(
    f"SELECT 'pg_catalog.{table}'::regclass AS class, oid, {schema or 'NULL::oid'} AS schema, {owner} AS owner"
    f" FROM pg_catalog.{table} WHERE {CONDITIONS.get(table, 'true')}"
    for table, schema, owner in OWNED
)
# The roles that the dump names, and whether they own objects, which default privileges are not: they must exist where it is
# restored. The server's first role is in no pg_shdepend. Members of extensions, and row, array and multirange types with their
# functions, have no entry of their own. Before version 15, pg_dump leaves out the owner of `public`. Every server has the predefined
# roles, but any of their members may give them objects, except pg_database_owner, whose only member is the owner of the database.
ROLES_SQL = f"""
    SELECT role, pg_catalog.bool_or(owns)
    FROM (SELECT pg_catalog.pg_get_userbyid(d.refobjid) AS role,
                 d.deptype = 'o' AND d.classid <> 'pg_catalog.pg_default_acl'::regclass AS owns
          FROM pg_catalog.pg_shdepend AS d
          WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
            AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
          UNION ALL
          SELECT pg_catalog.pg_get_userbyid(o.owner), true
          FROM ({OWNED_SQL}) AS o LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = o.schema
          WHERE (n.oid IS NULL OR n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
            AND NOT (o.class = 'pg_catalog.pg_namespace'::regclass AND n.nspname = 'public' AND %(tool)s < 15)
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = o.class AND d.objid = o.oid AND d.objsubid = 0 AND d.deptype IN ('e', 'i'))) AS named
    GROUP BY role HAVING role !~ '^pg_' OR role <> 'pg_database_owner' AND pg_catalog.bool_or(owns) ORDER BY role
"""
TRUSTED_OWNERS_SQL = f"""
    SELECT pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database AS d
    WHERE d.datname = pg_catalog.current_database()
    UNION
    SELECT pg_catalog.pg_get_userbyid(c.relowner)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = {literal(PEOPLE)} AND {TRUSTED_SQL}
    UNION
    SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.rolsuper AND r.rolname = ANY (%(owners)s::text[])
    ORDER BY 1
"""
# Whether pg_dump dumps the rows of the table `c`: of an extension's tables, only those that the extension registered.
DUMPED_SQL = """
    NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
                WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e' AND NOT c.oid = ANY (COALESCE(e.extconfig, '{}')))
"""
# The objects that pg_dump reads, but that this role cannot read, or not in full because row-level security hides rows.
UNREADABLE_SQL = f"""
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), pg_catalog.pg_get_userbyid(c.relowner)::text,
           current_user::text, (SELECT r.rolinherit FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user),
           c.relkind = 'r' AND pg_catalog.row_security_active(c.oid)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND {DUMPED_SQL}
      AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE')
               AND CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                                  ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END
               AND NOT (c.relkind = 'r' AND pg_catalog.row_security_active(c.oid)))
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
# Large objects that this role cannot read; pg_read_all_data does not include them, and every role may create some.
LARGE_OBJECTS_SQL = """
    SELECT m.oid::text, pg_catalog.pg_get_userbyid(m.lomowner)::text, current_user::text
    FROM pg_catalog.pg_largeobject_metadata AS m
    WHERE NOT pg_catalog.current_setting('lo_compat_privileges')::bool AND NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) AS a
                      WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
    ORDER BY m.oid
"""
# Objects that pg_dump leaves out because they are members of an extension; the rows that the extension registered are dumped. The third
# column: whether it is a table of ours, a partition of one, or a sequence of one.
MEMBERS_SQL = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), e.extname::text, ours.oid IS NOT NULL,
           CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
    JOIN pg_catalog.pg_class AS c ON c.oid = d.objid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_depend AS s ON s.classid = 'pg_catalog.pg_class'::regclass AND s.objid = c.oid AND c.relkind = 'S'
        AND s.refclassid = 'pg_catalog.pg_class'::regclass AND s.deptype IN ('a', 'i')
    LEFT JOIN pg_catalog.pg_class AS ours ON ours.relname = ANY (%(tables)s::text[]) AND ours.relnamespace = pg_catalog.to_regnamespace(%(schema)s)
        AND ours.oid = COALESCE(pg_catalog.pg_partition_root(COALESCE(s.refobjid, c.oid)), s.refobjid, c.oid)
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
      AND c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND (ours.oid IS NOT NULL OR c.relkind = 'r' AND pg_catalog.pg_relation_size(c.oid) > 0 AND NOT c.oid = ANY (COALESCE(e.extconfig, '{}')))
    ORDER BY 3 DESC, n.nspname COLLATE "C", c.relname COLLATE "C"
"""
SHOWN = 5

# How the codes of findings about what the dump contains begin.
OBJECTS = tuple(f"{kind}." for kind in ("table", "column", "default", "primary_key", "unique", "check", "index", "foreign_key"))


def take(connection, store: Store, progress: Progress) -> Manifest:
    """Take a backup of the database of `connection` into `store`, and return its manifest.

    Raises Refusal if it cannot be taken, after which nothing of it is kept.
    """
    store.make()
    recipient = settings.BACKUPS["recipient"]
    # A file that will be encrypted never reaches the store unencrypted.
    workplace = work_folder("a backup to encrypt") if recipient else store.workplace()
    with connection.direct(), workplace as work:
        refuse_on_worker(connection)
        refuse_lenient_reads(connection)
        path = work / "dump"
        # A statement that changes a table waits for our lock, and pg_dump behind it: after a moment both give way to it.
        with explain_unprintable(connection), explained(connection), report_lock_holders(connection, progress) as waits:
            dump, states = partial(_dump, connection, path, progress, waits), (*LOCKED_OUT, DroppedError.sqlstate)
            try:
                manifest = try_again(dump, patience=LOCK_WAIT / 1000, again=lambda error, pause: None, states=states)
            except DroppedError as error:
                raise Refusal(of_dropped(error)) from error
        connection.close()  # It would be idle while the file is stored.
        file = manifest.file
        if recipient:
            progress.show("encrypting", None)
            sealed = work / "sealed"
            encrypt(path, sealed, recipient)
            path.unlink()
            path, file = sealed, file + ENDING
        manifest = replace(manifest, file=file, bytes=path.stat().st_size, sha256=sha256_of(path))
        put(store, path, manifest, progress)
    progress.clear()
    return manifest


def _dump(connection, path: Path, progress: Progress, waits: Waits) -> Manifest:
    """Dump the database to `path` and hash it meanwhile; return the manifest, without the file's size and hash."""
    (has_money,) = fetch_one(connection, MONEY_SQL)
    with tools.reached(connection, has_money) as (place, environment), ExitStack() as running:
        with locked_snapshot(connection, lock=settings.LOCK_TIMEOUT, statement=0, chosen=DUMPED_SQL):
            with connection.cursor() as cursor:
                pin(cursor, PATIENT | {"application_name": HASHING})
                cursor.execute("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.now()")
                snapshot, now = cursor.fetchone()
                taken = data_of(cursor, now, progress)
                cursor.execute("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
                size = cursor.fetchone()[0]
            _require_complete(connection, progress)
            origin, (major, version) = read_origin(connection), tools.server_version(connection)
            tool = tools.choose(major, tls=connection.connection.pgconn.ssl_in_use)
            facts = read_roles(connection, tool.major) | read_extensions(connection)
            report = verify(connection)
            definitions = Definitions()
            dump = running.enter_context(_started(tool, environment, definitions, snapshot=snapshot, path=path, place=place))
            definitions.require(connection, dump, waits)
            tables = read_contents(connection, progress.show)
        # pg_dump has imported the snapshot and holds its own locks, so this transaction need not stay idle until pg_dump ends.
        progress.show("waiting for pg_dump", None)
        _finish(dump, waits)
    tools.require_portable(tool, path, version)
    name = f"{file_name(origin.database)}-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
    return Manifest(
        name=name,
        file=f"{name}.dump",
        taken=taken.astimezone(UTC),
        database=origin.database,
        cluster=origin.cluster,
        oid=origin.oid,
        place=origin.place,
        run=origin.run,
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
        size=size,
        portable_amounts=has_money,
        **facts,
    )


def _started(
    tool: tools.Tools, environment: dict[str, str], definitions: Definitions, *, snapshot: str, path: Path, place: str
) -> tools.Running:
    arguments = ["--format=custom", "--verbose", f"--snapshot={snapshot}", f"--lock-wait-timeout={settings.LOCK_TIMEOUT}"]
    arguments += [f"--file={path}", f"--dbname={place}"]
    return tools.Running(tool.folder / "pg_dump", arguments, environment, definitions.read)


def _finish(dump: tools.Running, waits: Waits) -> None:
    """Wait for the end of pg_dump; raise Refusal if it failed, OperationalError if it waits for a lock that it does not get."""
    begun = time.monotonic()
    while dump.process.poll() is None:
        if waits.seconds(begun) >= LOCK_WAIT / 1000:
            raise locked_out(waits)
        time.sleep(POLL)
    dump.finish()


def _require_complete(connection, progress: Progress) -> None:
    """Raise Refusal if the dump would lack rows of ours or of other roles; report what else it lacks."""
    require_valid_names(connection)
    _require_readable(connection)
    _require_large_objects(connection)
    _require_our_tables(connection, progress)
    require_logged(connection, progress)
    report_hidden_options(connection, progress)


def _require_readable(connection) -> None:
    """Raise Refusal if tables or sequences cannot be read: a backup has all of them."""
    with catalogue(connection) as cursor:
        cursor.execute(UNREADABLE_SQL)
        rows = cursor.fetchall()
    if not rows:
        return
    named = few([f"{name} of {owner}" for name, owner, *_ in rows], SHOWN)
    _, _, role, inherits, _ = rows[0]
    alter, option = "", ""
    if not inherits:  # Its memberships give it no privileges.
        alter, option = (
            ("", " WITH INHERIT TRUE") if connection.pg_version >= 16_00_00 else (f"ALTER ROLE {quote(role)} INHERIT; ", "")
        )
    bypass = f" ALTER ROLE {quote(role)} BYPASSRLS;" if any(hidden for *_, hidden in rows) else ""
    raise Refusal(
        f"The role {role} cannot read {plural(len(rows), 'table or sequence', 'tables and sequences')}, so no backup was taken: {named}."
        f" As a superuser: {alter}GRANT pg_read_all_data TO {quote(role)}{option};{bypass}"
    )


def _require_large_objects(connection) -> None:
    """Raise Refusal if large objects cannot be read: pg_dump would stop at the first of them."""
    if not (rows := fetch_all(connection, LARGE_OBJECTS_SQL)):
        return
    named = few([f"{oid} of {owner}" for oid, owner, _ in rows], SHOWN)
    role = quote(rows[0][2])
    raise Refusal(
        f"The role {rows[0][2]} cannot read {plural(len(rows), 'large object')}, so no backup was taken: {named}. As a superuser:"
        f" ALTER ROLE {role} SET lo_compat_privileges TO on; which lets it read and write all of them. Or, for each of them:"
        f" GRANT SELECT ON LARGE OBJECT {rows[0][0]} TO {role};"
    )


def _require_our_tables(connection, progress: Progress) -> None:
    """Raise Refusal if pg_dump would leave out a table of ours because it is a member of an extension; report others to `progress`."""
    schema = read_home(connection)[0]
    found = fetch_all(connection, MEMBERS_SQL, {"tables": our_tables(), "schema": schema and quote(schema)})
    for name, extension, is_ours, kind in found:
        if is_ours:
            raise Refusal(
                f"{name} is a member of the extension {extension}, so pg_dump leaves it out, and no backup was taken."
                f" Remove it from the extension: ALTER EXTENSION {quote(extension)} DROP {kind} {name};"
            )
    if found:
        named = few([f"{name} of {extension}" for name, extension, *_ in found], SHOWN)
        progress.say(f"Not in the backup: the rows of {named}, because pg_dump leaves out the tables of an extension.")


def read_roles(connection, tool: int) -> dict[str, Any]:
    """Return the owners of the database and its objects, the other roles that pg_dump of version `tool` or values name, and the schema of our tables."""
    schema = read_home(connection)[0] or ""
    with catalogue(connection) as cursor:
        cursor.execute(ROLES_SQL, {"tool": tool})
        named = cursor.fetchall()
        owners = [name for name, owns in named if owns]
        cursor.execute(TRUSTED_OWNERS_SQL, {"schema": schema, "owners": owners})
        trusted = tuple(name for (name,) in cursor.fetchall())
        cursor.execute(NAMED_BY_VALUES_SQL)
        of_values = tuple(name for (name,) in cursor.fetchall())
    return {
        "owners": tuple(owners),
        "roles": tuple(name for name, owns in named if not owns),
        "roles_of_values": of_values,
        "trusted": trusted,
        "database_owner": fetch_one(connection, DATABASE_SQL)[1],
        "schema": schema,
    }


def put(store: Store, path: Path, manifest: Manifest, progress: Progress) -> None:
    """Store the dump, then its manifest: a dump without a manifest is not a backup."""
    done = 0

    def show(size: int) -> None:
        nonlocal done
        done += size
        progress.show(f"storing {manifest.file}", 100 * done / max(manifest.bytes, 1))

    described = f"{manifest.name}.json"
    with all_or_none(store, described, manifest.file):
        store.put(manifest.file, path, show)
        store.write(described, as_json(manifest).encode())


def findings_of(report) -> tuple[str, ...]:
    """Return the findings of `dbstatus` except those about the server and backups, as "code at where".

    A collation of another version counts: the database's own indexes may be wrong.
    """
    found = {
        f"{f.code} at {f.where}"
        for f in report.findings
        if f.code == COLLATION or not f.code.startswith(("server.", "backup."))
    }
    return tuple(sorted(found))


def new_findings(report, before: Iterable[str]) -> list[str]:
    """Return, as clauses, the findings of `dbstatus` about objects of a restored database that had none `before`.

    A finding may change: pg_dump leaves out an index that is invalid because its build is running or was interrupted, so
    it is missing. Only objects count, because the other findings depend on connections and ownership.
    """
    known = {one.partition(" at ")[2] for one in before if one.startswith(OBJECTS)}
    return [
        f"dbstatus finds {one}"
        for one in findings_of(report)
        if one.startswith(OBJECTS) and one.partition(" at ")[2] not in known
    ]
