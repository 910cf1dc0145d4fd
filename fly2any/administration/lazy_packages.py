"""Packages whose code is imported only when it is used.

django-otp-webauthn's models import four names of `webauthn`, whose packages import all of it and, with it, cryptography and OpenSSL: a
fifth of the time of a command that never sees a passkey.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType


class Deferred(ModuleType):
    """A package that finds a name in its submodule of that name, where webauthn's functions are; for any other name, its own code runs."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            setattr(self, name, import_module(f"{self.__name__}.{name}"))
        except ModuleNotFoundError:
            self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
        try:
            return vars(self)[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name, value):
        """Replace a submodule by the object of the same name, as `from .name import name` would."""
        if isinstance(value, ModuleType):
            value = vars(value).get(name, value)
        super().__setattr__(name, value)


def defer(*packages: str) -> None:
    """Defer the code of `packages`, parents first, until it is needed."""
    for package in packages:
        if package not in sys.modules and (spec := find_spec(package)):
            sys.modules[package] = module = module_from_spec(spec)
            module.__class__ = Deferred
