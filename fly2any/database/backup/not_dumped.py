"""Objects that belong to a database but are not in its dump, so that a database that replaces it lacks them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Refusal
from ..migration.activity import UNENDING_SQL, Activity, read_activity, terminate
from ..schema.relation_kinds import has_citus, read_placed
from ..sql import fetch_one, literal, quote

ATTACHED_SQL = """
    SELECT pg_catalog.current_database()::text,
           ARRAY(SELECT x.gid::text FROM pg_catalog.pg_prepared_xacts AS x
                 WHERE x.database = pg_catalog.current_database() ORDER BY x.gid),
           ARRAY(SELECT s.slot_name::text FROM pg_catalog.pg_replication_slots AS s
                 WHERE s.database = pg_catalog.current_database() ORDER BY s.slot_name),
           ARRAY(SELECT s.subname::text FROM pg_catalog.pg_subscription AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid
                 WHERE d.datname = pg_catalog.current_database() ORDER BY s.subname),
           ARRAY(SELECT DISTINCT t.spcname::text FROM pg_catalog.pg_tablespace AS t
                 WHERE t.oid IN (SELECT c.reltablespace FROM pg_catalog.pg_class AS c) ORDER BY 1)
"""
SHARED = "pg_global"  # The tablespace of the server's shared catalogues.


@dataclass(frozen=True, slots=True)
class Attached:
    """Names of prepared transactions, replication slots, subscriptions and tablespaces of a database, and sessions this role may not end."""

    prepared: tuple[str, ...]
    slots: tuple[str, ...]
    subscriptions: tuple[str, ...]
    tablespaces: tuple[str, ...]
    sessions: tuple[Activity, ...] = ()

    def notes(self) -> list[str]:
        """Return a sentence for each kind of object that a database that replaces this one will lack."""
        notes = []
        if self.prepared:
            notes.append(f"Prepared transactions prevent the swap until they end ({', '.join(self.prepared)}).")
        if self.sessions:
            notes.append(f"{hindrance(self.sessions)} Otherwise the swap fails at the end.")
        if self.slots:
            notes.append(
                f"Replication slots stay with the old database ({', '.join(self.slots)}): recreate the slots, and let their consumers resynchronise."
            )
        if self.subscriptions:
            notes.append(f"Subscriptions are not restored ({', '.join(self.subscriptions)}): create them again.")
        if self.tablespaces:
            notes.append(
                f"Tablespaces hold parts of this database ({', '.join(self.tablespaces)}): the copy needs space there and in"
                " the default tablespace."
            )
        return notes

    def require_no_prepared(self, database: str) -> None:
        """Raise Refusal if a prepared transaction keeps the database from being renamed."""
        if self.prepared:
            ends = " ".join(f"ROLLBACK PREPARED {literal(gid)};" for gid in self.prepared)
            raise Refusal(
                f"Prepared transactions prevent the replacement of {quote(database)}: commit them, or run in it: {ends}"
                " Nothing was changed."
            )


def read_attached(connection) -> Attached:
    """Return the objects that belong to the database of `connection` but are not in its dump."""
    database, prepared, slots, subscriptions, tablespaces = fetch_one(connection, ATTACHED_SQL)
    sessions = read_activity(connection, UNENDING_SQL, databases=[database])
    used = tuple(name for name in tablespaces if name != SHARED)
    return Attached(tuple(prepared), tuple(slots), tuple(subscriptions), used, sessions)


def hindrance(sessions: tuple[Activity, ...]) -> str:
    """Return which sessions prevent the swap, and what ends them."""
    ends = " ".join(map(terminate, sessions))
    return (
        f"This role may not end sessions that use the database: {'; '.join(map(str, sessions))}. End them, as a superuser: {ends} A member"
        " of pg_signal_backend can also end sessions of roles that are not superusers."
    )


def require_undistributed(connection) -> None:
    """Raise Refusal if tables are on nodes of Citus, which find them by the database's name: the old database would lose them."""
    if has_citus(connection) and read_placed(connection):
        raise Refusal(
            "Citus distributes this database, and the old one would lose its shards when it is renamed. Nothing was changed. Run"
            " `manage.py dbdistribute --undo --yes` first, or restore with --into NAME."
        )
