"""The owners of the objects in a backup: whether this server has these roles, and whether a restore may run their code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ..database_identity import read_origin
from ..errors import Refusal
from ..scratch import require_createdb
from ..sql import ask, fetch_all, fetch_one, quote
from ..terminal_text import one_line
from .manifest import Manifest
from .role_names import refuse_invalid_names
from .script import NAME, plain
from .signing import SIGNED

# The given roles that the server lacks, and the owners to whom the restoring role may not give objects.
MISSING_SQL = """
    SELECT name, NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) AS missing
    FROM unnest(%(roles)s::text[]) AS name
    WHERE CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name)
               THEN name = ANY (%(owners)s) AND (SELECT pg_catalog.bool_or(NOT pg_catalog.pg_has_role(name::name, privilege)) FROM unnest(%(privileges)s::text[]) AS privilege)
               ELSE true END
    ORDER BY name
"""
SUPERUSER_SQL = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
# The database, its owner and this role.
DATABASE_SQL = """
    SELECT d.datname::text, pg_catalog.pg_get_userbyid(d.datdba)::text, current_user::text
    FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
"""
# The owner of a database that is created like this one: the same if this role may act as it, otherwise this role.
NEW_OWNER_SQL = """
    SELECT CASE WHEN pg_catalog.bool_and(pg_catalog.pg_has_role(d.datdba, privilege)) THEN pg_catalog.pg_get_userbyid(d.datdba) ELSE current_user END::text
    FROM pg_catalog.pg_database AS d CROSS JOIN unnest(%s::text[]) AS privilege
    WHERE d.datname = pg_catalog.current_database() GROUP BY d.datdba
"""
# Whether the tables of a role, once the owner of their database, cannot be used in a database of the role `owner`: a superuser trusts
# only the owner of a database, and from 15 on, pg_database_owner has the schema `public`.
UNUSABLE_SQL = """
    SELECT FROM pg_catalog.pg_roles AS original JOIN pg_catalog.pg_roles AS own ON own.rolname = current_user
    WHERE original.rolname = %(original)s AND original.rolname <> %(owner)s AND NOT original.rolsuper
      AND (own.rolsuper OR pg_catalog.current_setting('server_version_num')::int >= 150000
                           AND NOT pg_catalog.pg_has_role(original.oid, %(owner)s::name, 'USAGE'))
"""
# The roles whose code a restore would run with the restoring role's privileges; superusers have all privileges anyway.
OTHERS_SQL = """
    SELECT name FROM unnest(%s::text[]) AS name
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name AND (rolsuper OR rolname IN (current_user, session_user)))
    ORDER BY name COLLATE "C"
