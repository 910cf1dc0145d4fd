"""What the role of the connection lacks on our tables, so that the site or the admin would fail."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from .findings import Finding, Severity
from .other_writers import grantees, named, place_of, together
from .schema.cures import comment, preceded
from .schema.objects import PRIVILEGES, Table
from .schema.protected_tables import APPEND_ONLY, LEDGERS
from .server import Server
from .sql import quote

# What a role that serves the site or the admin does not need.
NEEDLESS = dict.fromkeys(LEDGERS, PRIVILEGES[1:]) | dict.fromkeys(APPEND_ONLY, PRIVILEGES[2:])

Grants = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]  # privileges, and the tables on which they are missing

BY_OWNER = "the owner of the tables must run it"
BY_SCHEMA_OWNER = "the owner of the schema must run it"
BY_DATABASE_OWNER = "the owner of the database, or a superuser, must run it"
OF_DATABASE = re.compile(r"^(?:ALTER (?:DATABASE|COLLATION|ROLE ALL)|REINDEX DATABASE)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Privilege:
    """A privilege, and on how many of the contract's existing tables the role holds it; ALTER is the owner's."""

    privilege: str
    tables: int
    held: int


def counted(tables: Iterable[Table]) -> tuple[Privilege, ...]:
    """Return on how many of `tables` the role holds each privilege; () without a table."""
    held = [(*table.held, *(["ALTER"] if table.owned else [])) for table in tables]
    return tuple(Privilege(name, len(held), sum(name in one for one in held)) for name in (*PRIVILEGES, "ALTER") if held)


def lacking(server: Server, tables: tuple[Table, ...], *, site: frozenset[str]) -> Iterator[Finding]:
    """Yield what the role of `server` lacks on some of `tables` while it has it on others; otherwise, in a note, what it lacks on any.

    The tables of the admin and its packages are a group of their own: the site uses only those of `site`.
    """
    found = [*_creates_nothing(server, tables), *_unequal(server, tables, site), *_not_owned(server, tables, site)]
    yield from found or _missing(server, tables)


def of_server(server: Server, alias: str) -> Iterator[Finding]:
    """Yield the findings about the server of the database `alias`; a cure that its role may not run says who may."""
    for one in server.findings(alias):
        if server.owns_database or not one.is_sql or not OF_DATABASE.search(one.cure):
            yield one
        else:
            yield replace(one, cure=preceded(BY_DATABASE_OWNER, one.cure), loses=one.loses or BY_DATABASE_OWNER)


def _unequal(server: Server, tables: tuple[Table, ...], site: frozenset[str]) -> Iterator[Finding]:
    role, schema = server.role, quote(server.schema or "")
    held = {table.name: {*table.held, *table.held_by_column} for table in tables}
    if not server.may_use and any(held.values()):
        yield Finding(
            Severity.ERROR, "server.privileges", role,
            f"The role {role} holds privileges on our tables, but not USAGE on their schema {server.schema}, so it can read and write none of them.",
            f"{comment('As its owner:')}\nGRANT USAGE ON SCHEMA {schema} TO {quote(role)};", is_sql=True, loses=BY_SCHEMA_OWNER,
        )  # fmt: skip
        return
    serves = {
        name: set().union(*(held[one] for one in group if one not in LEDGERS))
        for group in _groups(held, site)
        for name in group
    }
    if grants := _wanted(held, serves):
        lacks, cure, theirs = _granting(grants, tables, [role], schema)
        yield Finding(
            Severity.WARNING, "server.privileges", role,
            f"The role {role} does not hold {lacks}, but holds the same on our other tables.",
            cure, is_sql=True, loses=BY_OWNER if theirs else "",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Others:
    """Other roles with the same privileges on each table of ours."""

    roles: list[str]
    expected: set[str]
    held: dict[str, set[str]]
    hidden: dict[str, str]  # the columns of a table that they may not read, as a message names them


def of_other_roles(server: Server, tables: tuple[Table, ...], *, site: frozenset[str]) -> Iterator[Finding]:
    """Yield what other roles that write our tables lack on some of them; a note where at least as many of them hold it."""
    others = _others(server, {table.name for table in tables})
    holders = Counter[tuple[str, str]]()
    for one in others:
        holders.update({(name, privilege): len(one.roles) for name in one.held for privilege in one.held[name]})
    unread: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    lacking: dict[tuple[Grants, bool], list[str]] = defaultdict(list)
    for one in others:
        should_hold = _should_hold(one.held, one.expected, site)
        if columns := tuple((name, some) for name, some in one.hidden.items() if some and "SELECT" in should_hold[name]):
            unread[columns] += one.roles
        if grants := _wanted(one.held, should_hold):
            is_held_elsewhere = {*chain(*grants)} <= set().union(*one.held.values())
            lacking[tuple((privileges, tuple(names)) for privileges, names in grants.items()), is_held_elsewhere] += one.roles
    for columns, roles in unread.items():
        yield from (_hidden(columns, tables, some, quote(server.schema or "")) for some in together(sorted(roles)))
    for (missing, is_held_elsewhere), roles in lacking.items():
        is_of_others = all(
            holders[name, one] >= len(roles) for privileges, names in missing for name in names for one in privileges
        )
        for some in together(sorted(roles)):
            yield _lacking(missing, tables, some, quote(server.schema or ""), is_held_elsewhere, is_of_others)


def _others(server: Server, ours: set[str]) -> list[_Others]:
    found: dict[tuple[str, str], _Others] = {}
    for names, should, name, holds, columns in server.granted:
        if name in ours:
            new = _Others(json.loads(names), {*should.split()} & {*PRIVILEGES}, {}, {})
            one = found.setdefault((names, should), new)
            one.held[name], one.hidden[name] = {*holds.split()}, columns
    return [*found.values()]


def _lacking(
    missing: Grants, tables: tuple[Table, ...], roles: Sequence[str], schema: str, is_held_elsewhere: bool, is_of_others: bool
) -> Finding:
    lacks, cure, theirs = _granting(dict(missing), tables, roles, schema)
    do, hold, them = ("do", "hold", "them") if len(roles) > 1 else ("does", "holds", "it")
    why = (
        f"{hold} the same on our other tables"
        if is_held_elsewhere
        else f"default privileges give {them} the same on new tables, or dbroles created {them} for the site"
    )
    unwanted = "every role that can connect would hold it" if "" in roles else "it may be on purpose" if is_of_others else ""
    return Finding(
        Severity.NOTE if is_of_others else Severity.WARNING, "grants.missing", place_of(roles),
        f"{named(roles)} {do} not hold {lacks}, but {why}.",
        cure, is_sql=True, loses=BY_OWNER if theirs else unwanted,
    )  # fmt: skip


def _hidden(columns: tuple[tuple[str, str], ...], tables: tuple[Table, ...], roles: Sequence[str], schema: str) -> Finding:
    """Return the note about columns that roles may not read in tables in which they read others."""
    _, cure, theirs = _granting({("SELECT",): [name for name, _ in columns]}, tables, roles, schema)
    return Finding(
        Severity.NOTE, "grants.missing", place_of(roles),
        f"{named(roles)} {'do' if len(roles) > 1 else 'does'} not hold SELECT on {'; '.join(f'{some} of {name}' for name, some in columns)},"
        " but on the other columns: each query that names all columns fails.",
        cure, is_sql=True, loses=BY_OWNER if theirs else "it may be on purpose",
    )  # fmt: skip


def _should_hold(held: dict[str, set[str]], expected: set[str], site: frozenset[str]) -> dict[str, set[str]]:
    """Return what another role should hold on each table: what it holds on most of its group, and `expected` where it serves.

    A role that holds nothing any more serves both groups: a restore without privileges took them all.
    """
    should: dict[str, set[str]] = {}
    for group in _groups(held, site):
        number = Counter(privilege for name in group for privilege in held[name])
        usual = {privilege for privilege, tables in number.items() if 2 * tables > len(group)}
        usual = usual if "INSERT" in usual else set()  # Other roles that read may be meant to read some tables only.
        serves = usual or not site.isdisjoint(group) or not any(held.values())
        should |= dict.fromkeys(group, usual | (expected if serves else set()))
    return should


def _groups(names: Iterable[str], site: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the tables of the site, and those of the admin and its packages."""
    listed = list(names)
    return [name for name in listed if name in site], [name for name in listed if name not in site]


