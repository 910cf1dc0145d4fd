"""Distributes the tables of a database over the nodes of Citus as the plan says, and reverses it.

Each table is a step, and what is done is read from the catalogue, so a run that was killed is resumed by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from django.conf import settings
from django.db import OperationalError

from ..errors import Refusal, sqlstate
from ..facts import Placement
from ..findings import Severity
from ..migration.advisory_locks import MIGRATION_LOCK, advisory_lock
from ..migration.retry import LOCKED_OUT, try_again
from ..progress import Progress
from ..schema.relation_kinds import Kind, read_relations
from ..server import read_schema
from ..sql import EXPLICIT_TRIGGER_SQL, ask, execute, fetch_one, quote, time_limits
from ..units import span
from ..verification import verify
from .cluster import read_cluster, require_cluster
from .kept import kept
from .plan import read_plan
from .steps import Distribution, Step, read_distribution

# What Citus would refuse in the middle of a run, of objects that our migrations did not create.
OBSTACLE_SQL = f"""
    SELECT what FROM (
        SELECT 1, pg_catalog.format('the foreign key %%s of %%s references %%s', k.conname, k.conrelid::regclass, k.confrelid::regclass)
        FROM pg_catalog.pg_constraint AS k
        WHERE k.contype = 'f' AND k.confrelid = ANY (%(distributed)s)
        UNION ALL
        SELECT 2, pg_catalog.format('%%s has the trigger %%s', t.tgrelid::regclass, t.tgname)
        FROM pg_catalog.pg_trigger AS t WHERE {EXPLICIT_TRIGGER_SQL} AND t.tgrelid = ANY (%(placed)s)
        UNION ALL
        SELECT 3, pg_catalog.format('the unique index %%s of %%s lacks the column by which rows are placed', i.indexrelid::regclass, i.indrelid::regclass)
        FROM pg_catalog.pg_index AS i WHERE i.indisunique AND i.indrelid = ANY (%(distributed)s)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                          WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]) AND a.attname = ANY (%(keys)s))
    ) AS found (kind, what) ORDER BY kind, what LIMIT 1
