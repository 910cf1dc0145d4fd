"""The engine's DDL where Django's own would use other names and actions."""

import re
from dataclasses import replace

import pytest
from django.db import connection, migrations, models
from django.db.backends.postgresql.schema import DatabaseSchemaEditor as DjangosSchemaEditor
from django.db.migrations.state import ProjectState
from django.test.utils import CaptureQueriesContext, isolate_apps

from fly2any.database.schema import Catalog, ForeignKey, Index, Key, read_catalog
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


def test_each_statement_is_sent_alone_and_a_column_without_its_check(child):
    """Citus runs neither several statements of one text nor ADD COLUMN with a constraint."""
    (key,) = (field for field in child._meta.local_fields if field.column == "userId")
    visits = models.PositiveIntegerField(default=1)
    visits.set_attributes_from_name("visits")

    with CaptureQueriesContext(connection) as captured, connection.schema_editor() as editor:
        editor.remove_field(child, key)
        editor.add_field(child, visits)
        editor.add_field(child, key)
    sent = [query["sql"].rstrip("; ") for query in captured if not query["sql"].lstrip().startswith("SELECT")]

    assert [text for text in sent if ";" in text] == []
    assert sent.count("SET CONSTRAINTS ALL IMMEDIATE") == 2
    assert 'ALTER TABLE "children" ADD COLUMN "visits" integer DEFAULT 1 NOT NULL' in sent
    assert [(one.name, one.expression) for one in live("children").checks] == [
        ("children_visits_check", "CHECK ((visits >= 0))")
    ]


def test_djangos_cascade_cascades_in_the_database_and_stays_deferrable(child):
    field = models.ForeignKey(child, models.CASCADE, null=True, db_column="parentId", db_index=False)
    field.contribute_to_class(child, "parent")

    with connection.schema_editor() as editor:
        editor.add_field(child, field)

    name = "children_parentId_fkey"
    own = replace(FOREIGN_KEY, name=name, columns=("parentId",), target="children", deferrable=True, deferred=True)
    assert live("children").foreign_keys == (own, FOREIGN_KEY)


def test_a_column_made_unique_later_gets_the_same_name_and_is_reversible(child):
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


def collected(*operations, collect_sql=True):
    """Return the statements of operations of an app `fleet` that has no other; `collect_sql=False` runs them."""
    state, statements = ProjectState(), []
    for operation in operations:
        new = state.clone()
        operation.state_forwards("fleet", new)
        with connection.schema_editor(collect_sql=collect_sql) as editor:
            operation.database_forwards("fleet", editor, state, new)
        state = new
        statements += getattr(editor, "collected_sql", [])
    return statements


def applied(*operations):
    collected(*operations, collect_sql=False)


def table(name, *fields, **options):
    return migrations.CreateModel(
        name, [("id", models.IntegerField(primary_key=True)), *fields], {"db_table": name.lower(), **options}
    )


