"""The filters and orders that the B-tree indexes of a model serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import models
from django.db.models.fields import NOT_PROVIDED

from fly2any.postgres.indexes import Index


@dataclass(frozen=True, slots=True)
class Path:
    """An index as an access path to the rows of its condition, by the values of its `fields` from the left."""

    fields: tuple[str, ...]
    condition: dict[str, Any] = field(default_factory=dict)

    def served(self, equal: Mapping[str, Any]) -> int:
        """Return how many of the `equal` fields (name → value) the index looks up, 0 if it does not cover their rows."""
        if not self.condition.items() <= equal.items():
            return 0
        return len(self.condition) + self.depth(equal)

    def depth(self, equal: Mapping[str, Any]) -> int:
        return next((place for place, name in enumerate(self.fields) if name not in equal), len(self.fields))

    def following(self, equal: Mapping[str, Any]) -> str | None:
        """Return the field by which the index orders the rows of `equal`, None at its end."""
        return self.fields[depth] if (depth := self.depth(equal)) < len(self.fields) else None

    def looks_up(self, equal: Mapping[str, Any]) -> set[str]:
        """Return the names of the `equal` fields that the index looks up."""
        return {*self.condition, *self.fields[: self.depth(equal)]} if self.served(equal) else set()


def paths(model: type[models.Model]) -> Iterator[Path]:
    """Yield the access paths of `model`, its primary key first."""
    opts = model._meta
    yield Path((opts.pk.name,))
    for column in opts.local_fields:
        if column.unique and not column.primary_key:
            yield Path((column.name,))
    for constraint in opts.constraints:
        if isinstance(constraint, models.UniqueConstraint) and constraint.fields and not constraint.condition:
            yield Path(tuple(constraint.fields))
    for index in opts.indexes:
        if type(index) in (models.Index, Index) and index.fields:
            condition = _equalities(index.condition)
            if condition is not None:
                yield Path(tuple(name.lstrip("-") for name in index.fields), condition)


def _equalities(condition: models.Q | None) -> dict[str, Any] | None:
    """Return a partial index's condition as name → value, None if it is not made of equalities."""
    if condition is None:
        return {}
    plain = not condition.negated and condition.connector == models.Q.AND
    if plain and all(isinstance(child, tuple) and "__" not in child[0] for child in condition.children):
        return dict(condition.children)  # type: ignore[arg-type]
    return None


def best_path(model: type[models.Model], equal: Mapping[str, Any]) -> Path | None:
    """Return the path that looks up most of the `equal` fields, None if no index looks up any."""
    best = max(paths(model), key=lambda path: path.served(equal))
    return best if best.served(equal) else None


def orders(model: type[models.Model]) -> set[str]:
    """Return the fields by which an index orders all rows: unique ones and times that lead one and are never NULL.

    Others that lead an index, a kind or a state, have the same value in so many rows that these would have to be sorted.
    """
    leading = {path.fields[0] for path in paths(model) if not path.condition}
    fields = [field for field in model._meta.local_fields if field.name in leading and not field.null]
    return {field.name for field in fields if field.unique or isinstance(field, models.DateTimeField)}


def leads(model: type[models.Model], name: str) -> bool:
    """Return whether an index over the whole table begins with the field `name`."""
    return any(path.fields[0] == name and not path.condition for path in paths(model))


def time_of(model: type[models.Model]) -> str | None:
    """Return the time by which an index orders the whole table, None if there is none."""
    return next((name for path in paths(model) if (name := path.fields[0]) in orders(model) and _is_time(model, name)), None)


def time_added(model: type[models.Model]) -> str | None:
    """Return the time that says when a row was added, with an index or without; None if the table stores none."""
    if name := time_of(model):
        return name
    times = [field for field in model._meta.local_fields if isinstance(field, models.DateTimeField) and not field.null]
    added = [field for field in times if field.auto_now_add or field.db_default is not NOT_PROVIDED]
    return min(added, key=lambda field: field.editable).name if added else None


def time_within(model: type[models.Model], key: str) -> str | None:
    """Return the time by which an index orders the rows of a foreign key, None if there is none."""
    for path in paths(model):
        if not path.condition and path.fields[0] == key and len(path.fields) > 1 and _is_time(model, path.fields[1]):
            return path.fields[1]
    return None


def newest_within(model: type[models.Model], key: str) -> str | None:
    """Return the time by which the rows of a foreign key are newest first, with an index or without; None if there is none.

    Ids need not grow with time. Without an index by time, the rows of one key are sorted, as they would be by id.
    """
    return time_within(model, key) or time_added(model)


def _is_time(model: type[models.Model], name: str) -> bool:
    return isinstance(model._meta.get_field(name), models.DateTimeField)
