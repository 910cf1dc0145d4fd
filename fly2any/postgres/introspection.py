"""Django's introspection, with statements that run no function of another role."""

import re
from typing import Any

from django.db.backends.postgresql import introspection

# Django's queries call PostgreSQL's functions and operators by unqualified names: another role's function in the search
# path whose argument types fit better would be called instead.
QUALIFIED = (
    (r"(?<![\w.])(obj_description|col_description|pg_get_expr|pg_get_indexdef|array_agg)\(", r"pg_catalog.\1("),
    (r"(?<![\w.])unnest\((\w+\.\w+)\)", r"pg_catalog.unnest(\1)"),
    (r"fkc\.relname \|\| '\.' \|\| fka\.attname", "fkc.relname::text || '.' || fka.attname::text"),
    (r"\(option & 1\)", "(option::int & 1)"),
)


class Cursor:
    """A cursor whose statements name the schema of what they call."""

    def __init__(self, cursor):
        self.cursor = cursor

    def __getattr__(self, name):
        return getattr(self.cursor, name)

    def execute(self, statement, parameters=None):
        for bare, qualified in QUALIFIED:
            statement = re.sub(bare, qualified, statement)
        return self.cursor.execute(statement, parameters)


class DatabaseIntrospection(introspection.DatabaseIntrospection):
    def get_table_list(self, cursor):
        qualifying: Any = Cursor(cursor)
        return super().get_table_list(qualifying)

    def get_table_description(self, cursor, table_name):
        qualifying: Any = Cursor(cursor)
        return super().get_table_description(qualifying, table_name)

    def get_constraints(self, cursor, table_name):
        qualifying: Any = Cursor(cursor)
        return super().get_constraints(qualifying, table_name)
