"""Databases on a cluster of Citus: CITUS_URL leads to one on its coordinator that has the extension and all nodes."""

import os
import secrets
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests.conftest import manage
from tests.servers import Database


def registered():
    """The coordinator's database of CITUS_URL, and the same on each worker."""
    place = urlsplit(f"//{os.environ['CITUS']}")
    coordinator = Database(place.hostname, str(place.port), place.username, place.password or "", place.path[1:])
    nodes = coordinator.execute("SELECT nodename, nodeport::text FROM pg_dist_node WHERE groupid > 0 ORDER BY nodeid")
    return [coordinator, *(replace(coordinator, host=host, port=port) for host, port in nodes)]


@pytest.fixture
def cluster():
    """A database to which every migration was applied, on a coordinator with its workers; nothing is distributed."""
    nodes, name = registered(), f"fresh_{secrets.token_hex(6)}"
    fresh = [replace(node, name=name) for node in nodes]
    for node, new in zip(nodes, fresh, strict=True):
        node.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        new.execute("CREATE EXTENSION citus")
    coordinator, *workers = fresh
    coordinator.execute(f"SELECT citus_set_coordinator_host('{coordinator.host}', {coordinator.port})")
    for worker in workers:
        coordinator.execute(f"SELECT citus_add_node('{worker.host}', {worker.port})")
    try:
        result = manage("migrate", url=coordinator.url)
        assert result.returncode == 0, result.stderr
        yield coordinator
    finally:
        for node in nodes:
            node.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def distributed(cluster):
    """The same, distributed."""
    result = manage("dbdistribute", "--yes", url=cluster.url)
    assert result.returncode == 0, result.stderr
    return cluster
