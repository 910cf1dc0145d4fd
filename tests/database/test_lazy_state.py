"""Models between migrations are rendered on request, and then equal those that Django renders."""

import pytest
from django.db import models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration
from django.db.migrations.operations import AddField, CreateModel, DeleteModel, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState

from fly2any.database.migration.lazy_state import LazyState


@pytest.fixture(scope="module")
def last():
    """The state after all migrations."""
    return MigrationLoader(None).project_state()


@pytest.fixture
def state(last):
    return LazyState(last.clone().models, last.real_apps)


def shape(model):
    options = model._meta
    return (
        options.db_table,
        [(field.name, field.deconstruct()[1:3], getattr(field.remote_field, "through", None) and "through") for field in options.get_fields() if not field.auto_created],
        sorted((str(other.related_model._meta), other.get_accessor_name(), other.field.name) for other in options.related_objects),
        sorted(name for name in dir(model) if not name.startswith("_")),
    )  # fmt: skip


def rendered(apps):
    return {model._meta.label_lower for models in apps.all_models.values() for model in models.values()}


def test_all_models_are_as_django_renders_them(last, state):
    djangos = ProjectState(last.clone().models, last.real_apps).apps

    assert {str(m._meta): shape(m) for m in state.apps.get_models(include_auto_created=True)} == {
        str(m._meta): shape(m) for m in djangos.get_models(include_auto_created=True)
    }


def test_a_model_is_rendered_with_those_it_refers_to_and_no_others(state):
    token = state.apps.get_model("contenttypes", "ContentType")
    assert rendered(state.apps) == {"contenttypes.contenttype"}

    permission = state.apps.get_model("auth.Permission")

    assert rendered(state.apps) == {"contenttypes.contenttype", "auth.permission"}
    assert permission._meta.get_field("content_type").related_model is token
    with pytest.raises(LookupError, match="App 'auth' doesn't have a 'Nothing' model"):
        state.apps.get_model("auth", "Nothing")
    with pytest.raises(LookupError, match="No installed app with label 'nothing'"):
        state.apps.get_model("nothing", "Nothing")


def test_related_objects_of_a_model_are_complete(state, last):
    alone = state.apps.get_model("accounts", "User")
    djangos = ProjectState(last.clone().models, last.real_apps).apps.get_model("accounts", "User")

    assert shape(alone) == shape(djangos)


def test_a_copy_keeps_its_models_when_the_state_changes(state):
    first = state.apps.get_model("auth", "Group")
    kept = state.clone()
    AddField("Group", "motto", models.TextField()).state_forwards("auth", state)
    second = state.apps.get_model("auth", "Group")

    assert kept.apps.get_model("auth", "Group") is first
    assert {field.name for field in second._meta.fields} - {field.name for field in first._meta.fields} == {"motto"}


def test_what_is_not_rendered_yet_is_of_the_state_that_was_copied(state):
    _ = state.apps
    kept = state.clone()
    AddField("Group", "motto", models.TextField()).state_forwards("auth", state)
    DeleteModel("Permission").state_forwards("auth", state)

    assert "motto" not in {field.name for field in kept.apps.get_model("auth", "Group")._meta.fields}
    assert kept.apps.get_model("auth", "Permission")._meta.db_table == "auth_permission"
    with pytest.raises(LookupError):
        state.apps.get_model("auth", "Permission")


def test_what_asks_for_all_gets_reverse_relations_too(state):
    user = state.apps.get_model("accounts", "User")
    assert not hasattr(user, "accounts")

    state.clear_delayed_apps_cache()  # RunPython does the same.

    assert hasattr(user, "accounts")
    assert state.apps.unrendered == {}


def test_targets_of_many_to_many_fields_are_rendered_with_their_model(state):
    account = state.apps.get_model("accounts", "Account")
    alone = rendered(state.apps)

    user = state.apps.get_model("accounts", "User")

    assert alone == {"accounts.account", "accounts.user", "accounts.user_groups", "accounts.user_user_permissions"}
    assert rendered(state.apps) - alone == {
        "auth.group",
        "auth.permission",
        "auth.group_permissions",
        "contenttypes.contenttype",
    }
    assert account._meta.get_field("user").related_model is user
    assert user._meta.get_field("groups").related_model is state.apps.get_model("auth", "Group")


class Unknown(Operation):
    pass


@pytest.mark.parametrize(
    ("operation", "some"),
    [
        (AddField("Account", "motto", models.TextField()), True),
        (SeparateDatabaseAndState(database_operations=[AddField("Account", "motto", models.TextField())]), True),
        (Unknown(), False),
        (SeparateDatabaseAndState(database_operations=[Unknown()]), False),
    ],
)
def test_an_operation_that_is_not_djangos_finds_all_models_rendered(state, operation, some):
    _ = state.apps
    migration = Migration("0001", "accounts")
    migration.operations = [operation]

    prepared = state.prepared_for(migration)

    assert bool(prepared.apps.unrendered) is bool(prepared.clone().apps.unrendered) is some
    prepared.reload_model("accounts", "account")
    assert bool(prepared.apps.unrendered) is some


def test_a_dangling_relation_raises_djangos_error(state):
    CreateModel("Lost", [("to", models.ForeignKey("accounts.Nobody", models.CASCADE))]).state_forwards("accounts", state)

    with pytest.raises(ValueError, match=r"accounts\.Lost\.to was declared with a lazy reference to 'accounts\.nobody'"):
        state.apps.get_models()


def test_a_model_that_is_made_from_another_is_rendered_after_it(state):
    state.add_model(
        ModelState(
            "auth",
            "Special",
            [("group_ptr", models.OneToOneField("auth.Group", models.CASCADE, parent_link=True, primary_key=True))],
            bases=("auth.group",),
        )
    )

    special = state.apps.get_model("auth", "Special")

    assert special.__mro__[1] is state.apps.get_model("auth", "Group")