def names(table, *, schema="public"):
    """Return the names of a table's constraints and indexes, but for those of NOT NULL."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(%(table)s) AND contype <> 'n'"
            " UNION SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = to_regclass(%(table)s)",
            {"table": f'"{schema}"."{table}"'},
        )
        return sorted({name.rpartition(".")[2] for (name,) in cursor.fetchall()})


def key(to, **options):
    return models.ForeignKey(f"fleet.{to}", models.CASCADE, **options)


def test_a_table_in_another_schema_has_the_names_of_one_in_the_search_path():
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA hangar")
    applied(
        table("Plane"),
        table(
            "Part",
            ("plane", key("plane")),
            ("code", models.TextField()),
            db_table='hangar"."part',
            unique_together={("plane", "code")},
        ),
    )

    assert names("part", schema="hangar") == [
        "part_pkey",
        "part_plane_id_0ef2555f",
        "part_plane_id_code_key",
        "part_plane_id_fkey",
    ]


def test_a_column_that_is_unique_twice_has_two_constraints_and_loses_the_one_of_unique_together():
    create = table("Plane", ("code", models.TextField(unique=True)), unique_together={("code",)})

    applied(create)
    assert names("plane") == ["plane_code_b74b29d0_uniq", "plane_code_key", "plane_pkey"]

    connection.cursor().execute("DROP TABLE plane")
    applied(create, migrations.AlterUniqueTogether("plane", set()))
    assert names("plane") == ["plane_code_key", "plane_pkey"]


def test_columns_whose_names_join_alike_have_two_constraints():
    columns = [(name, models.IntegerField()) for name in ("a", "a_b", "b_c", "c")]

    applied(table("Plane", *columns, unique_together={("a", "b_c"), ("a_b", "c")}))

    assert live("plane").keys == (
        Key("plane", "plane_a_b_c_52d06188_uniq", ("a", "b_c")),
        Key("plane", "plane_a_b_c_a31e8cf0_uniq", ("a_b", "c")),
        Key("plane", "plane_pkey", ("id",), primary=True),
    )


def test_a_field_may_reuse_the_name_of_a_renamed_one():
    positive = migrations.AlterField("part", "size", models.PositiveIntegerField(default=1))

    applied(
        table("Plane"),
        table("Part", ("plane", key("plane")), ("size", models.IntegerField())),
        positive,
        migrations.RenameField("part", "plane", "former"),
        migrations.RenameField("part", "size", "weight"),
        migrations.AddField("part", "plane", key("plane", default=1, related_name="+")),
        migrations.AddField("part", "size", models.IntegerField(default=1)),
        positive,
    )

    assert names("part") == [
        "part_former_id_fkey",
        "part_pkey",
        "part_plane_id_0ef2555f",
        "part_plane_id_0ef2555f_2",
        "part_plane_id_fkey",
        "part_size_2a0f20c1_check",
        "part_size_2a0f20c1_check_2",
    ]


def test_a_model_may_reuse_the_name_of_a_renamed_one():
    part = migrations.CreateModel(
        "Part",
        [
            ("id", models.IntegerField(primary_key=True)),
            ("code", models.TextField(unique=True)),
            ("plane", key("plane", related_name="+")),
            ("planes", models.ManyToManyField("fleet.plane", related_name="+")),
        ],
        {"unique_together": {("code", "plane")}},
    )

    applied(table("Plane"), part, migrations.RenameModel("Part", "Piece"), part)

    assert names("fleet_part") == [
        "fleet_part_code_key1",
        "fleet_part_code_plane_id_abf5cd0f_uniq",
        "fleet_part_pkey1",
        "fleet_part_plane_id_42d39f1e_2",
        "fleet_part_plane_id_fkey",
    ]
    assert names("fleet_part_planes") == [
        "fleet_part_planes_part_id_5ccaf8c3_2",
        "fleet_part_planes_part_id_fkey",
        "fleet_part_planes_part_id_plane_id_e81e7649_uniq",
        "fleet_part_planes_pkey1",
        "fleet_part_planes_plane_id_c06a379c_2",
        "fleet_part_planes_plane_id_fkey",
    ]


def test_other_code_can_fill_in_the_template_of_a_foreign_key():
    applied(table("Plane"), table("Part", ("plane_id", models.IntegerField())))
    parts = dict.fromkeys(re.findall(r"%\((\w+)\)s", DjangosSchemaEditor.sql_create_fk), "")
    parts |= {"table": "part", "name": "part_plane", "column": "plane_id", "to_table": "plane", "to_column": "id"}

    with connection.schema_editor() as editor:
        editor.execute(editor.sql_create_fk % parts)

    assert live("part").foreign_keys == (ForeignKey("part", "part_plane", ("plane_id",), "plane", ("id",)),)


def test_statements_that_are_only_collected_have_the_names_of_those_that_run():
    create = table("Plane", ("code", models.TextField(unique=True)), unique_together={("code",)})

    first = collected(create)
    applied(create)
    again = collected(create)

    assert first == again
    assert [statement for statement in first if "uniq" in statement] == [
        'ALTER TABLE "plane" ADD CONSTRAINT "plane_code_b74b29d0_uniq" UNIQUE ("code");'
    ]
