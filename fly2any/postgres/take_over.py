"""Takes over objects that another program created: the operation of the migrations that `dbstatus --take-over` writes. They import this path: it is frozen."""

from django.db.migrations.operations import RunSQL

# Whether it exists and is complete: a valid index, or a constraint that was validated for existing rows.
THERE_SQL = """
    SELECT k.convalidated, true FROM pg_catalog.pg_constraint AS k
    WHERE k.conrelid = pg_catalog.to_regclass(%(table)s) AND k.conname = %(name)s
    UNION ALL
    SELECT i.indisvalid AND i.indislive, false FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = pg_catalog.to_regclass(%(table)s) AND c.relname = %(name)s
"""


class TakeOver(RunSQL):
    """Create the constraint or index `name` of `table` with the statements `sql` if it does not exist; finish an interrupted build.

    Reversing keeps it, because another program created it. The state of the models does not have it, so no model has to
    declare it.
    """

    reversible = True

    def __init__(self, table, name, sql):
        super().__init__(sql, RunSQL.noop)
        self.table, self.name = table, name

    def deconstruct(self):
        return self.__class__.__qualname__, [self.table, self.name, self.sql], {}

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        whole, is_constraint = (False, False) if schema_editor.collect_sql else self._there(schema_editor.connection)
        if not whole:
            for statement in self.sql:
                if not is_constraint or " VALIDATE CONSTRAINT " in statement:
                    schema_editor.execute(statement, params=None)

    def describe(self):
        return f"Take over {self.name} of {self.table}"

    def _there(self, connection):
        """Return whether it exists and is complete, and whether it is a constraint."""
        with connection.cursor() as cursor:
            cursor.execute(THERE_SQL, {"table": connection.ops.quote_name(self.table), "name": self.name})
            return cursor.fetchone() or (False, False)
