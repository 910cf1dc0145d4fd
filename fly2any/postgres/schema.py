"""Django's schema editor, which here leaves cascades to the database, gives constraints Prisma's names, and restricts new tables."""

from itertools import chain, count

from django.db.backends.ddl_references import IndexName, Statement
from django.db.backends.postgresql import schema
from django.db.backends.utils import split_identifier, truncate_name
from django.db.models import CASCADE

from .deletion import DB_CASCADE

IMMEDIATE = "SET CONSTRAINTS ALL IMMEDIATE"  # Before or after a statement, in some of Django's templates.
LONGEST_NAME = 63  # NAMEDATALEN - 1: PostgreSQL would cut a longer one silently.
CASCADES = " ON DELETE CASCADE ON UPDATE CASCADE"
HASHED = {"_key": "_uniq", "_fkey": "_fk"}  # The ending of the hashed name that Django gives such a constraint.


# An index shares its name with no other relation of the schema, a constraint with no other of its table.
TAKEN_SQL = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS t JOIN pg_catalog.pg_class AS other USING (relnamespace)
                   WHERE t.oid = pg_catalog.to_regclass(%(table)s)::pg_catalog.oid AND other.relname = %(name)s::pg_catalog.name)
        OR EXISTS (SELECT FROM pg_catalog.pg_constraint AS c
                   WHERE c.conrelid = pg_catalog.to_regclass(%(table)s)::pg_catalog.oid AND c.conname = %(name)s::pg_catalog.name)
"""
# Supabase's API serves whatever these two may use, and they may use whatever the role postgres creates: by default privileges.
API_ROLES = ("anon", "authenticated")
# The table and its sequences, with the roles, other than the owner, that may create triggers, and those of API_ROLES with any privilege.
GRANTEES_SQL = """
    SELECT c.relkind = 'S', c.oid::pg_catalog.regclass::text,
           pg_catalog.string_agg(DISTINCT g.name, ', ') FILTER (WHERE a.privilege_type = 'TRIGGER' AND a.grantee <> c.relowner),
           pg_catalog.string_agg(DISTINCT g.name, ', ') FILTER (WHERE g.name = ANY (%(roles)s))
    FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a CROSS JOIN LATERAL (
        SELECT CASE a.grantee WHEN 0::pg_catalog.oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END) AS g (name)
    WHERE (c.oid = pg_catalog.to_regclass(%(table)s)::pg_catalog.oid OR EXISTS (
               SELECT FROM pg_catalog.pg_depend AS d
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
                 AND d.refclassid = d.classid AND d.refobjid = pg_catalog.to_regclass(%(table)s)::pg_catalog.oid))
      AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
    GROUP BY c.oid, c.relkind ORDER BY 1, 2
