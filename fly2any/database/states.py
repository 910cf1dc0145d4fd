"""The models between migrations, rendered when an operation asks for one.

Django renders all models before the first migration and, with each change, all that are related to the changed one, which in a
schema around users is nearly all: most of a run on an empty database. An operation asks for one model and needs those that its
foreign keys lead to. What may ask for any, such as RunPython, gets all of them rendered, as from Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.apps import apps as registry
from django.apps.registry import Apps
from django.core.checks.model_checks import _check_lazy_references  # type: ignore[attr-defined]
from django.db.migrations.state import AppConfigStub, ModelState, ProjectState, StateApps
from django.db.migrations.utils import resolve_relation
from django.utils.functional import cached_property

Key = tuple[str, str]  # The label of an app, and the name of a model in lower case.


class LazyApps(StateApps):
    """The models of a state. One is rendered, with those that it needs, when it is asked for; all are when all are."""

    unrendered: dict[Key, ModelState] = {}
    detached = False

    def __init__(self, real_apps: set[str], models: dict[Key, ModelState]):
        super().__init__([], {})
        self.real_models = [  # Of apps without migrations: as from Django.
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
        """Make what is not rendered independent of the state, which changes its models in their place."""
        if not self.detached:
            self.unrendered = {key: state.clone() for key, state in self.unrendered.items()}
            self.detached = True

    def render_all(self) -> None:
        """Render what is not rendered yet; raise ValueError where a field leads to a model that is not there."""
        self.render([*self.unrendered])
        if errors := _check_lazy_references(self):
            raise ValueError("\n".join(error.msg for error in errors))

    def render(self, keys: Iterable[Key]) -> None:
        """Render the models `keys` and those that they need, as far as they are not rendered."""
        states, waiting = [], [*keys]
        while waiting:
            if state := self.unrendered.pop(waiting.pop(), None):
                states.append(state)
                waiting += needed(state)
        self.render_multiple(states)


class LazyState(ProjectState):
    """A state whose models are rendered anew after it changed, as far as somebody asks for them."""

    @cached_property
    def apps(self) -> LazyApps:
        return LazyApps(self.real_apps, self.models)

    def clear_delayed_apps_cache(self):
        """Render all models: Django calls it before what may ask for any of them."""
        self.apps.render_all()

    def reload_model(self, app_label, model_name, delay=False):
        self.__dict__.pop("apps", None)

    def reload_models(self, models, delay=True):
        self.__dict__.pop("apps", None)

    def remove_model(self, app_label, model_name):
        self.__dict__.pop("apps", None)
        super().remove_model(app_label, model_name)

    def clone(self):
        clone = LazyState({key: state.clone() for key, state in self.models.items()}, self.real_apps)
        if "apps" in self.__dict__:  # Both have them until one changes.
            self.apps.detach()
            clone.__dict__["apps"] = self.apps
        return clone


def needed(state: ModelState) -> Iterator[Key]:
    """Yield the models without which that of `state` cannot be rendered: those that it refers to, and those it is made from."""
    place = state.app_label, state.name_lower
    for field in state.fields.values():
        if remote := field.remote_field:
            for model in filter(None, (remote.model, getattr(remote, "through", None))):
                yield resolve_relation(model, *place)
    for base in state.bases:
        if isinstance(base, str) or hasattr(base, "_meta"):
            yield resolve_relation(base, *place)
