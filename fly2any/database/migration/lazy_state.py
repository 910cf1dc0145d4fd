"""The models between migrations, rendered when an operation asks for one.

Django renders all models before the first migration and, with each change, all that are related to the changed one, which in a
schema around users is nearly all: most of a run on an empty database. Django's operations ask for one model and need those that its
foreign keys lead to. RunPython and operations that are not known get all of them rendered, as from Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.apps import apps as registry
from django.apps.registry import Apps
from django.core.checks.model_checks import _check_lazy_references  # type: ignore[attr-defined]
from django.db.migrations.migration import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import AppConfigStub, ModelState, ProjectState, StateApps
from django.db.migrations.utils import resolve_relation
from django.utils.functional import cached_property

DJANGOS = ("django.db.migrations.operations.", "django.contrib.postgres.operations")
Key = tuple[str, str]  # The label of an app, and the name of a model in lower case.


class LazyApps(StateApps):
    """The models of a state. A model is rendered, with those that it needs, when it is first requested."""

    def __init__(self, real_apps: set[str], models: dict[Key, ModelState]):
        self.unrendered: dict[Key, ModelState] = {}
        self.postponed: dict[Key, list[Key]] = {}  # The models that the many-to-many fields of rendered models refer to.
        self.detached = False
        super().__init__([], {})  # It already uses the attributes above.
        self.real_models = [  # The models of apps without migrations, as in Django.
            ModelState.from_model(model, exclude_rels=True)
            for label in real_apps
            for model in registry.get_app_config(label).get_models()
        ]
        self.unrendered = {**models, **{(state.app_label, state.name_lower): state for state in self.real_models}}
        for label in sorted({*real_apps, *(label for label, _ in models)}):
            self.app_configs[label] = config = AppConfigStub(label)
            config.apps = self
            config.import_models()

    def get_model(self, app_label, model_name=None, require_ready=True):
        if model_name is None:
            app_label, model_name = app_label.split(".")
        self.render([(app_label, model_name.lower())])
        return super().get_app_config(app_label).get_model(model_name, require_ready=require_ready)

    def get_app_config(self, app_label):
        self.render([key for key in self.unrendered if key[0] == app_label])
        return super().get_app_config(app_label)

    def get_app_configs(self):
        self.render_all()
        return super().get_app_configs()

    def get_models(self, include_auto_created=False, include_swapped=False):
        self.render_all()
        return super().get_models(include_auto_created, include_swapped)

    get_models.cache_clear = Apps.get_models.cache_clear  # type: ignore[attr-defined]  # Which Django calls.

    def detach(self) -> None:
        """Make models that are not rendered independent of the state, which changes its models in place."""
        if not self.detached:
            self.unrendered = {key: state.clone() for key, state in self.unrendered.items()}
            self.detached = True

    def render_all(self) -> None:
        """Render what is not rendered yet; raise ValueError if a field refers to a missing model."""
        self.render([*self.unrendered, *self.postponed])
        if errors := _check_lazy_references(self):
            raise ValueError("\n".join(error.msg for error in errors))

    def render(self, keys: Iterable[Key]) -> None:
        """Render the models `keys` and those that they need, as far as they are not rendered.

        The many-to-many fields of a model that another refers to wait until it is asked for itself.
        """
        asked, states = set(keys), []
        waiting = [*asked, *(key for model in asked for key in self.postponed.pop(model, ()))]
        while waiting:
            key = waiting.pop()
            if state := self.unrendered.pop(key, None):
                states.append(state)
                waiting += referred(state, many=False)
                if many := [*referred(state, many=True)]:
                    if key in asked:
                        waiting += many
                    else:
                        self.postponed[key] = many
        self.render_multiple(states)


class LazyState(ProjectState):
    """A state that drops its rendered models when it changes, and renders them again on request."""

    is_whole = False  # Whether all models are rendered at once, as unknown operations require.

    @cached_property
    def apps(self) -> LazyApps:
        apps = LazyApps(self.real_apps, self.models)
        if self.is_whole:
            apps.render_all()
        return apps

    def clear_delayed_apps_cache(self):
        """Render all models: Django calls this before code that may request any of them."""
        self.apps.render_all()

    def reload_model(self, app_label, model_name, delay=False):
        self.__dict__.pop("apps", None)

    def reload_models(self, models, delay=True):
        self.__dict__.pop("apps", None)

    def remove_model(self, app_label, model_name):
        self.__dict__.pop("apps", None)
        super().remove_model(app_label, model_name)

    def prepared_for(self, migration: Migration) -> LazyState:
        """Return a copy to apply or reverse `migration` on, which changes it, even if it fails."""
        copy = self.clone()
        copy.is_whole = not all(map(requests_each_model, migration.operations))
        if copy.is_whole:
            copy.clear_delayed_apps_cache()
        return copy

    def clone(self):
        clone = LazyState({key: state.clone() for key, state in self.models.items()}, self.real_apps)
        clone.is_whole = self.is_whole
        if "apps" in self.__dict__:  # Both share them until one changes.
            self.apps.detach()
            clone.__dict__["apps"] = self.apps
        return clone


def referred(state: ModelState, *, many: bool) -> Iterator[Key]:
    """Yield the models that the fields of `state` refer to, many-to-many fields or the others, and those it is made from."""
    place = state.app_label, state.name_lower
    for field in state.fields.values():
        if (remote := field.remote_field) and bool(field.many_to_many) is many:
            for model in filter(None, (remote.model, getattr(remote, "through", None))):
                yield resolve_relation(model, *place)
    for base in () if many else state.bases:
        if isinstance(base, str) or hasattr(base, "_meta"):
            yield resolve_relation(base, *place)


def requests_each_model(operation: Operation) -> bool:
    """Return whether an operation requests each model that it needs, as Django's do; others may follow any relation."""
    inner = getattr(operation, "database_operations", [])  # The operations of SeparateDatabaseAndState.
    known = type(operation).__module__.startswith(DJANGOS) or getattr(operation, "requests_each_model", False)
    return known and all(map(requests_each_model, inner))