"""


def revoke_trigger(connection, table: str) -> None:
    """Revoke TRIGGER on `table`, a quoted name, from all but its owner: their code would run as the role that writes."""
    _revoke(connection, table, api_roles=())


def restrict(connection, table: str) -> None:
    """Revoke what default privileges granted on a new table, a quoted name: TRIGGER, and everything from API_ROLES, sequences included."""
    _revoke(connection, table, api_roles=API_ROLES)


def _revoke(connection, table: str, *, api_roles: tuple[str, ...]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(GRANTEES_SQL, {"table": table, "roles": list(api_roles)})
        for is_sequence, name, trigger_roles, served_roles in cursor.fetchall():
            if trigger_roles:
                cursor.execute(f"REVOKE TRIGGER ON {name} FROM {trigger_roles} CASCADE")
            if served_roles:
                cursor.execute(f"REVOKE ALL ON {'SEQUENCE' if is_sequence else 'TABLE'} {name} FROM {served_roles} CASCADE")


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """DDL with the names and the foreign keys that Prisma gave the Fly2Any schema.

    - Constraints are named `<table>_<columns>_key` and `<table>_<columns>_fkey`. If the database already has an object of
      that name, such as one that a renamed model or field left behind, or two of unique_together would have the same, the
      constraint gets Django's name with a hash; an index or constraint whose hashed name exists gets a number after it. `sqlmigrate` knows only the names that it prints.
    - A DB_CASCADE foreign key is ON DELETE CASCADE ON UPDATE CASCADE and not deferrable.
    - A foreign key of Django's own tables with CASCADE cascades in the database too, since the site deletes users by a
      bare DELETE; it stays deferrable, as Django's fixtures and tests expect.
    - No `_like` index beside an indexed text column: the schema names every index it wants.
    """

    # Without Django's CASCADE, which would silently drop unmanaged objects that depend on it.
    sql_delete_table = "DROP TABLE %(table)s"
    sql_delete_column = "ALTER TABLE %(table)s DROP COLUMN %(column)s"
    # As in Django's sql_delete_fk, because rows changed earlier in the transaction have pending checks.
    sql_create_fk = f"{IMMEDIATE}; {schema.DatabaseSchemaEditor.sql_create_fk}"
    # Without the inline form AddField adds its foreign key by sql_create_fk, with its actions.
    sql_create_column_inline_fk = None  # type: ignore[assignment]
    # SET CONSTRAINTS with a name fails for a foreign key that is not deferrable.
    sql_delete_fk = f"{IMMEDIATE}; ALTER TABLE %(table)s DROP CONSTRAINT %(name)s"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        # Names that PostgreSQL gives, of constraints in the definition of a column.
        self.inline_names: set[str] = set()

    def execute(self, sql, params=()):
        text = str(sql)
        if self.collect_sql or IMMEDIATE not in text:
            return super().execute(sql, params)
        # One after the other, because Citus sends the whole text to each shard as one prepared statement.
        if text.startswith(IMMEDIATE):
            super().execute(IMMEDIATE, None)
        super().execute(text.removeprefix(f"{IMMEDIATE}; ").removesuffix(f"; {IMMEDIATE}"), params)
        if text.endswith(IMMEDIATE):
            super().execute(IMMEDIATE, None)
        return None

    def add_field(self, model, field):
        check = field.column and field.db_parameters(self.connection)["check"]
        if not check:
            super().add_field(model, field)
            return
        self.sql_check_constraint = ""  # Of the column's definition: Citus adds no column with a constraint.
        try:
            super().add_field(model, field)
        finally:
            del self.sql_check_constraint
        name = self._plain_name(model._meta.db_table, [field.column], "_check")
        self.execute(self._create_check_sql(model, name, check))

    def create_model(self, model):
        super().create_model(model)
        if not self.collect_sql:
            restrict(self.connection, self.quote_name(model._meta.db_table))

    def _create_fk_sql(self, model, field, suffix):
        statement = super()._create_fk_sql(model, field, suffix)  # type: ignore[misc]
        on_delete = field.remote_field.on_delete
        parts = {**statement.parts}
        if on_delete in (CASCADE, DB_CASCADE):
            # In parts that Django's template has, so that other code can also fill in the template.
            parts["on_delete_db"] = ""  # From Django 6.1 on: it is in CASCADES.
            parts["deferrable"] = CASCADES + ("" if on_delete is DB_CASCADE else parts["deferrable"])
        return Statement(statement.template, **parts)

    def _field_should_be_altered(self, old_field, new_field, ignore=None):
        # In Django, on_delete changes nothing in the database; here a change from or to a cascade changes the constraint.
        old, new = (getattr(field.remote_field, "on_delete", None) for field in (old_field, new_field))
        changed = old is not new and not {CASCADE, DB_CASCADE}.isdisjoint((old, new))
        return changed or super()._field_should_be_altered(old_field, new_field, ignore)  # type: ignore[misc]

    def _fk_constraint_name(self, model, field, suffix):
        return IndexName(model._meta.db_table, [field.column], "_fkey", self._quoted_constraint_name)

    def _unique_constraint_name(self, table, columns, quote=True):
        if quote:
            return IndexName(table, columns, "_key", self._quoted_constraint_name)
        # Asked for only where columns have two constraints: which of them unique_together made, the other being the column's own.
        return self._create_index_name(table, columns, "_uniq")  # type: ignore[attr-defined]

    def _create_unique_sql(self, model, fields, name=None, **options):
        statement = super()._create_unique_sql(model, fields, name, **options)  # type: ignore[misc]
        get_field = model._meta.get_field
        together = ["_".join(get_field(each).column for each in names) for names in model._meta.unique_together]
        if name is None and together.count("_".join(field.column for field in fields)) > 1:
            # Django iterates over a set, whose order differs between processes, so none gets the plain name.
            asked = statement.parts["name"]
            statement.parts["name"] = IndexName(asked.table, asked.columns, "_uniq", self._quoted_index_name)
        return statement

    def _quoted_constraint_name(self, table, columns, suffix):
        hashed = self._create_index_name(table, columns, HASHED[suffix])  # type: ignore[attr-defined]
        return self.quote_name(self._free_name(table, self._plain_name(table, columns, suffix), hashed))

    def _plain_name(self, table, columns, suffix):
        return truncate_name("_".join([split_identifier(table)[1], *columns]) + suffix, LONGEST_NAME)

    def _create_index_sql(self, model, *, name=None, **options):
        statement = super()._create_index_sql(model, name=name, **options)  # type: ignore[misc]
        if name is None:
            asked = statement.parts["name"]
            statement.parts["name"] = IndexName(asked.table, asked.columns, asked.suffix, self._quoted_index_name)
        return statement

    def _quoted_index_name(self, table, columns, suffix):
        hashed = self._create_index_name(table, columns, suffix)  # type: ignore[attr-defined]
        return self.quote_name(self._free_name(table, hashed))

    def _create_primary_key_sql(self, model, field):
        statement = super()._create_primary_key_sql(model, field)  # type: ignore[misc]
        statement.parts["name"] = self._quoted_index_name(model._meta.db_table, [field.column], "_pk")
        return statement

    def _create_check_sql(self, model, name, check):
        if name not in {constraint.name for constraint in model._meta.constraints}:  # A check of a column, which Django named.
            name = self._free_name(model._meta.db_table, name)
        return super()._create_check_sql(model, name, check)  # type: ignore[misc]

    def _free_name(self, table: str, *names: str) -> str:
        """Return the first of the names that an index or a constraint of `table` can be given; the last one with a number else."""
        numbered = (truncate_name(f"{names[-1]}_{number}", LONGEST_NAME) for number in count(2))
        return next(name for name in chain(names, numbered) if not self._is_taken(table, name))

    def _is_taken(self, table: str, name: str) -> bool:
        if self.collect_sql:
            return name in self.inline_names or any(self.quote_name(name) in statement for statement in self.collected_sql)
        with self.connection.cursor() as cursor:
            cursor.execute(TAKEN_SQL, {"table": self.quote_name(table), "name": name})
            return cursor.fetchone()[0]

    def column_sql(self, model, field, include_default=False):
        if field.unique and field.column:
            self.inline_names.add(self._plain_name(model._meta.db_table, [field.column], "_key"))
        return super().column_sql(model, field, include_default)

    def _create_like_index_sql(self, model, field):
        return None