"""


# Statements of a dump: the owners of objects that may have to be superusers, and the publications whose owners have to be.
OWNED = re.compile(rf"ALTER (EVENT TRIGGER|FOREIGN DATA WRAPPER|PUBLICATION) ({NAME}) OWNER TO ({NAME})")
ALL_TABLES = re.compile(rf"CREATE PUBLICATION ({NAME}) FOR ALL TABLES\b.*", re.DOTALL)

# Why the trial restore, whose role is not a superuser, did not create an object, by SQLSTATE.
REASONS = {"42501": "only a superuser may create it"} | dict.fromkeys(("0A000", "58P01"), "not available on the trial server")
WITH_SQLSTATE = re.compile(r" \(([0-9A-Z]{5})\)$")


def require_owners(connection, manifest: Manifest, *, trust: Sequence[str], without: Sequence[str], into: str = "") -> None:
    """Raise Refusal if roles of the backup are missing, or their code would run and is neither trusted nor left out.

    `trust` are roles whose code may run, and `without` those whose objects are left out. The backup is restored into the new database
    `into`, if any, or replaces the one of `connection`: refuse if its owner does not suit the backup.
    """
    if unknown := [name for name in without if name not in manifest.owners]:
        raise Refusal(f"Nothing in {manifest.name} belongs to {unknown[0]}: omit --without {shlex.quote(unknown[0])}.")
    _require_roles(connection, manifest, without)
    _require_trust(connection, manifest, [*trust, *without])
    if manifest.original_owner in {*manifest.owners} - {*without}:
        _require_owner(connection, manifest.original_owner, into)


def with_reason(left_out: str) -> str:
    """Return what a verification left out, "EVENT TRIGGER seen (42501)", with the meaning of its SQLSTATE."""
    return WITH_SQLSTATE.sub(lambda match: f" ({REASONS.get(match[1], f'SQLSTATE {match[1]}')})", left_out)


def describe_untried(connection, manifest: Manifest) -> str:
    """Return a sentence about objects that this role may not be able to restore, as the verification could not; "" for a superuser."""
    left_out = manifest.verdict.left_out if manifest.verdict else ()
    untried = [one for one in left_out if WITH_SQLSTATE.search(one)]  # Without the objects of untrusted roles.
    if not untried or fetch_one(connection, SUPERUSER_SQL)[0]:
        return ""
    return (
        f"The verification did not create {', '.join(map(with_reason, untried))}: this role may not be allowed to either, and the restore then fails and"
        " replaces nothing. Restore as a superuser."
    )


def _require_roles(connection, manifest: Manifest, without: Sequence[str]) -> None:
    """Raise Refusal if roles of the backup are missing, or cannot be given their objects: nothing is left out silently.

    The roles `without` get no objects, but privileges may name them.
    """
    owners = [name for name in manifest.owners if name not in without]
    names = {"roles": [*manifest.owners, *manifest.roles], "owners": owners, "privileges": _privileges(connection)}
    rows = fetch_all(connection, MISSING_SQL, names)
    refuse_invalid_names(manifest.name, [name for name, is_missing in rows if is_missing])
    if missing := [f"CREATE ROLE {quote(name)} NOLOGIN;" for name, is_missing in rows if is_missing]:
        raise Refusal(
            f"The backup names roles that do not exist on this server: run {' '.join(missing)} and the command again."
        )
    if unassignable := [name for name, is_missing in rows if not is_missing]:
        grants = memberships(connection, unassignable)
        cures = [
            "connect as a superuser",
            f"leave out their objects with {' '.join(f'--without {shlex.quote(name)}' for name in unassignable)}",
        ]
        if len(grants) == len(unassignable):  # Membership in a superuser would make this role one.
            cures.append(f"run {' '.join(grants)}")
        raise Refusal(
            f"Objects in the backup belong to {', '.join(unassignable)}, and this role cannot give objects to them:"
            f" {', '.join(cures[:-1])}, or {cures[-1]}"
        )


def require_superusers(connection, statements: Sequence[str]) -> None:
    """Raise Refusal if the statements of a dump give objects that only a superuser may own to a role that is none on this server."""
    published = {match[1] for one in statements if (match := ALL_TABLES.fullmatch(one))}
    owned = [match.groups() for one in statements if (match := OWNED.fullmatch(one))]
    if fetch_one(connection, SUPERUSER_SQL)[0]:  # Who may give a publication to any role.
        published = set()
    found = [(kind, name, plain(owner)) for kind, name, owner in owned if kind != "PUBLICATION" or name in published]
    roles = others(connection, sorted({owner for *_, owner in found}))
    if not roles:
        return
    objects = ", ".join(f"{kind.lower()} {name} of {owner}" for kind, name, owner in found if owner in roles)
    alter = " ".join(f"ALTER ROLE {quote(role)} SUPERUSER;" for role in roles)
    without = " ".join(f"--without {shlex.quote(role)}" for role in roles)
    raise Refusal(
        f"Only superusers may own some objects in the backup, but their owners are not superusers on this server ({one_line(objects)}):"
        f" as a superuser, run {one_line(alter)} and make them NOSUPERUSER after the restore, unless they need it for something else; or leave out their"
        f" objects with {one_line(without)}."
    )


def _privileges(connection) -> list[str]:
    """Return the privileges on a role that acting as it needs.

    From 16 on, a role with CREATEROLE is a member of the roles that it creates, but may not use their privileges or SET ROLE to them.
    """
    return ["SET", "USAGE"] if connection.pg_version >= 16_00_00 else ["MEMBER"]


def memberships(connection, names: Sequence[str]) -> list[str]:
    """Return the statements that let this role act as those of the roles `names` that are not superusers: it would become one."""
    fully = " WITH INHERIT TRUE, SET TRUE" if connection.pg_version >= 16_00_00 else ""
    own = quote(ask(connection, "SELECT current_user"))
    return [f"GRANT {quote(name)} TO {own}{fully};" for name in others(connection, names)]


def unavailable(connection, names: Sequence[str]) -> list[str]:
    """Return those of the roles `names` as which this role cannot act, or that do not exist."""
    every = {"roles": [*names], "owners": [*names], "privileges": _privileges(connection)}
    return [name for name, _ in fetch_all(connection, MISSING_SQL, every)]


def require_replaceable(connection) -> None:
    """Raise Refusal if this role may not create a database and rename it and the one in use, whose owner the new one gets."""
    require_createdb(connection)
    database, owner, own = fetch_one(connection, DATABASE_SQL)
    if unavailable(connection, [owner]):
        cures = " or ".join([*memberships(connection, [owner]), f"ALTER DATABASE {quote(database)} OWNER TO {quote(own)};"])
        raise Refusal(
            f"The database {database} belongs to {owner}, so this role cannot replace it: as a superuser, run {cures} or restore"
            " with --into NAME."
        )


def new_owner(connection) -> str:
    """Return the owner that a database created like that of `connection` gets."""
    return fetch_one(connection, NEW_OWNER_SQL, [["USAGE", *_privileges(connection)]])[0]


def _require_owner(connection, original: str, into: str) -> None:
    """Raise Refusal if the restored database would get an owner with whom the objects of `original`, the owner of the backup's, cannot be used."""
    owner = new_owner(connection)
    if not fetch_all(connection, UNUSABLE_SQL, {"original": original, "owner": owner}):
        return
    (database, *_) = fetch_one(connection, DATABASE_SQL)
    if into:
        cure = f"run CREATE DATABASE {quote(into)} OWNER {quote(original)}; and the command again."
    else:
        cure = (
            f"if {database} is empty, run ALTER DATABASE {quote(database)} OWNER TO {quote(original)}; and the command again; otherwise"
            " restore with --into NAME."
        )
    raise Refusal(
        f"The original database and objects in it belong to {original}, but the restored one would belong to {owner}, and {original} would"
        f" be neither trusted there nor allowed to create tables: {cure}"
    )


