"""The plan of an erasure, as text."""

from __future__ import annotations

from collections.abc import Iterator

from ..terminal_text import printable
from .plan import Plan


def plan_as_text(plan: Plan) -> str:
    """Return the number of rows that an erasure removes, changes, clears and leaves."""
    return printable("\n".join(_lines(plan)) + "\n")


def _lines(plan: Plan) -> Iterator[str]:
    yield f"Nothing was changed. --yes erases {plan.person.address_or_id} permanently. These rows are removed:"
    yield from (_line(table, count) for table, count in plan.removed.items())
    if plan.changed:
        yield "These rows stay; their foreign key only clears the reference:"
        for change in plan.changed:
            yield _line(
                change.table, change.rows, f"{change.constraint}, ON DELETE {change.action}: {', '.join(change.columns)}"
            )
    if plan.cleared:
        yield "The address is replaced in these rows:"
        yield from (_line(table, count) for table, count in plan.cleared.items())
    if plan.remaining:
        yield "The address or the ID would remain here:"
        for place in plan.remaining:
            yield _line(f"{place.table}.{place.column}", place.rows, f"{place.holds}: {place.reason}")
    if plan.unsearched:
        yield "Not searched:"
        yield from (f"  {one.place}: {one.reason}" for one in plan.unsearched)


def _line(name: str, count: int, note: str = "") -> str:
    return f"  {name:<40}{count:>12,}  {note}".rstrip()
