"""What the engine can do, and the tests of Django's own suite that fail on it on purpose, each with the reason."""

from django.db.backends.postgresql import features
from django.utils.functional import cached_property

# Tests of Django's own suite that cannot pass because of intended differences; `make django-suite` skips them.
DIFFERENCES = {
    "The schema has no _like index beside an indexed text column.": {
        "indexes.tests.SchemaIndexesPostgreSQLTests.test_text_indexes",
        "indexes.tests.SchemaIndexesTests.test_alter_field_unique_false_removes_deferred_sql",
        "postgres_tests.test_array.TestMigrations.test_adding_arrayfield_with_index",
        "schema.tests.SchemaTests.test_add_indexed_charfield",
        "schema.tests.SchemaTests.test_add_unique_charfield",
        "schema.tests.SchemaTests.test_alter_field_add_db_index_to_charfield_with_unique",
        "schema.tests.SchemaTests.test_alter_field_add_index_to_charfield",
        "schema.tests.SchemaTests.test_alter_field_add_index_to_textfield",
        "schema.tests.SchemaTests.test_alter_field_add_unique_to_charfield",
        "schema.tests.SchemaTests.test_alter_field_add_unique_to_charfield_with_db_index",
        "schema.tests.SchemaTests.test_alter_field_remove_unique_and_db_index_from_charfield",
        "schema.tests.SchemaTests.test_alter_field_swap_unique_and_db_index_with_charfield",
        "schema.tests.SchemaTests.test_indexed_charfield_to_textfield",
        "schema.tests.SchemaTests.test_relation_to_deterministic_collation_charfield",
        "schema.tests.SchemaTests.test_unique_with_deterministic_collation_charfield",
    },
    "A change of on_delete from or to a cascade changes the constraint.": {
        "schema.tests.SchemaTests.test_alter_field_fk_attributes_noop",
    },
    "Each connection names its isolation level, whatever a role's default is.": {
        "backends.postgresql.tests.Tests.test_connect_invalid_isolation_level",
        "backends.postgresql.tests.Tests.test_connect_isolation_level",
    },
    "Each connection has a wrapper for what a pooler does with its search path.": {
        "backends.base.test_base.ExecuteWrapperTests.test_wrapper_connection_specific",
    },
    "dbshell asks the server whether a pooler shares its connection.": {
        "dbshell.test_postgresql.PostgreSqlDbshellCommandTestCase.test_sigint_handler",
        "dbshell.tests.DbshellCommandTestCase.test_command_missing",
    },
}


class DatabaseFeatures(features.DatabaseFeatures):
    @cached_property
    def django_test_skips(self):  # type: ignore[override]
        return {**super().django_test_skips, **DIFFERENCES}
