from django.db.backends.ddl_references import IndexName, Statement
from django.db.backends.postgresql import schema
from django.db.backends.utils import truncate_name
from django.db.models import CASCADE

from .deletion import DB_CASCADE

LONGEST_NAME = 63  # NAMEDATALEN - 1: PostgreSQL would cut a longer one silently.


CASCADES = " ON DELETE CASCADE ON UPDATE CASCADE"


# Whom the privileges of a table let create triggers on it, besides its owner.
TRIGGER_SQL = """
    SELECT pg_catalog.string_agg(DISTINCT CASE WHEN a.grantee = 0::pg_catalog.oid THEN 'PUBLIC'
        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, ', ')
    FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
    WHERE c.oid = pg_catalog.to_regclass(%s)::pg_catalog.oid AND a.privilege_type = 'TRIGGER' AND a.grantee <> c.relowner
      AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
"""


def revoke_trigger(connection, table: str) -> None:
    """Revoke TRIGGER on `table`, a quoted name, from all but its owner: their code would run as the role that writes."""
    with connection.cursor() as cursor:
        cursor.execute(TRIGGER_SQL, [table])
        if roles := cursor.fetchone()[0]:
            cursor.execute(f"REVOKE TRIGGER ON {table} FROM {roles} CASCADE")


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """DDL with the names and the foreign keys that Prisma gave the Fly2Any schema.

    - Constraints are named `<table>_<columns>_key` and `<table>_<columns>_fkey`.
    - A DB_CASCADE foreign key is ON DELETE CASCADE ON UPDATE CASCADE and not deferrable.
    - A foreign key of Django's own tables with CASCADE cascades in the database too, since the site deletes users by a
      bare DELETE; it stays deferrable, as Django's fixtures and tests expect.
    - No `_like` index beside an indexed text column: the schema names every index it wants.
    """

    # Without Django's CASCADE: what somebody else hung on it is not dropped without a word.
    sql_delete_table = "DROP TABLE %(table)s"
    sql_delete_column = "ALTER TABLE %(table)s DROP COLUMN %(column)s"
    # As in Django's sql_delete_fk: rows changed before in this transaction have checks outstanding.
    sql_create_fk = (
        "SET CONSTRAINTS ALL IMMEDIATE; "
        "ALTER TABLE %(table)s ADD CONSTRAINT %(name)s FOREIGN KEY (%(column)s) "
        "REFERENCES %(to_table)s (%(to_column)s)%(actions)s%(deferrable)s"
    )
    # Without the inline form AddField adds its foreign key by sql_create_fk, with the actions above.
    sql_create_column_inline_fk = None  # type: ignore[assignment]
    # By name, SET CONSTRAINTS fails on a foreign key that is not deferrable.
    sql_delete_fk = "SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE %(table)s DROP CONSTRAINT %(name)s"

    def create_model(self, model):
        super().create_model(model)
        if not self.collect_sql:  # Default privileges may have given it.
            revoke_trigger(self.connection, self.quote_name(model._meta.db_table))

    def _create_fk_sql(self, model, field, suffix):
        statement = super()._create_fk_sql(model, field, suffix)  # type: ignore[misc]
        on_delete = field.remote_field.on_delete
        actions = CASCADES if on_delete in (CASCADE, DB_CASCADE) else ""
        deferrable = "" if on_delete is DB_CASCADE else statement.parts["deferrable"]
        return Statement(statement.template, **{**statement.parts, "actions": actions, "deferrable": deferrable})

    def _field_should_be_altered(self, old_field, new_field, ignore=None):
        # Elsewhere in Django on_delete changes nothing in the database; here these two change the constraint.
        old, new = (getattr(field.remote_field, "on_delete", None) for field in (old_field, new_field))
        changed = old is not new and not {CASCADE, DB_CASCADE}.isdisjoint((old, new))
        return changed or super()._field_should_be_altered(old_field, new_field, ignore)  # type: ignore[misc]

    def _fk_constraint_name(self, model, field, suffix):
        return IndexName(model._meta.db_table, [field.column], "fkey", self._quoted_constraint_name)

    def _unique_constraint_name(self, table, columns, quote=True):
        return IndexName(table, columns, "key", self._quoted_constraint_name if quote else self._constraint_name)

    def _quoted_constraint_name(self, table, columns, suffix):
        return self.quote_name(self._constraint_name(table, columns, suffix))

    def _constraint_name(self, table, columns, suffix):
        return truncate_name("_".join([table.strip('"'), *columns, suffix]), LONGEST_NAME)

    def _create_like_index_sql(self, model, field):
        return None
