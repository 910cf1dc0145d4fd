"""The plan and the distribution as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Placement
from ..json_reports import dumped
from ..schema.relation_kinds import Kind
from ..terminal_text import printable
from ..units import plural, size
from .steps import Distribution, Step

LOCKS = {
    "done": "",
    "reference": "reads and writes wait",
    "locked": "writes wait",
    "online": "nothing waits for long",
}


def _lock(step: Step) -> str:
    """Return the key of LOCKS for what waits while the rows of the table are copied."""
    if step.done:
        return "done"
    return "reference" if step.planned.placement is Placement.REFERENCE else "online" if step.online else "locked"


def _placement(step: Step) -> str:
    return f"distributed by {step.planned.key}" if step.planned.key else "reference table"


def as_json(distribution: Distribution) -> str:
    return dumped(
        {
            "citus": distribution.cluster.version,
            "done": distribution.done,
            "tables": [
                {
                    "table": step.planned.table,
                    "placement": step.planned.placement.value,
                    "key": step.planned.key or None,
                    "now": step.kind.value,
                    "rows": step.rows,
                    "bytes": step.bytes,
                    "while_copied": LOCKS[_lock(step)] or None,
                }
                for step in distribution.steps
            ],
            "others": [{"table": one.name, "now": one.kind.value} for one in distribution.others],
            "nodes": [
                {"node": node.name, "is_coordinator": node.is_coordinator, "rows": held.rows, "bytes": held.bytes}
                for node in distribution.cluster.nodes
                for held in [distribution.nodes[node.name]]
            ],
            "skew": distribution.skew,
        }
    )


def as_text(distribution: Distribution, last: str) -> str:
    """Return the plan, or the report of what it did, with `last` as its last line."""
    return printable("\n".join([*_lines(distribution), last]))


def _lines(distribution: Distribution) -> Iterator[str]:
    cluster = distribution.cluster
    yield f"Citus {cluster.version}, {plural(len(cluster.workers), 'node')} with shards: {', '.join(node.name for node in cluster.workers)}"
    yield ""
    yield f"{'Table':<22}{'Placement':<20}{'Now':<24}{'Rows':>12}{'Bytes':>12}  While its rows are copied"
    for step in distribution.steps:
        figures = f"{step.rows:>12,}{size(step.bytes):>12}"
        yield f"{step.planned.table:<22}{_placement(step):<20}{step.kind.value:<24}{figures}  {LOCKS[_lock(step)] or 'done'}"
    managed = sum(one.kind is Kind.MANAGED for one in distribution.others)
    joined = (
        f", {managed} of them as local tables of Citus, because foreign keys connect them with reference tables"
        if managed
        else ""
    )
    yield f"{plural(len(distribution.others), 'other table')} stay on the coordinator{joined}."
    yield ""
    yield f"{'Node':<34}{'Rows':>12}{'Bytes':>12}"
    for node in cluster.nodes:
        held = distribution.nodes[node.name]
        yield f"{node.name + (' (coordinator)' if node.is_coordinator else ''):<34}{held.rows:>12,}{size(held.bytes):>12}"
    if distribution.skew is not None:
        yield f"Skew: the fullest node holds {distribution.skew:.2f} times the average of the distributed tables."
    yield ""
