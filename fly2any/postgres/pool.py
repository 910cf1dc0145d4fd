"""psycopg's connection pool, for the processes that serve pages.

Commands use none: they need one connection, and a pool would hide the server's error behind a timeout.
"""

from django.db import connections


def serve_from_pools() -> None:
    """Take this process's connections from a pool from now on, for each of DATABASES that has `POOL` options."""
    connections.close_all()
    for alias in connections:
        settings = connections.settings[alias]
        if options := settings.get("POOL"):
            settings["OPTIONS"]["pool"] = options
