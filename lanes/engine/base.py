"""The engine, as Django's test suite needs it: the suite relies on CASCADE to drop the tables that it made."""

from django.db.backends.postgresql import schema

from fly2any.postgres import base
from fly2any.postgres.schema import DatabaseSchemaEditor as OurSchemaEditor


class DatabaseSchemaEditor(OurSchemaEditor):
    sql_delete_table = schema.DatabaseSchemaEditor.sql_delete_table
    sql_delete_column = schema.DatabaseSchemaEditor.sql_delete_column


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = DatabaseSchemaEditor
