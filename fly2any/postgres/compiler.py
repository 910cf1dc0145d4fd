"""Django's compilers: aggregates are PostgreSQL's own, and the INSERT compiler keeps times that the database computes in milliseconds."""

from copy import copy

from django.db.backends.postgresql import compiler
from django.db.models import Aggregate
from django.db.models.expressions import DatabaseDefault

from .fields import DateTimeField, MillisecondsOf

OF_POSTGRESQL = frozenset(
    [
        "ARRAY_AGG",
        "AVG",
        "BIT_AND",
        "BIT_OR",
        "BIT_XOR",
        "BOOL_AND",
        "BOOL_OR",
        "CORR",
        "COUNT",
        "COVAR_POP",
        "COVAR_SAMP",
        "JSONB_AGG",
        "MAX",
        "MIN",
        "REGR_AVGX",
        "REGR_AVGY",
        "REGR_COUNT",
        "REGR_INTERCEPT",
        "REGR_R2",
        "REGR_SLOPE",
        "REGR_SXX",
        "REGR_SXY",
        "REGR_SYY",
        "STDDEV_POP",
        "STDDEV_SAMP",
        "STRING_AGG",
        "SUM",
        "VAR_POP",
        "VAR_SAMP",
    ]
)


class _Qualified:
    """Names the schema of aggregates: another role's count(integer) would match better than PostgreSQL's, which takes any type."""

    def compile(self, node):
        if isinstance(node, Aggregate) and node.function in OF_POSTGRESQL:
            node = copy(node)
            node.function = f"pg_catalog.{node.function}"
        return super().compile(node)  # type: ignore[misc]


class SQLCompiler(_Qualified, compiler.SQLCompiler):
    pass


class SQLAggregateCompiler(_Qualified, compiler.SQLAggregateCompiler):
    pass


class SQLDeleteCompiler(_Qualified, compiler.SQLDeleteCompiler):
    pass


class SQLUpdateCompiler(_Qualified, compiler.SQLUpdateCompiler):
    pass


class SQLInsertCompiler(_Qualified, compiler.SQLInsertCompiler):
    def pre_save_val(self, field, obj):
        value = super().pre_save_val(field, obj)
        if isinstance(field, DateTimeField) and isinstance(value, DatabaseDefault):
            return MillisecondsOf(*value.get_source_expressions())  # From Django 6.1 on, Django would leave the column out.
        return value
