"""Taking over what another program made. Migrations import this path: it is frozen."""

from django.db.migrations.operations import RunSQL

# Whether it is there, and whole: an index that is valid, a constraint for which the rows that were there were looked at.
THERE_SQL = """
    SELECT k.convalidated, true FROM pg_catalog.pg_constraint AS k
    WHERE k.conrelid = pg_catalog.to_regclass(%(table)s) AND k.conname = %(name)s
    UNION ALL
    SELECT i.indisvalid, false FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = pg_catalog.to_regclass(%(table)s) AND c.relname = %(name)s
"""


class TakeOver(RunSQL):
    """Create the constraint or index `name` of `table` with the statements `sql`, where it is not there; finish what was cut short.

    Reversed it stays: another program made it. The state of the models does not know it, so no model has to name it.
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
        """Return whether it is there and whole, and whether it is a constraint."""
        with connection.cursor() as cursor:
            cursor.execute(THERE_SQL, {"table": connection.ops.quote_name(self.table), "name": self.name})
            return cursor.fetchone() or (False, False)
