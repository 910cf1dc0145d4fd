"""The DDL that the engine makes where Django's own would differ from the schema's names and actions."""

from dataclasses import replace

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps

from fly2any.database.catalog import Catalog, ForeignKey, Index, Key, read_catalog
from fly2any.postgres.deletion import DB_CASCADE
from fly2any.postgres.fields import TextIdField
from fly2any.postgres.indexes import Index as NamedIndex

pytestmark = pytest.mark.django_db


def live(table) -> Catalog:
    return read_catalog(connection, schema="public").where(lambda thing: thing.table == table)


@pytest.fixture
def child():
    """A child of users with a DB_CASCADE foreign key, a unique column and an index of a long name."""
    with isolate_apps("accounts"):

        class User(models.Model):
            id = TextIdField()

            class Meta:
                app_label = "accounts"
                db_table = "users"

        class Child(models.Model):
            id = TextIdField()
            user = models.ForeignKey(User, DB_CASCADE, db_column="userId", db_index=False)
            code = models.TextField(unique=True)

            class Meta:
                app_label = "accounts"
                db_table = "children"
                indexes = [
                    NamedIndex(fields=["user", "code"], name="children_userId_code_and_a_name_of_more_than_thirty_characters")
                ]

        with connection.schema_editor() as editor:
            editor.create_model(Child)
        yield Child


FOREIGN_KEY = ForeignKey(
    "children", "children_userId_fkey", ("userId",), "users", ("id",), on_delete="CASCADE", on_update="CASCADE"
)


def test_a_new_table_has_the_schemas_names_and_no_other_index(child):
    catalog = live("children")

    assert catalog.foreign_keys == (FOREIGN_KEY,)
    assert catalog.keys == (
        Key("children", "children_code_key", ("code",)),
        Key("children", "children_pkey", ("id",), primary=True),
    )
    assert catalog.indexes == (
        Index("children", "children_userId_code_and_a_name_of_more_than_thirty_characters", ("userId", "code"), ("", "")),
    )


def test_a_foreign_key_added_later_is_the_same(child):
    old = child._meta.get_field("user")
    with connection.schema_editor() as editor:
        editor.remove_field(child, old)
    assert live("children").foreign_keys == ()

    new = models.ForeignKey(old.related_model, DB_CASCADE, db_column="userId", db_index=False, null=True)
    new.contribute_to_class(child, "user")
    with connection.schema_editor() as editor:
        editor.add_field(child, new)

    assert live("children").foreign_keys == (FOREIGN_KEY,)


def test_djangos_cascade_cascades_in_the_database_and_stays_deferrable(child):
    field = models.ForeignKey(child, models.CASCADE, null=True, db_column="parentId", db_index=False)
    field.contribute_to_class(child, "parent")

    with connection.schema_editor() as editor:
        editor.add_field(child, field)

    name = "children_parentId_fkey"
    own = replace(FOREIGN_KEY, name=name, columns=("parentId",), target="children", deferrable=True, deferred=True)
    assert live("children").foreign_keys == (own, FOREIGN_KEY)


def test_a_column_made_unique_later_is_named_alike_and_can_be_undone(child):
    note = models.TextField(null=True)
    note.contribute_to_class(child, "note")
    unique = models.TextField(null=True, unique=True)
    unique.set_attributes_from_name("note")
    unique.model = child
    with connection.schema_editor() as editor:
        editor.add_field(child, note)

    with connection.schema_editor() as editor:
        editor.alter_field(child, note, unique)
    assert Key("children", "children_note_key", ("note",)) in live("children").keys

    with connection.schema_editor() as editor:
        editor.alter_field(child, unique, note)
    assert {key.name for key in live("children").keys} == {"children_code_key", "children_pkey"}
    assert len(live("children").indexes) == 1


def test_changing_what_happens_on_delete_changes_the_constraint(child):
    old = child._meta.get_field("user")
    new = models.ForeignKey(old.related_model, models.DO_NOTHING, db_column="userId", db_index=False)
    new.set_attributes_from_name("user")
    new.model = child

    with connection.schema_editor() as editor:
        editor.alter_field(child, old, new, strict=True)

    assert live("children").foreign_keys == (
        ForeignKey("children", "children_userId_fkey", ("userId",), "users", ("id",), deferrable=True, deferred=True),
    )
