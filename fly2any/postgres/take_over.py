"""Taking over what another program made. Migrations import this path: it is frozen."""

from django.db.migrations.operations import RunSQL

THERE_SQL = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conrelid = pg_catalog.to_regclass(%(table)s) AND k.conname = %(name)s)
        OR EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
                   WHERE i.indrelid = pg_catalog.to_regclass(%(table)s) AND c.relname = %(name)s)
"""


class TakeOver(RunSQL):
    """Create the constraint or index `name` of `table` with the statements `sql`, where it is not there.

    Reversed it stays: another program made it. The state of the models does not know it, so no model has to name it.
    """

    reversible = True

    def __init__(self, table, name, sql):
        super().__init__(sql, RunSQL.noop)
        self.table, self.name = table, name

    def deconstruct(self):
        return self.__class__.__qualname__, [self.table, self.name, self.sql], {}

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.collect_sql or not self._is_there(schema_editor.connection):
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def describe(self):
        return f"Take over {self.name} of {self.table}"

    def _is_there(self, connection):
        with connection.cursor() as cursor:
            cursor.execute(THERE_SQL, {"table": connection.ops.quote_name(self.table), "name": self.name})
            return cursor.fetchone()[0]