def _wanted(held: dict[str, set[str]], serves: dict[str, set[str]]) -> dict[tuple[str, ...], list[str]]:
    """Return the tables on which a role lacks privileges in `serves` that it needs there, by these privileges."""
    grants: dict[tuple[str, ...], list[str]] = {}
    for name, privileges in serves.items():
        if wanted := privileges - held[name] - {*NEEDLESS.get(name, ())}:
            grants.setdefault(tuple(sorted(wanted, key=PRIVILEGES.index)), []).append(name)
    return grants


def _granting(
    grants: Mapping[tuple[str, ...], Sequence[str]], tables: tuple[Table, ...], roles: Sequence[str], schema: str
) -> tuple[str, str, bool]:
    """Return what is lacking, as a message names it, the statements that grant it, and whether another role must run them."""
    lacks = "; ".join(f"{', '.join(privileges)} on {', '.join(sorted(names))}" for privileges, names in grants.items())
    theirs = any(not table.owned for table in tables if any(table.name in names for names in grants.values()))
    statements = [
        f"GRANT {', '.join(privileges)} ON {', '.join(f'{schema}.{quote(name)}' for name in sorted(names))} TO {grantees(roles)};"
        for privileges, names in grants.items()
    ]
    return lacks, "\n".join([*([comment("As their owner:")] if theirs else []), *statements]), theirs


