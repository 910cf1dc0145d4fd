"""What each kind of code of untrusted roles is called in messages, and its cure."""

from __future__ import annotations

from dataclasses import dataclass

from ..findings import Finding, Severity
from ..sql import quote
from ..units import plural
from .trigger_creators import UnknownCreator

# Giving the owner the functions of the trigger would not be enough: the functions that they call would still be the other role's.
COPY = "or, if it is needed, let the owner of the table create it again, with copies of all functions that it calls, once you have read them."
MOVE = "or, if the owner of the table created it, let the owner create it again without WHEN, and test the condition in its function."
UNLESS = "Unless the site created it, DROP TRIGGER {}; then, in both cases, {} which removes no trigger."
CONNECTED = "Table {name}, which foreign keys connect with {connected},"
# What each kind of row of STRANGERS_SQL is called, and its cure.
KINDS = {
    "owner": (
        "Table {table}{others}, whose owner is not trusted,",
        "If the site created {them}: GRANT CREATE ON SCHEMA {schema} TO {role} WITH GRANT OPTION; otherwise copy {their} rows with COPY, and"
        " drop {them}. REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC keeps other roles from creating any.",
    ),
    "trigger": (
        "Trigger {name} of {table}",
        f"DROP TRIGGER {{quoted}} ON {{at}}; REVOKE TRIGGER ON {{at}} FROM {{role}}, PUBLIC; {COPY}",
    ),
    "planted": (
        "Trigger {name}, {elsewhere}",
        f"DROP TRIGGER {{name}}; REVOKE TRIGGER ON that table FROM {{role}}, PUBLIC; {COPY}",
    ),
    "part": ("{used}, which {name} uses,", f"Ask the owner of {{place}} to drop that {{part}}, {COPY}"),
    "part of the table": (
        "{used}, which {name} uses,",
        "Ask the owner of the table to change the type of the column, or the partition key, that uses it.",
    ),
    "lookalike": (
        "The {code}",
        "Ask {role} to drop the {name}; REVOKE CREATE ON its schema FROM {role}, PUBLIC; or, once the {code} qualifies everything that it"
        " calls: ALTER FUNCTION … SET search_path = pg_catalog, pg_temp.",
    ),
    "reference": (
        CONNECTED,
        "Ask its owner to remove what makes the table run code (the reason above), or drop the foreign key.",
    ),
    "unlocked": (
        CONNECTED,
        "Its owner can add a trigger before the write, because {user} does not lock it: GRANT DELETE ON {name} TO {user}; and USAGE on"
        " its schema, or give the table to the owner of {table}. If {user} already has these privileges, try again.",
    ),
}


@dataclass(frozen=True, slots=True)
class UntrustedCode:
    """A table of ours, a trigger on one, or a table that references one, that runs code of an untrusted role."""

    table: str
    what: str
    role: str  # "" if it is not known.
    cure: str
    is_definer: bool  # It runs as its owner.
    runs: str = "runs"
    reason: str = ""

    @property
    def sentence(self) -> str:
        how = "as that role, which can replace it with code that runs " if self.is_definer else ""
        why = f", because {self.reason}" if self.reason else ""
        whose = f"the role {self.role}" if self.role else "the role that created it, which PostgreSQL does not record,"
        return f"{self.what} {self.runs} code of {whose} {how}with the privileges of the role that writes to {self.table}{why}"

    @property
    def finding(self) -> Finding:
        return Finding(Severity.ERROR, "tables.untrusted", self.table, f"{self.sentence}.", self.cure)


@dataclass(frozen=True, slots=True)
class Found:
    """A row of STRANGERS_SQL: code that a write to `table` runs, and what PostgreSQL records of it."""

    schema: str
    table: str
    by: str  # The trigger or rule of the site that may write to the table that `name` is on or refers to, "" for a foreign key.
    name: str
    number: int
    role: str
    is_definer: bool
    code: str

    @property
    def elsewhere(self) -> str:
        return f"on a table that the {self.by} may write to," if self.by else f"whose foreign key references {self.table},"


def described(kind: str, found: Found) -> UntrustedCode:
    """Return what was found, with its cure."""
    part, _, _ = found.name.partition(" ")
    names = {
        "table": found.table, "name": found.name, "part": part, "place": found.name.rpartition(" ")[2], "elsewhere": found.elsewhere,
        "others": f" and {plural(found.number - 1, 'other')}" if found.number > 1 else "",
        "them": "them" if found.number > 1 else "it", "their": "their" if found.number > 1 else "its",
        "connected": f"a table that the {found.by} may write to" if found.by else found.table,
        "code": found.code, "used": found.code[:1].upper() + found.code[1:], "schema": quote(found.schema), "role": quote(found.role),
        "quoted": quote(found.name), "user": quote(found.code), "at": f"{quote(found.schema)}.{quote(found.table)}",
    }  # fmt: skip
    is_table = kind == "part" and part in ("table", "partitioned")
    what, cure = (text.format(**names) for text in KINDS["part of the table" if is_table else kind])
    runs = (
        "may run"
        if kind in ("reference", "unlocked", "lookalike")
        else "run"
        if kind == "owner" and found.number > 1
        else "runs"
    )
    reason = (
        found.code
        if kind == "reference"
        else f"{names['name']}{names['others']} may be called in place of the one that it names"
        if kind == "lookalike"
        else ""
    )
    return UntrustedCode(found.table, what, found.role, cure, found.is_definer, runs, reason)


def describe_unknown(found: Found, one: UnknownCreator) -> UntrustedCode:
    """Return a trigger whose creator matters and is not known; `code` is the place of one that is on another table."""
    place = f"{one.name} ON {one.table}"
    what = f"Trigger {place}, {found.elsewhere}" if found.code else f"Trigger {place}"
    revoke = f"REVOKE TRIGGER ON {one.table} FROM {one.holders};" if one.holders else ""
    cure = f"DROP TRIGGER {place}; {revoke} {MOVE}" if one.always else UNLESS.format(place, revoke)
    return UntrustedCode(found.table, what, "", " ".join(cure.split()), False, "may run", one.reason)
