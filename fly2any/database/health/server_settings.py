"""Settings of the whole server: their values, and the cure for one wherever its value comes from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .examine import Reader

SETTINGS_SQL = "SELECT name, setting, source FROM pg_catalog.pg_settings WHERE name = ANY (%(names)s)"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings that this role may read, by name, and the sources of their values."""

    values: Mapping[str, str]
    sources: Mapping[str, str]

    def cure(self, wanted: Mapping[str, str]) -> tuple[str, bool]:
        """Return the cure that gives settings these values, and whether it is SQL."""
        fixed = [name for name in wanted if self.sources.get(name) == "command line"]
        if not fixed:
            lines = [f"ALTER SYSTEM SET {name} = '{value}';" for name, value in wanted.items()]
            return "\n".join([*lines, "SELECT pg_reload_conf();"]), True
        options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in wanted.items())
        return (
            f"The server's command line sets {' and '.join(fixed)}, and takes precedence over ALTER SYSTEM and every file:"
            f" start the server with {options}.",
            False,
        )


def read_settings(read: Reader, names: Iterable[str]) -> ServerSettings:
    rows = read(SETTINGS_SQL, names=list(names))
    return ServerSettings({row.name: row.setting for row in rows}, {row.name: row.source for row in rows})