"""
# A transaction that changed a reference table may then use only one connection to each node.
SEQUENTIAL = "SET LOCAL citus.multi_shard_modify_mode TO 'sequential'"
NOT_OF_TABLES = ("server.", "database.", "distribution.")  # Findings that do not prevent it.


def require_sound(connection) -> None:
    """Raise Refusal if migrations are pending, the schema differs from the contract, or Citus would refuse an object of others."""
    verification = verify(connection)
    if verification.migrations.pending:
        raise Refusal("Migrations are pending: run `manage.py migrate`, then run the command again.")
    for one in verification.findings:
        if one.severity is not Severity.NOTE and not one.code.startswith(NOT_OF_TABLES):
            raise Refusal(
                f"The schema differs from the contract ({one.code} at {one.where}): fix the findings of `manage.py dbstatus`, then run the"
                " command again."
            )
    relations = read_relations(connection, schema=read_schema(connection))
    placed = [one for one in read_plan() if one.placement is not Placement.LOCAL and one.table in relations]
    found = fetch_one(
        connection,
        OBSTACLE_SQL,
        {
            "placed": [relations[one.table].oid for one in placed],
            "distributed": [relations[one.table].oid for one in placed if one.key],
            "keys": sorted({one.key for one in placed if one.key}),
        },
    )
    if found:
        raise Refusal(f"Citus cannot distribute our tables, because {found[0]}: drop it, then run the command again.")


def planned(connection) -> Distribution:
    """Return the plan, and how much of it is done; raise Refusal where `distribute` does."""
    cluster = require_cluster(connection)
    require_sound(connection)
    return read_distribution(connection, cluster)


def distribute(connection, *, patience: float, progress: Progress) -> Distribution:
    """Carry out what is left of the plan, and return the result. Raises Refusal if that is not possible."""
    with advisory_lock(connection, MIGRATION_LOCK, patience=patience, say=progress.say):
        before = planned(connection)
        left = [step for step in before.steps if not step.done]
        for number, step in enumerate(left):
            progress.show(f"placing {step.planned.table}", 100 * number / len(left))
            _place(connection, step, patience=patience, progress=progress)
            execute(connection, f"ANALYZE {quote(step.planned.table)}")
        progress.clear()
        return read_distribution(connection, before.cluster)


def _place(connection, step: Step, *, patience: float, progress: Progress) -> None:
    schema, key = read_schema(connection), step.planned.key
    table = f"{quote(schema)}.{quote(step.planned.table)}"

    def convert(call: str, *arguments: str, then: str = "") -> None:
        def attempt():
            with _converting(connection, schema):
                ask(connection, f"SELECT pg_catalog.{call}", arguments)
                if then:
                    ask(connection, f"SELECT pg_catalog.{then}", arguments[:1])

        _retried(attempt, step.planned.table, patience=patience, progress=progress)

    if step.planned.placement is Placement.REFERENCE:
        # Otherwise Citus adds the tables that keys connect with it by itself, and removes them again when a migration drops the
        # last key: that fails, because they have identity columns.
        if not step.kind.is_of_citus:
            convert("citus_add_local_table_to_metadata(%s, cascade_via_foreign_keys => true)", table)
        convert("create_reference_table(%s)", table)
        return
    # Otherwise the values that ANALYZE sampled stay in the statistics of the table on this server.
    if not step.kind.is_of_citus:
        convert("citus_add_local_table_to_metadata(%s)", table)
    if not step.online:
        # Citus leaves the rows that it copied on this server's disk, where no query sees them.
        convert("create_distributed_table(%s, %s)", table, key, then="truncate_local_data_after_distributing_table(%s)")
    else:
        execute(connection, "SET statement_timeout TO 0")
        ask(connection, "SELECT pg_catalog.create_distributed_table_concurrently(%s, %s)", [table, key])
        execute(connection, "RESET statement_timeout")


def gather(connection, *, patience: float, progress: Progress) -> Distribution:
    """Move all rows back to the coordinator, into plain tables, and return the result. Raises Refusal without Citus."""
    cluster = read_cluster(connection)
    if not cluster.version or cluster.group:
        raise Refusal(cluster.unfit())
    schema = read_schema(connection)
    with advisory_lock(connection, MIGRATION_LOCK, patience=patience, say=progress.say):
        while placed := _placed(connection, schema):
            progress.show(f"moving {placed[0]} to the coordinator", None)
            _retried(partial(_undistribute, connection, schema, placed[0]), placed[0], patience=patience, progress=progress)
            for table in set(placed).difference(_placed(connection, schema)):
                execute(connection, f"ANALYZE {quote(table)}")
        progress.clear()
        return read_distribution(connection, cluster)


def _placed(connection, schema: str) -> list[str]:
    """Return those of our tables that Citus placed, reference tables first: what keys connect with them goes with them."""
    relations = read_relations(connection, schema=schema)
    placed = [relations[one.table] for one in read_plan() if one.table in relations and relations[one.table].kind.is_of_citus]
    return [one.name for one in sorted(placed, key=lambda one: one.kind is not Kind.REFERENCE)]


def _undistribute(connection, schema: str, table: str) -> None:
    with _converting(connection, schema, undoing=True):
        place = f"{quote(schema)}.{quote(table)}"
        ask(connection, "SELECT pg_catalog.undistribute_table(%s, cascade_via_foreign_keys => true)", [place])


@contextmanager
def _converting(connection, schema: str, *, undoing: bool = False) -> Iterator[None]:
    """Run the block, in which Citus converts tables, in one transaction that waits for a lock as briefly as a migration does."""
    with time_limits(connection, lock=settings.LOCK_TIMEOUT, statement=0):
        execute(connection, SEQUENTIAL)
        with kept(connection, schema, undoing=undoing):
            yield


def _retried(action: Callable[[], None], table: str, *, patience: float, progress: Progress) -> None:
    def again(error: OperationalError, pause: float) -> None:
        progress.say(f"{table} is locked by other sessions; retrying in {pause:.1f} s.")

    try:
        try_again(action, patience=patience, again=again)
    except OperationalError as error:
        if sqlstate(error) not in LOCKED_OUT:
            raise
        raise Refusal(
            f"{table} was locked by other sessions for {span(patience)}: run the command again when the database is less busy;"
            " it resumes where it stopped. `manage.py dbhealth transactions locks` shows the lock holders."
        ) from error