def untrusted(connection, manifest: Manifest) -> list[str]:
    """Return the roles whose code a restore runs as another role: all but those that the original trusts.

    On the original's server, its superusers and this role are trusted too. Elsewhere, a role of the same name may be another one.
    """
    owners = [name for name in manifest.owners if name not in manifest.trusted]
    cluster = read_origin(connection).cluster
    return others(connection, owners) if cluster and cluster == manifest.cluster else sorted(owners)


def others(connection, owners: Sequence[str]) -> list[str]:
    """Return those of the roles that are neither superusers nor the role of `connection`."""
    return [name for (name,) in fetch_all(connection, OTHERS_SQL, [list(owners)])]


def _require_trust(connection, manifest: Manifest, trust: Sequence[str]) -> None:
    """Raise Refusal if code of roles that are neither trusted nor in `trust` would run as this role.

    A restore runs functions in checks, for example, as the role that restores. An unsigned backup is
    not checked: it was trusted as a whole with --unsigned.
    """
    found = [name for name in untrusted(connection, manifest) if name not in trust]
    if found and manifest.signed == SIGNED:
        trust_options, without_options = (
            " ".join(f"{option} {shlex.quote(name)}" for name in found) for option in ("--trust", "--without")
        )
        raise Refusal(
            f"Restoring {manifest.name} would run code of {', '.join(found)} as this role: leave out the objects of"
            f" {'that role' if len(found) == 1 else 'those roles'} with {without_options}; or check the code with `dbbackup --check`, which runs it in isolation,"
            f" and if you trust it, add {trust_options}."
        )
