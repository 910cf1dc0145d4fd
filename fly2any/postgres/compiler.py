"""Django's compilers; the INSERT compiler keeps times that the database computes in milliseconds."""

from django.db.backends.postgresql import compiler
from django.db.backends.postgresql.compiler import (
    SQLAggregateCompiler,
    SQLCompiler,
    SQLDeleteCompiler,
    SQLUpdateCompiler,
)
from django.db.models.expressions import DatabaseDefault

from .fields import DateTimeField, MillisecondsOf

__all__ = ["SQLAggregateCompiler", "SQLCompiler", "SQLDeleteCompiler", "SQLInsertCompiler", "SQLUpdateCompiler"]


class SQLInsertCompiler(compiler.SQLInsertCompiler):
    def pre_save_val(self, field, obj):
        value = super().pre_save_val(field, obj)
        if isinstance(field, DateTimeField) and isinstance(value, DatabaseDefault):
            return MillisecondsOf(*value.get_source_expressions())  # From Django 6.1 on, Django would leave the column out.
        return value