def _creates_nothing(server: Server, tables: tuple[Table, ...]) -> Iterator[Finding]:
    """Yield the finding about a role that migrates, because tables of ours are its own or none exist, and may create nothing."""
    if server.schema and not server.may_create and (not tables or any(table.owned for table in tables)):
        wanted = "CREATE" if server.may_use else "USAGE, CREATE"
        yield Finding(
            Severity.WARNING, "server.privileges", server.role,
            f"The role {server.role} may not create tables or indexes in the schema {server.schema}: migrations and cures that create one fail.",
            f"{comment('As its owner:')}\nGRANT {wanted} ON SCHEMA {quote(server.schema)} TO {quote(server.role)};", is_sql=True, loses=BY_SCHEMA_OWNER,
        )  # fmt: skip


def _not_owned(server: Server, tables: tuple[Table, ...], site: frozenset[str]) -> Iterator[Finding]:
    """Yield the finding about a role that migrates some of our tables, and may not change others."""
    others: dict[str, str] = {}  # The owner of the group's other tables, of which the role is a member, or the role itself.
    for group in ([one for one in tables if one.name in site], [one for one in tables if one.name not in site]):
        if owner := next((one.owner for one in group if one.owned), ""):
            others |= {one.name: owner for one in group if not one.owned}
    if others:
        names, owners = sorted(others), sorted({one.owner for one in tables if one.name in others})
        alter = [f"ALTER TABLE {quote(server.schema or '')}.{quote(name)} OWNER TO {quote(others[name])};" for name in names]
        yield Finding(
            Severity.WARNING, "server.privileges", server.role,
            f"The role {server.role} may change our other tables, but not {', '.join(names)} (owner: {', '.join(owners)}): migrations that change these fail.",
            "\n".join([comment("As a superuser:"), *alter]), is_sql=True, loses="a superuser must run it",
        )  # fmt: skip


def _missing(server: Server, tables: tuple[Table, ...]) -> Iterator[Finding]:
    """Yield the note about what the role does not hold on some table, without what no role but the one that migrates needs there."""
    lacks = [one for one in PRIVILEGES if any(one not in {*table.held, *NEEDLESS.get(table.name, ())} for table in tables)]
    lacks += ["ALTER"] if not all(table.owned for table in tables) else []
    lacks += [f"{name} in the schema" for name, held in (("USAGE", server.may_use), ("CREATE", server.may_create)) if not held]
    if lacks:
        yield Finding(
            Severity.NOTE, "server.privileges", server.role,
            f"The role {server.role} does not hold {', '.join(lacks)}: enough for this report, but not for every command.",
            "This is as intended for a role that `dbroles` made to serve or to read. To migrate, connect as the owner of the tables; the site needs SELECT, INSERT, UPDATE and DELETE."
            if server.owner_to_set is None
            else f"The role is a member of {server.owner_to_set}, the owner of the tables, but does not inherit its privileges:"
            f" ALTER ROLE {quote(server.role)} SET role TO {quote(server.owner_to_set)};",
        )  # fmt: skip
